/* Actions: what a filter may do to the message at its end, checked and made into packets (sheet
 * 5.4). */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "session/session.h"

static bool is_strict(const struct mkit_session *session)
{
    return session->filter->degree == MKIT_STRICT;
}

/* Whether an action is possible now. */
static int check_action(struct mkit_session *session, const char *call, uint32_t action)
{
    if (session->error)
        return session->error;
    if (session->state != S_ENDM || session->asked > MKIT_EOM)
        return mkit_fail(session, MKIT_ESTEP, "%s: a message can be changed in eom only", call);
    if ((session->actions & action) != action)
        return mkit_fail(session, MKIT_EACTION,
                         "%s: action %s was not negotiated: ask for it in the filter's flags", call,
                         mkit_action_name(action));
    return 0;
}

/* An address or its parameters: one line, not empty. */
static int check_line(struct mkit_session *session, const char *call, const char *what,
                      const char *text)
{
    if (!text || !*text)
        return mkit_fail(session, MKIT_EINVAL, "%s: %s is empty", call, what);
    if (is_strict(session) && strpbrk(text, "\r\n"))
        return mkit_fail(session, MKIT_ETEXT, "%s: %s has a line end in it", call, what);
    return 0;
}

static int check_name(struct mkit_session *session, const char *call, const char *name)
{
    if (!name || !*name)
        return mkit_fail(session, MKIT_EINVAL, "%s: the header's name is empty", call);
    if (!is_strict(session))
        return 0;
    for (const char *at = name; *at; at++)
        if (*at <= ' ' || *at >= 0x7f || *at == ':')
            return mkit_fail(session, MKIT_ETEXT,
                             "%s: a header's name has printable ASCII without space and colon "
                             "(RFC 5322 3.6.8)",
                             call);
    return 0;
}

/* Returns NULL, or what is wrong with a header's value in the strict degree. */
static const char *value_fault(const char *value, size_t len)
{
    for (size_t i = strcspn(value, "\r\n"); i < len; i += 1 + strcspn(value + i + 1, "\r\n")) {
        if (value[i] == '\r' && value[i + 1] == '\n')
            continue;
        if (value[i] == '\r')
            return "a CR without LF in the value: MTAs take it as a line end";
        const size_t blank = strspn(value + i + 1, " \t");
        if (blank == 0)
            return "a line of the value does not start with white space: it would be another "
                   "header";
        if (i + 1 + blank >= len || value[i + 1 + blank] == '\r' || value[i + 1 + blank] == '\n')
            return "a line of the value is white space alone: it could be taken for the end of the "
                   "headers (RFC 5322 3.2.2)";
    }
    return NULL;
}

/* A header's value as it goes out; strict: without line ends at its end, and LF for CR LF. *copy is
 * what the caller must free. */
static int clean_value(struct mkit_session *session, const char *call, const char *value,
                       struct mkit_field *field, char **copy)
{
    size_t len = strlen(value);
    *copy = NULL;
    *field = mkit_bytes(value, len);
    if (!is_strict(session))
        return 0;
    while (len && (value[len - 1] == '\n' || value[len - 1] == '\r'))
        len--;
    const char *fault = value_fault(value, len);
    if (fault)
        return mkit_fail(session, MKIT_ETEXT, "%s: %s", call, fault);
    *field = mkit_bytes(value, len);
    if (!memchr(value, '\r', len))
        return 0;
    char *to = *copy = malloc(len + 1);
    if (!to)
        return mkit_fail(session, MKIT_ENOMEM, "%s: no memory", call);
    for (size_t i = 0; i < len; i++)
        if (value[i] != '\r')
            *to++ = value[i];
    *field = mkit_bytes(*copy, (size_t)(to - *copy));
    return 0;
}

/* Queues an action's packet. Between two chunks of a body nothing else may stand: it comes after.
 */
static int send_action(struct mkit_session *session, const char *call, uint8_t command,
                       const struct mkit_field *fields, size_t count)
{
    struct bytes *to = session->replacing && is_strict(session) ? &session->later : &session->out;
    int error = mkit_send(session, to, command, fields, count);
    if (error == MKIT_ETOOBIG)
        return mkit_fail(session, error, "%s: more than %d bytes in one packet", call,
                         MKIT_MAX_SEND);
    return error ? error : mkit_flush_over(session, session->limits.output);
}

static int send_header(struct mkit_session *session, const char *call, uint8_t command,
                       const int32_t *index, const char *name, const char *value)
{
    if (index && *index < 0)
        return mkit_fail(session, MKIT_EINVAL, "%s: index %d is negative", call, (int)*index);
    int error = check_name(session, call, name);
    if (error)
        return error;
    if (!value)
        return mkit_fail(session, MKIT_EINVAL, "%s: the value is missing", call);
    struct mkit_field fields[3];
    size_t count = 0;
    char *copy;
    if (index)
        fields[count++] = mkit_number((uint32_t)*index);
    fields[count++] = mkit_bytes(name, strlen(name));
    error = clean_value(session, call, value, &fields[count++], &copy);
    if (!error)
        error = send_action(session, call, command, fields, count);
    free(copy);
    return error;
}

static int addheader(struct mkit_session *session, const char *name, const char *value)
{
    int error = check_action(session, "addheader", MKIT_ADDHDRS);
    return error ? error : send_header(session, "addheader", MKIT_R_ADDHEADER, NULL, name, value);
}

static int insheader(struct mkit_session *session, int32_t index, const char *name,
                     const char *value)
{
    int error = check_action(session, "insheader", MKIT_ADDHDRS);
    return error ? error : send_header(session, "insheader", MKIT_R_INSHEADER, &index, name, value);
}

static int chgheader(struct mkit_session *session, const char *name, int32_t index,
                     const char *value)
{
    int error = check_action(session, "chgheader", MKIT_CHGHDRS);
    return error ? error
                 : send_header(session, "chgheader", MKIT_R_CHGHEADER, &index, name,
                               value ? value : "");
}

/* An address with or without ESMTP parameters. */
static int send_address(struct mkit_session *session, const char *call, uint32_t action,
                        uint8_t command, const char *address, const char *args)
{
    int error = check_action(session, call, action);
    if (!error)
        error = check_line(session, call, "the address", address);
    if (!error && args && *args)
        error = check_line(session, call, "the parameters", args);
    if (error)
        return error;
    struct mkit_field fields[2] = {
        mkit_bytes(address, strlen(address)),
        args ? mkit_bytes(args, strlen(args)) : mkit_number(0),
    };
    return send_action(session, call, command, fields, args ? 2 : 1);
}

static int addrcpt(struct mkit_session *session, const char *rcpt)
{
    return send_address(session, "addrcpt", MKIT_ADDRCPT, MKIT_R_ADDRCPT, rcpt, NULL);
}

static int addrcpt_par(struct mkit_session *session, const char *rcpt, const char *args)
{
    return send_address(session, "addrcpt", MKIT_ADDRCPT_PAR, MKIT_R_ADDRCPT_PAR, rcpt, args);
}

static int delrcpt(struct mkit_session *session, const char *rcpt)
{
    return send_address(session, "delrcpt", MKIT_DELRCPT, MKIT_R_DELRCPT, rcpt, NULL);
}

static int chgfrom(struct mkit_session *session, const char *sender, const char *args)
{
    return send_address(session, "chgfrom", MKIT_CHGFROM, MKIT_R_CHGFROM, sender, args);
}

static int quarantine(struct mkit_session *session, const char *reason)
{
    int error = check_action(session, "quarantine", MKIT_QUARANTINE);
    if (error)
        return error;
    if (!reason || !*reason)
        return mkit_fail(session, MKIT_EINVAL, "quarantine: the reason is empty");
    char *line = strdup(reason);
    if (!line)
        return mkit_fail(session, MKIT_ENOMEM, "quarantine: no memory");
    if (is_strict(session)) /* it is one line; MTAs would take line ends out */
        for (char *at = line; (at = strpbrk(at, "\r\n"));)
            *at = ' ';
    struct mkit_field field = mkit_bytes(line, strlen(line));
    error = send_action(session, "quarantine", MKIT_R_QUARANTINE, &field, 1);
    free(line);
    return error;
}

static int replacebody(struct mkit_session *session, const void *data, size_t len)
{
    int error = check_action(session, "replacebody", MKIT_CHGBODY);
    if (error)
        return error;
    if (!data && len)
        return mkit_fail(session, MKIT_EINVAL, "replacebody: the data is missing");
    session->replacing = true;
    const char *at = data;
    do {
        size_t part = len < MKIT_CHUNK ? len : MKIT_CHUNK;
        struct mkit_field field = mkit_bytes(at, part);
        error = mkit_send(session, &session->out, MKIT_R_REPLBODY, &field, 1);
        if (!error)
            error = mkit_flush_over(session, session->limits.output);
        if (error)
            return error;
        len -= part;
        at = at ? at + part : NULL;
    } while (len);
    return 0;
}

static int progress(struct mkit_session *session)
{
    if (session->error)
        return session->error;
    if (is_strict(session)) {
        if (session->state != S_ENDM || session->asked > MKIT_EOM)
            return mkit_fail(session, MKIT_ESTEP, "progress: MTAs know it in eom only");
        if (session->replacing) /* would end the new body; its chunks show life themselves */
            return mkit_flush_over(session, 0);
    }
    int error = mkit_send(session, &session->out, MKIT_R_PROGRESS, NULL, 0);
    return error ? error : mkit_flush_over(session, 0);
}

/* ------------------------------------------------------------------------- as callbacks call them
 */

int mkit_addheader(struct mkit_session *session, const char *name, const char *value)
{
    return CALLED(session, addheader(session, name, value));
}

int mkit_insheader(struct mkit_session *session, int32_t index, const char *name, const char *value)
{
    return CALLED(session, insheader(session, index, name, value));
}

int mkit_chgheader(struct mkit_session *session, const char *name, int32_t index, const char *value)
{
    return CALLED(session, chgheader(session, name, index, value));
}

int mkit_addrcpt(struct mkit_session *session, const char *rcpt)
{
    return CALLED(session, addrcpt(session, rcpt));
}

int mkit_addrcpt_par(struct mkit_session *session, const char *rcpt, const char *args)
{
    return CALLED(session, addrcpt_par(session, rcpt, args));
}

int mkit_delrcpt(struct mkit_session *session, const char *rcpt)
{
    return CALLED(session, delrcpt(session, rcpt));
}

int mkit_chgfrom(struct mkit_session *session, const char *sender, const char *args)
{
    return CALLED(session, chgfrom(session, sender, args));
}

int mkit_quarantine(struct mkit_session *session, const char *reason)
{
    return CALLED(session, quarantine(session, reason));
}

int mkit_replacebody(struct mkit_session *session, const void *data, size_t len)
{
    return CALLED(session, replacebody(session, data, len));
}

int mkit_progress(struct mkit_session *session)
{
    return CALLED(session, progress(session));
}
