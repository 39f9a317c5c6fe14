/* The scheduler of src/server as a model that is small enough to look at all its states: which
 * connection is where, what its flags say, and what each runner does. A move has the name of the
 * function that makes it. What only costs or saves time is left out: how many connections a batch
 * has and when the watcher looks is whatever may happen. */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stdint.h>

enum {
    CONNS = 3,
    RUNNERS = 2,
    ARENA_ROOM = 1, /* connections of a batch for which there is room to read */
    PIECES = 2,     /* of a packet */
    READ_MOST = 2   /* pieces in one read; after so many there may be more */
};

enum model_poller { BY_EPOLL, BY_POLL };

/* What is wrong with the model: faults that the server has had, or might get. */
enum model_fault {
    NO_FAULT,
    KEPT_CLEARED_EARLY, /* kept_input is cleared in write_batch, not in run_session */
    AGAIN_IGNORED,      /* give_back does not look at `again` */
    MORE_CLEARED,       /* a turn that has no room to read does not set `more` */
    KEPT_NOT_SET,       /* turn_unload does not set kept_input */
    BLOCKED_NOT_SET,    /* unload_done does not set `blocked` */
    BLOCKED_NOT_READ, /* read_batch does not set `more` for what it does not read for its output */
    FAULTS
};

struct model_setting {
    enum model_poller poller;
    enum model_fault fault;
    unsigned conns;   /* CONNS at most */
    unsigned packets; /* that the first connection's MTA sends; the others send one */
    bool slow;        /* the first MTA takes replies when it likes, not at once */
    bool hangs;       /* the first connection's callback never returns */
    bool aborts;      /* the server is aborted at some time */
};

enum model_status { IDLE, READY, RUNNING, REMOVED };

enum model_phase {
    ASLEEP,
    RISING,  /* woken */
    LOOP,    /* at the top of run's loop */
    LOOKING, /* in the poller, for a look */
    WAITING, /* in the poller, until something happens */
    FOUND,   /* back from it, without the lock yet */
    TOOK,    /* a batch, not read yet */
    CALLING,
    CALLED,
    WRITTEN
};

struct model_conn {
    unsigned sent;    /* pieces that the MTA has sent ... */
    unsigned unread;  /* ... of them, in the socket ... */
    unsigned held;    /* ... and in the session, not called yet */
    unsigned replies; /* in the session */
    unsigned room;    /* replies that the MTA takes now */
    unsigned status;  /* enum model_status */
    unsigned again, more, kept_input, blocked, waits_to_write, ending, over; /* as in server.h */
    unsigned event; /* the poller has something to report (epoll), or may report it (poll) */
    unsigned old;   /* `replies` are of an earlier turn; the model's own */
};

struct model_runner {
    unsigned phase; /* enum model_phase */
    unsigned batch[CONNS];
    unsigned count, next_item, calling, aside; /* as in server.h */
    unsigned inside;                           /* a callback */
    unsigned computes;                         /* 1: this call is known to compute; 2: one before */
    unsigned events;                           /* connections that were reported to it, as bits */
};

struct model_state {
    struct model_conn conns[CONNS];
    struct model_runner runners[RUNNERS];
    unsigned ready[CONNS];                              /* the ready queue */
    unsigned ready_count, round, polling, asked, state; /* as in server.h; asked, state: to abort */
    unsigned woken;                                     /* poller_wake was called */
    unsigned more_runners;                              /* target - 1 */
};

/* A state in few bytes. Runners that change places make no other state, nor do the
 * last two connections. */
struct model_key {
    uint64_t words[3];
};

/* The state before all others: nothing was sent, one runner is at work. */
void model_begin(const struct model_setting *setting, struct model_state *state);
struct model_key model_pack(const struct model_state *state);
void model_unpack(const struct model_key *key, struct model_state *state);

/* Whether there is something to read; or to write, if it waits for that. */
static inline bool model_ready(const struct model_conn *conn)
{
    return conn->waits_to_write ? conn->room > 0 : conn->unread > 0;
}

/* Whether the session has a whole packet. */
static inline bool model_has_packet(const struct model_conn *conn)
{
    return conn->held >= PIECES;
}

/* Tells `found` every state that may follow. */
typedef void model_found(void *arg, const struct model_state *state, const char *move);
void model_moves(const struct model_setting *setting, const struct model_state *state,
                 model_found *found, void *arg);

/* What is wrong in a state; NULL: nothing. `at_rest`: no other state follows it. */
const char *model_wrong(const struct model_setting *setting, const struct model_state *state,
                        bool at_rest);

#endif
