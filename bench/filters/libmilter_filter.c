/* The filter of every_step.py in C, on libmilter's API: for the system's libmilter, and for any
 * other library with that API. Usage: libmilter_filter PATH every|noreply */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <libmilter/mfapi.h>

/* What is kept for a connection. */
struct connection {
    char client[64];
    char helo[64];
    char sender[64];
    char queue_id[32];
    size_t octets;
    unsigned recipients;
};

static sfsistat answer = SMFIS_CONTINUE;

static void keep(char *to, size_t size, const char *text)
{
    (void)snprintf(to, size, "%s", text ? text : "");
}

static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address)
{
    struct connection *c = calloc(1, sizeof *c);
    (void)address;
    if (!c)
        return SMFIS_TEMPFAIL;
    keep(c->client, sizeof c->client, host);
    (void)smfi_setpriv(ctx, c);
    return answer;
}

static sfsistat on_helo(SMFICTX *ctx, char *name)
{
    struct connection *c = smfi_getpriv(ctx);
    keep(c->helo, sizeof c->helo, name);
    return answer;
}

static sfsistat on_envfrom(SMFICTX *ctx, char **args)
{
    struct connection *c = smfi_getpriv(ctx);
    keep(c->sender, sizeof c->sender, args[0]);
    c->recipients = 0;
    return answer;
}

static sfsistat on_envrcpt(SMFICTX *ctx, char **args)
{
    struct connection *c = smfi_getpriv(ctx);
    c->octets += strlen(args[0]);
    c->recipients++;
    return answer;
}

static sfsistat on_data(SMFICTX *ctx)
{
    (void)ctx;
    return answer;
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
    struct connection *c = smfi_getpriv(ctx);
    c->octets += strlen(name) + strlen(value);
    return answer;
}

static sfsistat on_eoh(SMFICTX *ctx)
{
    (void)ctx;
    return answer;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): the callback's type is libmilter's */
static sfsistat on_body(SMFICTX *ctx, unsigned char *chunk, size_t len)
{
    struct connection *c = smfi_getpriv(ctx);
    (void)chunk;
    c->octets += len;
    return answer;
}

static sfsistat on_unknown(SMFICTX *ctx, const char *command)
{
    (void)ctx;
    (void)command;
    return answer;
}

static sfsistat on_eom(SMFICTX *ctx)
{
    struct connection *c = smfi_getpriv(ctx);
    char name[] = "i";
    keep(c->queue_id, sizeof c->queue_id, smfi_getsymval(ctx, name));
    return SMFIS_CONTINUE;
}

static sfsistat on_abort(SMFICTX *ctx)
{
    (void)ctx;
    return SMFIS_CONTINUE;
}

static sfsistat on_close(SMFICTX *ctx)
{
    free(smfi_getpriv(ctx));
    (void)smfi_setpriv(ctx, NULL);
    return SMFIS_CONTINUE;
}

static sfsistat on_negotiate(SMFICTX *ctx, unsigned long f0, unsigned long f1, unsigned long f2,
                             unsigned long f3, unsigned long *pf0, unsigned long *pf1,
                             unsigned long *pf2, unsigned long *pf3)
{
    const unsigned long no_reply = SMFIP_NR_CONN | SMFIP_NR_HELO | SMFIP_NR_MAIL | SMFIP_NR_RCPT |
                                   SMFIP_NR_DATA | SMFIP_NR_UNKN | SMFIP_NR_HDR | SMFIP_NR_EOH |
                                   SMFIP_NR_BODY;
    (void)ctx;
    (void)f0;
    (void)f2;
    (void)f3;
    *pf0 = 0;
    *pf1 = answer == SMFIS_NOREPLY ? f1 & no_reply : 0;
    *pf2 = *pf3 = 0;
    return SMFIS_CONTINUE;
}

int main(int argc, char **argv)
{
    char name[] = "bench";
    if (argc != 3)
        return 2;
    if (strcmp(argv[2], "noreply") == 0)
        answer = SMFIS_NOREPLY;
    struct smfiDesc filter = {
        .xxfi_name = name,
        .xxfi_version = SMFI_VERSION,
        .xxfi_connect = on_connect,
        .xxfi_helo = on_helo,
        .xxfi_envfrom = on_envfrom,
        .xxfi_envrcpt = on_envrcpt,
        .xxfi_header = on_header,
        .xxfi_eoh = on_eoh,
        .xxfi_body = on_body,
        .xxfi_eom = on_eom,
        .xxfi_abort = on_abort,
        .xxfi_close = on_close,
        .xxfi_unknown = on_unknown,
        .xxfi_data = on_data,
        .xxfi_negotiate = on_negotiate,
    };
    if (smfi_setconn(argv[1]) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS)
        return 1;
    return smfi_main() == MI_SUCCESS ? 0 : 1;
}
