/* The state table: which command may follow which, and what each verdict does. Everything that
 * the session decides by state is decided here (sheet 3.1, 3.2, 4.1). */
#include "session/session.h"

#define N(state) (1U << S_##state)

const struct state_row mkit_states[S_STATES] = {
    /* name        command          step        omit            no_reply   macros in_message
     * one_only over next */
    [S_INIT] = {"INIT", 0, NO_STEP, 0, 0, 7, false, false, S_HELO, N(OPTS)},
    [S_OPTS] = {"OPTS", MKIT_C_OPTNEG, MKIT_NEGOTIATE, 0, 0, 0, false, false, S_HELO,
                N(CONN) | N(UNKN)},
    [S_CONN] = {"CONN", MKIT_C_CONNECT, MKIT_CONNECT, MKIT_NOCONNECT, MKIT_NR_CONN, 1, false, false,
                S_HELO, N(HELO) | N(MAIL) | N(UNKN)},
    [S_HELO] = {"HELO", MKIT_C_HELO, MKIT_HELO, MKIT_NOHELO, MKIT_NR_HELO, 2, false, false, S_HELO,
                N(HELO) | N(MAIL) | N(UNKN)},
    [S_MAIL] = {"MAIL", MKIT_C_MAIL, MKIT_MAIL, MKIT_NOMAIL, MKIT_NR_MAIL, 3, true, false, S_HELO,
                N(RCPT) | N(ABRT) | N(UNKN)},
    [S_RCPT] = {"RCPT", MKIT_C_RCPT, MKIT_RCPT, MKIT_NORCPT, MKIT_NR_RCPT, 4, true, true, S_HELO,
                N(RCPT) | N(DATA) | N(HDRS) | N(EOHS) | N(BODY) | N(ENDM) | N(ABRT) | N(UNKN)},
    [S_DATA] = {"DATA", MKIT_C_DATA, MKIT_DATA, MKIT_NODATA, MKIT_NR_DATA, 7, true, false, S_OVER,
                N(RCPT) | N(DATA) | N(HDRS) | N(EOHS) | N(ABRT) | N(UNKN)},
    [S_HDRS] = {"HDRS", MKIT_C_HEADER, MKIT_HEADER, MKIT_NOHDRS, MKIT_NR_HDR, 7, true, false,
                S_HELO, N(HDRS) | N(EOHS) | N(ABRT)},
    [S_EOHS] = {"EOHS", MKIT_C_EOH, MKIT_EOH, MKIT_NOEOH, MKIT_NR_EOH, 7, true, false, S_HELO,
                N(BODY) | N(ENDM) | N(ABRT)},
    [S_BODY] = {"BODY", MKIT_C_BODY, MKIT_BODY, MKIT_NOBODY, MKIT_NR_BODY, 7, true, false, S_HELO,
                N(BODY) | N(ENDM) | N(ABRT)},
    [S_ENDM] = {"ENDM", MKIT_C_BODYEOB, MKIT_EOM, 0, 0, 7, false, false, S_HELO,
                N(MAIL) | N(UNKN) | N(QUIT) | N(Q_NC)},
    [S_QUIT] = {"QUIT", MKIT_C_QUIT, NO_STEP, 0, 0, 7, false, false, S_HELO, 0},
    [S_ABRT] = {"ABRT", MKIT_C_ABORT, NO_STEP, 0, 0, 7, false, false, S_HELO, 0},
    [S_UNKN] = {"UNKN", MKIT_C_UNKNOWN, MKIT_UNKNOWN, MKIT_NOUNKNOWN, MKIT_NR_UNKN, 7, false, true,
                S_HELO,
                N(HELO) | N(MAIL) | N(RCPT) | N(DATA) | N(BODY) | N(UNKN) | N(ABRT) | N(QUIT) |
                    N(Q_NC)},
    [S_Q_NC] = {"Q_NC", MKIT_C_QUIT_NC, NO_STEP, 0, 0, 7, false, false, S_HELO, N(CONN) | N(UNKN)},
    /* Whoever refuses DATA, this filter or another one, ends no transaction of the client: MTAs
     * then send further recipients, unknown commands, and DATA again. */
    [S_OVER] = {"OVER", 0, NO_STEP, 0, 0, 7, false, false, S_HELO, N(RCPT) | N(DATA) | N(UNKN)},
};

const struct verdict_row mkit_verdicts[MKIT_ALL_OPTS + 1] = {
    /*                 reply            known final final_always */
    [MKIT_CONTINUE] = {MKIT_R_CONTINUE, true, false, false},
    [MKIT_REJECT] = {MKIT_R_REJECT, true, true, false},
    [MKIT_DISCARD] = {MKIT_R_DISCARD, true, true, false},
    [MKIT_ACCEPT] = {MKIT_R_ACCEPT, true, true, true},
    [MKIT_TEMPFAIL] = {MKIT_R_TEMPFAIL, true, true, false},
    [MKIT_NOREPLY] = {0, true, false, false},
    [MKIT_SKIP] = {MKIT_R_SKIP, true, false, false},
};

enum state mkit_state_of(uint8_t command)
{
    for (unsigned state = S_OPTS; state < S_STATES; state++)
        if (mkit_states[state].command == command)
            return (enum state)state;
    return S_STATES;
}

bool mkit_may_follow(enum state from, enum state to, uint32_t protocol)
{
    /* A state whose command the MTA does not send stands for the one before it as well. So does the
     * one of headers, which a message may do without. */
    for (unsigned state = from;;) {
        if (mkit_states[state].next & 1U << to)
            return true;
        state++;
        if (state == S_STATES || (state != S_HDRS && !(mkit_states[state].omit & protocol)))
            return false;
    }
}
