/* A session's life and flow: bytes in, events out, answers in, bytes out. What may follow what is
 * states.c's business, what a packet holds is the wire's. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session/session.h"

/* ------------------------------------------------------------------------------- small things */

/* Notes why a call failed. Errors that end the session are set by mkit_end_with. */
int mkit_fail(struct mkit_session *session, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(session->why, sizeof session->why, format, args);
    va_end(args);
    return error;
}

void mkit_log(const struct mkit_session *session, int level, const char *format, ...)
{
    const struct mkit_filter *filter = session->filter;
    if (!filter->log || level > (filter->log_level ? filter->log_level : MKIT_LOG_INFO))
        return;
    char line[256];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    filter->log(filter->data, level, session, line);
}

bool mkit_in_message(const struct mkit_session *session)
{
    enum state state = session->state;
    if (state == S_UNKN)
        state = session->before_unknown;
    return mkit_states[state].in_message;
}

/* --------------------------------------------------------------------------------------- life */

static size_t or_default(size_t value, size_t standard)
{
    return value ? value : standard;
}

struct mkit_session *mkit_session_new(const struct mkit_filter *filter)
{
    struct mkit_session *session = calloc(1, sizeof *session);
    if (!session)
        return NULL;
    const struct mkit_limits *limits = &filter->limits;
    session->filter = filter;
    session->limits = (struct mkit_limits){
        .packet =
            or_default(limits->packet, filter->degree == MKIT_COMPATIBLE ? MKIT_MAX_SEND : 1 << 20),
        .macros = or_default(limits->macros, 1 << 16),
        .recipients = or_default(limits->recipients, 1 << 16),
        .header_bytes = or_default(limits->header_bytes, SIZE_MAX), /* they are not kept here */
        .output = or_default(limits->output, 1 << 18),
    };
    session->asked = NO_STEP;
    session->held = -1;
    session->close_owed = true;
    return session;
}

void mkit_session_free(struct mkit_session *session)
{
    if (!session)
        return;
    mkit_macros_clear(session, 0);
    mkit_reply_clear(session);
    for (int stage = 0; stage < MKIT_STAGES; stage++)
        free(session->symlists[stage]);
    mkit_forget(&session->partial);
    mkit_forget(&session->out);
    mkit_forget(&session->later);
    free(session);
}

void mkit_session_trim(struct mkit_session *session)
{
    mkit_trim(&session->partial);
    mkit_trim(&session->out);
    mkit_trim(&session->later);
}

static void push(struct mkit_session *session, enum mkit_step step)
{
    session->todo[session->todo_len++] = (uint8_t)step;
}

/* The end of a message, or of the connection as well: what the filter is still owed. A message
 * that it has refused, though the MTA does not know it yet, is over for the filter. */
static void push_ends(struct mkit_session *session, bool with_close)
{
    if (mkit_in_message(session) && session->held < 0)
        push(session, MKIT_ABORT);
    if (with_close && session->close_owed)
        push(session, MKIT_CLOSE);
    if (!session->held_always)
        session->held = -1;
}

/* Lets the session end: abort and close are still to come. */
static void end(struct mkit_session *session)
{
    if (session->ending)
        return;
    session->ending = true;
    session->todo_len = 0;
    push_ends(session, true);
    session->state = S_QUIT;
    session->in_len = 0;
}

int mkit_end_with(struct mkit_session *session, int error)
{
    if (!session->error) {
        session->error = error;
        if (error == MKIT_EPROTOCOL || error == MKIT_ELIMIT) {
            const size_t len = strlen(session->why);
            (void)snprintf(session->why + len, sizeof session->why - len, " (state %s)",
                           mkit_states[session->state].name);
        }
        mkit_log(session, MKIT_LOG_WARNING, "%s", session->why);
    }
    end(session);
    return error;
}

void mkit_session_eof(struct mkit_session *session)
{
    session->eof = true;
}

void mkit_session_end(struct mkit_session *session)
{
    end(session);
}

/* ------------------------------------------------------------------------------------- events */

/* Keeps what a message makes the filter see within the limits. */
static int check_limits(struct mkit_session *session)
{
    if (session->state == S_RCPT && ++session->recipients > session->limits.recipients)
        return mkit_fail(session, MKIT_ELIMIT, "packet RCPT (R): more than %zu recipients",
                         session->limits.recipients);
    if (session->state == S_HDRS &&
        (session->header_bytes += session->packet.len) > session->limits.header_bytes)
        return mkit_fail(session, MKIT_ELIMIT, "packet HEADER (L): more than %zu bytes of headers",
                         session->limits.header_bytes);
    return 0;
}

/* Some packets mean something by being empty or not, callback or none. */
static int check_empty(struct mkit_session *session, uint8_t command)
{
    const struct mkit_packet_kind *kind = mkit_packet_kind(MKIT_TO_FILTER, command);
    if (!kind) {
        if (command > ' ' && command < 0x7f)
            return mkit_fail(session, MKIT_EPROTOCOL, "unknown packet %c", command);
        return mkit_fail(session, MKIT_EPROTOCOL, "unknown packet 0x%02x", command);
    }
    if (session->packet.len == 0 && *kind->layout && *kind->layout != '*')
        return mkit_fail(session, MKIT_EPROTOCOL, "packet %s (%c): it is empty", kind->name,
                         command);
    return 0;
}

/* Whether a command may come now. Inside a message that UNKNOWN interrupted, what could have
 * followed before still can; what would start something else ends the message first. */
static bool may_come(const struct mkit_session *session, enum state to)
{
    if (session->state == S_UNKN && session->before_unknown != S_INIT)
        return mkit_may_follow(session->before_unknown, to, session->protocol) ||
               (to != S_HELO && to != S_MAIL && mkit_may_follow(S_UNKN, to, session->protocol));
    return mkit_may_follow(session->state, to, session->protocol);
}

/* Says that a command gets no answer, once for each command of a connection. Postfix sends ABORT
 * after a finished message too; it awaits no answer. */
static void log_order(struct mkit_session *session, enum state from, enum state to)
{
    if (to == S_ABRT || session->told_order & 1U << to)
        return;
    session->told_order |= (uint16_t)(1U << to);
    mkit_log(session, MKIT_LOG_WARNING,
             "packet %s (%c) out of order (state %s): ignored, the MTA gets no answer",
             mkit_packet_kind(MKIT_TO_FILTER, mkit_states[to].command)->name,
             mkit_states[to].command, mkit_states[from].name);
}

/* Takes a packet: decides by the state table what is to be done for it. */
static int take_packet(struct mkit_session *session)
{
    const uint8_t command = session->packet.command;
    int error = check_empty(session, command);
    if (error)
        return error;
    if (command == MKIT_C_MACRO) {
        const char *wrong;
        struct mkit_field fields[MKIT_MAX_FIELDS];
        (void)mkit_decode(MKIT_TO_FILTER, &session->packet, fields, &wrong);
        return mkit_macros_store(session, fields);
    }
    const enum state to = mkit_state_of(command);
    if (to == S_QUIT) {
        end(session);
        return 0;
    }
    if (to == S_Q_NC && session->state != S_INIT) {
        push_ends(session, true);
        session->state = S_Q_NC;
        session->held = -1;
        return 0;
    }
    if (!may_come(session, to)) {
        const enum state from = session->state;
        push_ends(session, false);
        session->state = S_HELO;
        if (!mkit_may_follow(S_HELO, to, session->protocol)) {
            log_order(session, from, to);
            return 0;
        }
    }
    if (to == S_ABRT) {
        push_ends(session, false);
        session->state = S_ABRT;
        return 0;
    }
    if (to != S_ENDM) {
        push(session, mkit_states[to].step);
        return 0;
    }
    if (session->packet.len)
        push(session, MKIT_BODY);
    push(session, MKIT_EOM);
    return 0;
}

/* Moves to the state of the packet's command, now that its step begins. */
static void enter_state(struct mkit_session *session, enum mkit_step step)
{
    const enum state to = mkit_state_of(session->packet.command);
    if (step == MKIT_EOM && session->state == S_ENDM)
        return; /* after the body that came with it */
    if (to == S_UNKN) {
        enum state from = session->state == S_UNKN ? session->before_unknown : session->state;
        session->before_unknown = mkit_states[from].in_message ? from : S_INIT;
    }
    if (mkit_states[to].in_message && !mkit_in_message(session)) { /* not only MAIL: see NOMAIL */
        session->recipients = 0;
        session->header_bytes = 0;
    }
    session->state = to;
    session->close_owed = true;
    mkit_macros_clear(session, mkit_states[to].macros);
}

/* Whether a verdict that could not be sent answers this step in place of the filter. */
static bool is_held(const struct mkit_session *session)
{
    return session->held >= 0 && session->state >= S_HELO;
}

/* Answers a step that the filter is not asked about. */
static int answer_for_filter(struct mkit_session *session, enum mkit_step step)
{
    const uint32_t no_reply = mkit_states[session->state].no_reply & session->protocol;
    const bool held = is_held(session);
    session->asked = step;
    int error =
        mkit_session_answer(session, held && !(no_reply & ~session->emulated) ? session->held
                                     : no_reply                               ? MKIT_NOREPLY
                                                                              : MKIT_CONTINUE);
    if (held && session->state == S_HELO && !session->held_always)
        session->held = -1;
    return error;
}

/* Begins the next step that is to be done. Returns MKIT_EVENT if the filter must see it, 0 if not,
 * or an error. */
static int next_step(struct mkit_session *session, struct mkit_event *event)
{
    const enum mkit_step step = session->todo[0];
    session->todo_len--;
    memmove(session->todo, session->todo + 1, session->todo_len);
    event->step = step;
    if (step == MKIT_ABORT || step == MKIT_CLOSE) {
        session->asked = step;
        if (step == MKIT_CLOSE)
            session->close_owed = false;
        return session->filter->on[step] ? MKIT_EVENT : mkit_session_answer(session, MKIT_CONTINUE);
    }
    enter_state(session, step);
    int error = check_limits(session);
    if (error)
        return error;
    const bool wanted = session->filter->on[step] && !is_held(session);
    if (wanted || step == MKIT_NEGOTIATE)
        error = mkit_packet_event(session, step, event);
    if (error)
        return error;
    if (!wanted)
        return answer_for_filter(session, step);
    session->asked = step;
    session->out_step = session->out.len;
    return MKIT_EVENT;
}

/* No more bytes will come: a message or packet that is open will never be whole. */
static void end_of_input(struct mkit_session *session)
{
    if (session->partial.len)
        mkit_log(session, MKIT_LOG_WARNING, "the MTA closed the connection inside a packet");
    else if (mkit_in_message(session))
        mkit_log(session, MKIT_LOG_WARNING, "the MTA closed the connection inside a message");
    end(session);
}

int mkit_session_next(struct mkit_session *session, struct mkit_event *event)
{
    if (session->asked != NO_STEP)
        return mkit_fail(session, MKIT_EBUSY, "next: the last event is not answered");
    for (;;) {
        int result;
        if (session->todo_len) {
            result = next_step(session, event);
            if (result == MKIT_EVENT)
                return result;
        } else if (session->ending) {
            return session->error ? session->error : MKIT_CLOSED;
        } else if (mkit_output_waits(session) > session->limits.output) {
            return MKIT_NEED_OUTPUT;
        } else {
            result = mkit_next_packet(session);
            if (result == 0 && !session->eof)
                return MKIT_NEED_INPUT;
            if (result == 0)
                end_of_input(session);
            else if (result > 0)
                result = take_packet(session);
        }
        if (result < 0)
            (void)mkit_end_with(session, result);
    }
}

/* ------------------------------------------------------------------------------------ answers */

/* What a failed callback's step is answered. */
static int failure_verdict(const struct mkit_filter *filter)
{
    switch (filter->on_failure) {
    case MKIT_FAIL_REJECT: return MKIT_REJECT;
    case MKIT_FAIL_ACCEPT: return MKIT_ACCEPT;
    case MKIT_FAIL_CONTINUE: return MKIT_CONTINUE;
    default: return MKIT_TEMPFAIL;
    }
}

/* What a callback's result means: a verdict, or -1 for nothing at all (COMPATIBLE). */
static int verdict_of(const struct mkit_session *session, int result)
{
    if (result >= 0 && result <= MKIT_ALL_OPTS && mkit_verdicts[result].known)
        return result;
    if (result >= 0 && session->filter->degree == MKIT_COMPATIBLE)
        return -1;
    return failure_verdict(session->filter);
}

/* Ends a step by its one reply. */
static int answer_step(struct mkit_session *session, enum mkit_step step, int verdict)
{
    const struct verdict_row *row = &mkit_verdicts[verdict];
    if (step == MKIT_BODY && session->state == S_ENDM) { /* eom, if it follows, has the reply */
        if (!row->final)
            return 0;
        session->todo_len = 0;
    }
    if (session->later.len) {
        if (!mkit_append(&session->out, session->later.at, session->later.len))
            return mkit_fail(session, MKIT_ENOMEM, "no memory for the filter's changes");
        session->later.len = 0;
    }
    session->replacing = false;
    const int held_before = session->held;
    int error = mkit_reply_send(session, verdict);
    if (error)
        return error;
    const struct state_row *at = &mkit_states[session->state];
    const bool over = row->final_always || (row->final && !at->one_only);
    if (over && session->held == held_before)
        session->state = at->over;
    return 0;
}

int mkit_session_answer(struct mkit_session *session, int result)
{
    const enum mkit_step step = session->asked;
    if (step == NO_STEP)
        return mkit_fail(session, MKIT_ESTEP, "answer: no event waits for one");
    session->asked = NO_STEP;
    if (step == MKIT_CLOSE)
        mkit_macros_clear(session, 0);
    if (step == MKIT_CLOSE || step == MKIT_ABORT)
        return 0;
    if (session->ending) /* the connection broke during the callback */
        return session->error;
    int error = 0;
    if (step == MKIT_NEGOTIATE) {
        error = mkit_negotiate_end(session, result);
    } else {
        int verdict = verdict_of(session, result);
        if (verdict >= 0)
            error = answer_step(session, step, verdict);
        if (!error && result >= 0 && verdict != result)
            return mkit_fail(session, MKIT_EINVAL,
                             "%s: the callback returned %d, which is no verdict",
                             mkit_step_name(step), result);
    }
    return error ? mkit_end_with(session, error) : 0;
}

/* ------------------------------------------------------------------------------------ looking */

bool mkit_session_in_message(const struct mkit_session *session)
{
    return mkit_in_message(session) || (session->asked != NO_STEP && session->state == S_ENDM);
}

void mkit_session_on_gone(struct mkit_session *session,
                          bool (*gone)(const struct mkit_session *, void *), void *arg)
{
    session->gone = gone;
    session->gone_arg = arg;
}

bool mkit_mta_gone(const struct mkit_session *session)
{
    return session->eof || mkit_is_parted(session) || session->error == MKIT_ECLOSED ||
           (session->gone && session->gone(session, session->gone_arg));
}

const char *mkit_session_why(const struct mkit_session *session)
{
    return session->why;
}

uint32_t mkit_session_actions(const struct mkit_session *session)
{
    return session->actions;
}

uint32_t mkit_session_protocol(const struct mkit_session *session)
{
    return session->protocol;
}

void mkit_set_private(struct mkit_session *session, void *pointer)
{
    session->private = pointer;
}

void *mkit_private(const struct mkit_session *session)
{
    return session->private;
}

void *mkit_filter_data(const struct mkit_session *session)
{
    return session->filter->data;
}
