/* The inside of a session: one MTA connection as a state machine, and what its parts offer to
 * each other. Knows no socket, no thread, no clock. */
#ifndef MKIT_SESSION_SESSION_H
#define MKIT_SESSION_SESSION_H

#include <stdatomic.h>

#include "milterkit.h"
#include "wire/protocol.h"

/* States: the last command that was accepted (sheet 3.1). The numbers are libmilter's, because
 * "the next one" has a meaning in its rules and its log lines show them. */
enum state {
    S_INIT,
    S_OPTS,
    S_CONN,
    S_HELO,
    S_MAIL,
    S_RCPT,
    S_DATA,
    S_HDRS,
    S_EOHS,
    S_BODY,
    S_ENDM,
    S_QUIT,
    S_ABRT,
    S_UNKN,
    S_Q_NC,
    S_OVER, /* ours: DATA, where the filter's verdict has ended its message */
    S_STATES
};

#define NO_STEP MKIT_STEPS

/* One row of the state table: what leads to a state, what may follow, and what a reply does. */
struct state_row {
    const char *name;
    uint8_t command;     /* leads here */
    enum mkit_step step; /* the callback; NO_STEP if it has none */
    uint32_t omit;       /* NO* bit: the MTA does not send it */
    uint32_t no_reply;   /* NR_* bit: the MTA awaits no reply */
    uint8_t macros;      /* macro slots from this one on are emptied first */
    bool in_message;     /* abort is owed if the message ends here */
    bool one_only;       /* a refusal is for this command alone: the message goes on */
    enum state over;     /* where a verdict leads that ends the message */
    uint16_t next;       /* states that may follow, as bits */
};

/* What a verdict means on the wire and for the state. */
struct verdict_row {
    uint8_t reply;     /* 0: nothing is sent */
    bool known;        /* a verdict that steps of a message may return */
    bool final;        /* the message is over for the filter ... */
    bool final_always; /* ... at one_only steps too */
};

extern const struct state_row mkit_states[S_STATES];
extern const struct verdict_row mkit_verdicts[MKIT_ALL_OPTS + 1];

/* The state that a command leads to; S_STATES for one without (MACRO or none at all). */
enum state mkit_state_of(uint8_t command);

/* Whether `to` may follow `from` when the options `protocol` were negotiated. */
bool mkit_may_follow(enum state from, enum state to, uint32_t protocol);

enum { MACRO_SLOTS = 7, SLOT_EOH = 5, SLOT_EOM = 6 };

/* One macro packet's strings: name NUL value NUL ... */
struct macro_slot {
    char *strings;
    size_t len;
};

/* A growing run of bytes. */
struct bytes {
    uint8_t *at;
    size_t len;
    size_t size;
};

struct mkit_session {
    const struct mkit_filter *filter;
    void *private;
    struct mkit_limits limits;

    /* Input: `partial` holds the start of a packet, or more if input was kept, from `partial_from`
     * on; `in` is borrowed and follows it. */
    const uint8_t *in;
    size_t in_len;
    struct bytes partial;
    size_t partial_from;
    bool eof;

    /* Output: out.at[out_sent .. out.len] waits. `later` follows it at the end of the step. */
    struct bytes out;
    size_t out_sent;
    size_t out_step; /* where what the step under way has queued begins */
    struct bytes later;
    int (*flush)(struct mkit_session *, void *);
    void *flush_arg;
    bool (*gone)(const struct mkit_session *, void *);
    void *gone_arg;

    enum state state;
    enum state before_unknown; /* the state inside a message that UNKNOWN interrupted, or INIT */
    uint32_t version;
    uint32_t actions;
    uint32_t protocol; /* as asked for, emulated NR_* included */
    uint32_t emulated; /* NR_* bits that the MTA lacks */
    char *symlists[MKIT_STAGES];
    struct macro_slot macros[MACRO_SLOTS];
    char *reply; /* of setreply; NULL: none */

    struct mkit_packet packet; /* being served */
    bool packet_split;         /* it lies in `partial` */
    uint8_t todo[4];           /* steps still to come for it, in order */
    uint8_t todo_len;
    enum mkit_step asked; /* waits for an answer; NO_STEP: none does */
    struct mkit_options options;
    int held;         /* verdict that could not be sent at a no-reply step; -1: none */
    bool held_always; /* it was given before any message: for all of them */
    bool close_owed;
    bool ending;         /* nothing but todo is left */
    bool replacing;      /* a replacement body has begun in this step */
    uint16_t told_order; /* commands, as bits of their states, that were logged as out of order */
    size_t recipients;
    size_t header_bytes;

    atomic_int calls; /* whether a callback is inside a call on it; see part.c */
    int error;        /* 0, or why the session is dead */
    char why[200];
};

/* session.c */

/* Notes why a call failed, and returns the error. */
int mkit_fail(struct mkit_session *session, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Ends the session by an error whose text has been noted, and returns it. */
int mkit_end_with(struct mkit_session *session, int error);
void mkit_log(const struct mkit_session *session, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool mkit_in_message(const struct mkit_session *session);

/* buffer.c */

/* Makes room for more bytes behind those that are there. False without memory. */
bool mkit_reserve(struct bytes *bytes, size_t more);
bool mkit_append(struct bytes *bytes, const uint8_t *data, size_t len);
void mkit_forget(struct bytes *bytes);
/* Frees what holds nothing, unless it is small: it will be needed at the next turn. */
void mkit_trim(struct bytes *bytes);

/* input.c */

/* Finds the next packet, into session->packet. Returns 1, 0 if more bytes are needed, or an error.
 */
int mkit_next_packet(struct mkit_session *session);

/* event.c */

/* Makes an event of the packet being served. */
int mkit_packet_event(struct mkit_session *session, enum mkit_step step, struct mkit_event *event);

/* output.c */

/* Queues a packet in one of the session's buffers. */
int mkit_send(struct mkit_session *session, struct bytes *to, uint8_t command,
              const struct mkit_field *fields, size_t count);
/* How many bytes wait for the MTA. */
size_t mkit_output_waits(const struct mkit_session *session);
/* Writes now if more than `bound` bytes wait. An error ends the session. */
int mkit_flush_over(struct mkit_session *session, size_t bound);

/* part.c */

/* Brackets what a callback calls on its session. False if the session goes on without it: the call
 * fails by MKIT_ECLOSED. */
bool mkit_enter_call(struct mkit_session *session);
/* Returns `result`. */
int mkit_leave_call(struct mkit_session *session, int result);
bool mkit_is_parted(const struct mkit_session *session);
/* A call of a callback, within these. */
#define CALLED(session, call)                                                                      \
    (mkit_enter_call(session) ? mkit_leave_call((session), (call)) : MKIT_ECLOSED)

/* negotiate.c */
int mkit_negotiate_begin(struct mkit_session *session, const struct mkit_field *fields);
int mkit_negotiate_end(struct mkit_session *session, int verdict);

/* macros.c */
int mkit_macros_store(struct mkit_session *session, const struct mkit_field *fields);
void mkit_macros_clear(struct mkit_session *session, unsigned from);

/* reply.c */
void mkit_reply_clear(struct mkit_session *session);
/* Sends the one reply of a step. */
int mkit_reply_send(struct mkit_session *session, int verdict);

static inline struct mkit_field mkit_number(uint32_t number)
{
    return (struct mkit_field){.number = number};
}

static inline struct mkit_field mkit_bytes(const void *at, size_t len)
{
    return (struct mkit_field){.text = {at, len}};
}

#endif
