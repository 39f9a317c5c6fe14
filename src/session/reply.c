/* Replies: the text that a filter sets for a refusal, and the one final reply of every step (sheet
 * 3.2, 3.5, 5.3). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session/session.h"

enum { MAX_LINES = 32, MAX_LINE = 980, RCODE_LEN = 3 };

void mkit_reply_clear(struct mkit_session *session)
{
    free(session->reply);
    session->reply = NULL;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_rcode(const char *code)
{
    return code && strlen(code) == RCODE_LEN && (code[0] == '4' || code[0] == '5') &&
           is_digit(code[1]) && is_digit(code[2]);
}

/* An enhanced status code of RFC 3463: class, then twice a dot and one to three digits. */
static bool is_xcode(const char *code)
{
    if (code[0] != '2' && code[0] != '4' && code[0] != '5')
        return false;
    code++;
    for (int part = 0; part < 2; part++) {
        if (*code++ != '.')
            return false;
        size_t digits = strspn(code, "0123456789");
        if (digits < 1 || digits > 3)
            return false;
        code += digits;
    }
    return *code == '\0';
}

/* Returns NULL, or what is wrong with a line of a reply. */
static const char *check_line(const char *line, enum mkit_degree degree)
{
    size_t len = strlen(line);
    if (len > MAX_LINE)
        return "is longer than 980 bytes";
    if (strpbrk(line, "\r\n"))
        return "has a line end in it: give each line as an argument of its own";
    if (degree == MKIT_COMPATIBLE)
        return NULL;
    for (const char *at = line; *at; at++) {
        if (((unsigned char)*at < ' ' && *at != '\t') || *at == 0x7f)
            return "has a control character in it";
        if (*at == '%' && *++at != '%')
            return "has a single % in it: MTAs take it as a format, write %%";
    }
    return NULL;
}

static int check_reply(struct mkit_session *session, const char *rcode, const char *xcode,
                       const char *const *lines, size_t count)
{
    enum mkit_degree degree = session->filter->degree;
    if (!is_rcode(rcode))
        return mkit_fail(session, MKIT_EINVAL,
                         "setreply: the reply code must be 4yz or 5yz, three digits");
    if (xcode && !is_xcode(xcode))
        return mkit_fail(session, MKIT_EINVAL, "setreply: the enhanced code must be like %c.7.1",
                         rcode[0]);
    if (xcode && degree == MKIT_STRICT && xcode[0] != rcode[0])
        return mkit_fail(session, MKIT_EINVAL,
                         "setreply: reply code %s and enhanced code %s are of different classes",
                         rcode, xcode);
    if (count > MAX_LINES)
        return mkit_fail(session, MKIT_EINVAL, "setreply: %zu lines, at most %d can be sent", count,
                         MAX_LINES);
    for (size_t i = 0; i < count; i++) {
        const char *wrong = lines[i] ? check_line(lines[i], degree) : NULL;
        if (wrong)
            return mkit_fail(session, MKIT_ETEXT, "setreply: line %zu %s", i + 1, wrong);
    }
    return 0;
}

/* Whether x.0.0 is put in: with several lines, as libmilter does, and before a text that Postfix
 * would take for an enhanced code of another class, because it begins with a digit. */
static bool needs_xcode(const struct mkit_session *session, const char *rcode,
                        const char *const *lines, size_t count)
{
    return count > 1 || (count == 1 && session->filter->degree == MKIT_STRICT && lines[0] &&
                         is_digit(*lines[0]) && *lines[0] != *rcode);
}

static int set_reply(struct mkit_session *session, const char *rcode, const char *xcode,
                     const char *const *lines, size_t count)
{
    int error = check_reply(session, rcode, xcode, lines, count);
    if (error)
        return error;
    char class_code[] = "5.0.0";
    if (!xcode && needs_xcode(session, rcode, lines, count)) {
        class_code[0] = rcode[0];
        xcode = class_code;
    }
    size_t size = 1;
    for (size_t i = 0; i < count || i == 0; i++)
        size += RCODE_LEN + 1 + (xcode ? strlen(xcode) + 1 : 0) +
                (i < count && lines[i] ? strlen(lines[i]) : 0) + 2;
    char *text = malloc(size);
    if (!text)
        return mkit_fail(session, MKIT_ENOMEM, "setreply: no memory");
    char *at = text;
    for (size_t i = 0; i < count || i == 0; i++) {
        const char *line = i < count ? lines[i] : NULL;
        bool last = i + 1 >= count;
        at += snprintf(at, size - (size_t)(at - text), "%s%c%s%s%s%s", rcode, last ? ' ' : '-',
                       xcode ? xcode : "", xcode && (line || !last) ? " " : "", line ? line : "",
                       last ? "" : "\r\n");
    }
    mkit_reply_clear(session);
    session->reply = text;
    return 0;
}

int mkit_setreply(struct mkit_session *session, const char *rcode, const char *xcode,
                  const char *const *lines, size_t count)
{
    return CALLED(session, set_reply(session, rcode, xcode, lines, count));
}

/* Says of a verdict at a no-reply step what is done instead; COMPATIBLE: in libmilter's words. */
static void log_unsendable(const struct mkit_session *session, int verdict, bool held)
{
    if (session->filter->degree == MKIT_COMPATIBLE) {
        mkit_log(session, MKIT_LOG_ERROR,
                 "milter claimed not to reply in state %d but did anyway %d", (int)session->state,
                 verdict);
        return;
    }
    mkit_log(session, MKIT_LOG_ERROR,
             "%s: %s cannot be sent, since the MTA waits for no reply at this step: %s",
             mkit_step_name(mkit_states[session->state].step), mkit_verdict_name(verdict),
             held ? "it is the answer to the next step that has one" : "it is left out");
}

/* For those who want to know where an answer to the MTA came from: the step, the verdict, and what
 * the MTA is told. */
static void log_answer(const struct mkit_session *session, int verdict, const char *what,
                       const char *text)
{
    mkit_log(session, MKIT_LOG_DEBUG, "%s: %s%s%.160s",
             mkit_step_name(mkit_states[session->state].step), mkit_verdict_name(verdict), what,
             text);
}

/* Says when a verdict will not have the effect that its author expects. */
static void log_doubtful(const struct mkit_session *session, int verdict)
{
    const char *reply = session->reply;
    const char *step = mkit_step_name(mkit_states[session->state].step);
    if (session->filter->degree != MKIT_STRICT)
        return;
    if (reply && ((verdict == MKIT_REJECT && reply[0] == '4') ||
                  (verdict == MKIT_TEMPFAIL && reply[0] == '5')))
        mkit_log(session, MKIT_LOG_WARNING,
                 "%s: reply \"%.40s\" is not used: its class does not suit %s", step, reply,
                 mkit_verdict_name(verdict));
    if (verdict == MKIT_DISCARD && session->state <= S_HELO)
        mkit_log(session, MKIT_LOG_WARNING, "%s: Postfix ignores DISCARD at this step", step);
}

static int send_verdict(struct mkit_session *session, int verdict)
{
    const char *reply = session->reply;
    char class_digit = verdict == MKIT_REJECT ? '5' : '4';
    if ((verdict == MKIT_REJECT || verdict == MKIT_TEMPFAIL) && reply && reply[0] == class_digit) {
        struct mkit_field text = mkit_bytes(reply, strlen(reply));
        log_answer(session, verdict, ", reply ", reply);
        int error = mkit_send(session, &session->out, MKIT_R_REPLYCODE, &text, 1);
        mkit_reply_clear(session);
        return error;
    }
    const bool refuses = verdict == MKIT_REJECT || verdict == MKIT_TEMPFAIL;
    log_answer(session, verdict, refuses ? ", without a reply of the filter's" : "", "");
    return mkit_send(session, &session->out, mkit_verdicts[verdict].reply, NULL, 0);
}

/* Whether SKIP can be sent. Before the headers Sendmail would ignore the filter from then on, for
 * all messages of the connection; at the end of the message it would give up on it. */
static bool may_skip(const struct mkit_session *session)
{
    const enum state state = session->state;
    if (state == S_HDRS || state == S_EOHS || state == S_BODY)
        return session->protocol & MKIT_SKIPPING;
    mkit_log(session, MKIT_LOG_WARNING,
             "%s: SKIP counts as CONTINUE: it is for headers and bodies, and elsewhere Sendmail "
             "would ignore the filter from then on",
             mkit_step_name(mkit_states[state].step));
    return false;
}

/* Whether a verdict that cannot be sent now must be said later: the MTA goes on as if nothing had
 * happened. A refused UNKNOWN command is over and done with. */
static bool must_hold(const struct mkit_session *session, int verdict)
{
    const struct verdict_row *row = &mkit_verdicts[verdict];
    if (session->state == S_UNKN)
        return row->final_always && mkit_in_message(session);
    return row->final;
}

int mkit_reply_send(struct mkit_session *session, int verdict)
{
    const bool strict = session->filter->degree == MKIT_STRICT;
    const uint32_t no_reply = mkit_states[session->state].no_reply & session->protocol;
    const bool emulated = no_reply & session->emulated;
    if (strict && verdict == MKIT_SKIP && !may_skip(session))
        verdict = MKIT_CONTINUE;
    if (no_reply && !(strict && emulated && mkit_verdicts[verdict].final)) {
        const bool held = strict && must_hold(session, verdict);
        if (verdict != MKIT_NOREPLY && !(strict && verdict == MKIT_CONTINUE))
            log_unsendable(session, verdict, held);
        log_answer(session, verdict, held ? ", kept for a command that awaits an answer" : "",
                   emulated ? ", the MTA is told CONTINUE" : ", no answer is awaited");
        if (held) {
            session->held = verdict;
            session->held_always = session->state <= S_HELO;
        }
        return emulated ? mkit_send(session, &session->out, MKIT_R_CONTINUE, NULL, 0) : 0;
    }
    if (verdict == MKIT_NOREPLY) {
        if (!strict)
            return 0;
        verdict = MKIT_CONTINUE;
    }
    log_doubtful(session, verdict);
    return send_verdict(session, verdict);
}
