/* The functions that callbacks call on their context. The engine does the work and the checks, in
 * its compatible degree; here is what libmilter's face has beyond it. */
#include <stdarg.h>

#include "libmilter/smfi.h"

enum { MAX_LINES = 32 };

/* A call on a context, as libmilter answers it. */
#define CALL(ctx, call) ((ctx) && (call) == 0 ? MI_SUCCESS : MI_FAILURE)

char *smfi_getsymval(SMFICTX *ctx, char *name)
{
    return (char *)mkit_getsymval(session_of(ctx), name);
}

void *smfi_getpriv(SMFICTX *ctx)
{
    return ctx ? mkit_private(session_of(ctx)) : NULL;
}

int smfi_setpriv(SMFICTX *ctx, void *pointer)
{
    if (!ctx)
        return MI_FAILURE;
    mkit_set_private(session_of(ctx), pointer);
    return MI_SUCCESS;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): the type is libmilter's */
int smfi_setreply(SMFICTX *ctx, char *rcode, char *xcode, char *message)
{
    const char *lines[] = {message};
    return CALL(ctx, mkit_setreply(session_of(ctx), rcode, xcode, lines, message ? 1 : 0));
}

int smfi_setmlreply(SMFICTX *ctx, const char *rcode, const char *xcode, ...)
{
    const char *lines[MAX_LINES + 1];
    size_t count = 0;
    va_list args;
    va_start(args, xcode);
    while (count <= MAX_LINES && (lines[count] = va_arg(args, const char *)))
        count++;
    va_end(args);
    if (count == 0)
        return MI_FAILURE;
    if (!xcode && rcode)
        xcode = rcode[0] == '4' ? "4.0.0" : "5.0.0";
    return CALL(ctx, mkit_setreply(session_of(ctx), rcode, xcode, lines, count));
}

int smfi_progress(SMFICTX *ctx)
{
    return CALL(ctx, mkit_progress(session_of(ctx)));
}

int smfi_setsymlist(SMFICTX *ctx, int stage, char *names)
{
    return CALL(ctx, mkit_setsymlist(session_of(ctx), stage, names));
}

int smfi_addheader(SMFICTX *ctx, char *name, char *value)
{
    return CALL(ctx, mkit_addheader(session_of(ctx), name, value));
}

int smfi_insheader(SMFICTX *ctx, int index, char *name, char *value)
{
    return CALL(ctx, mkit_insheader(session_of(ctx), index, name, value));
}

int smfi_chgheader(SMFICTX *ctx, char *name, int index, char *value)
{
    return CALL(ctx, mkit_chgheader(session_of(ctx), name, index, value));
}

int smfi_chgfrom(SMFICTX *ctx, char *sender, char *args)
{
    return CALL(ctx, mkit_chgfrom(session_of(ctx), sender, args));
}

int smfi_addrcpt(SMFICTX *ctx, char *rcpt)
{
    return CALL(ctx, mkit_addrcpt(session_of(ctx), rcpt));
}

int smfi_addrcpt_par(SMFICTX *ctx, char *rcpt, char *args)
{
    return CALL(ctx, mkit_addrcpt_par(session_of(ctx), rcpt, args));
}

int smfi_delrcpt(SMFICTX *ctx, char *rcpt)
{
    return CALL(ctx, mkit_delrcpt(session_of(ctx), rcpt));
}

int smfi_replacebody(SMFICTX *ctx, unsigned char *bytes, int len)
{
    return CALL(ctx, len < 0 ? MKIT_EINVAL : mkit_replacebody(session_of(ctx), bytes, (size_t)len));
}

int smfi_quarantine(SMFICTX *ctx, char *reason)
{
    return CALL(ctx, mkit_quarantine(session_of(ctx), reason));
}
