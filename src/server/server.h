/* The inside of a server: its connections, its runners, and who may touch what.
 *
 * One mutex, `lock`, guards everything below that has no note of its own. A connection's session
 * belongs to the runner that serves it while `status` is RUNNING, else to whoever holds the lock.
 * No lock is held during a callback, a read or a write; but see output.c for progress. */
#ifndef MKIT_SERVER_SERVER_H
#define MKIT_SERVER_SERVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "milterkit.h"
#include "server/habit.h"
#include "server/poller.h"

enum {
    TICK_MS = 2,      /* a call that is seen at two ticks runs long: others are held up for twice
                         this, once */
    QUIET_TICKS = 50, /* after so many without work the watcher sleeps */
    MAX_BATCH = 64,
    PORTION = 72 * 1024, /* what every connection of a batch may read: a packet as MTAs send them */
    ARENA = 8 * PORTION  /* bytes that a runner reads in one batch, at most */
};

enum conn_status { CONN_IDLE, CONN_READY, CONN_RUNNING };
enum conn_ending { END_NOT, END_SILENT, END_STOP, END_BROKEN };

/* clang-format off */
/* One connection.
 *
 * Its flags: who sets them, who clears them, and what holds in between. "The runner" is the one that
 * serves it, which alone touches them while `status` is RUNNING; "the lock" is the server's.
 *
 * flag           set by                          cleared by              while it is set
 * -------------- ------------------------------- ----------------------- -------------------------
 * status READY   server_make_ready, if IDLE      turn_take               it is in the ready queue,
 *                                                                        once
 * status RUNNING turn_take                       give_back, turn_unload  it is in one batch
 * again          server_make_ready, if not IDLE  turn_take, which comes  it becomes READY when it is
 *                (the lock)                      before a read           given back
 * hangup         take_events (the lock)          never                   reads go on until the end
 * gone           look_if_gone (anybody)          never                   mkit_mta_gone says so
 * read_to_end    turn_take for hangup,           never                   `more` is set after each
 *                output_write for a broken peer                          read
 * more           a read that was full; a turn    turn_take, which comes  it becomes READY when it is
 *                that did not read, for want of  before a read           given back
 *                room or because output waited
 * kept_input     turn_unload                     run_session, where the  the session may have a whole
 *                                                session is asked, and   packet: its next turn calls,
 *                                                nowhere else            whatever is read
 * full           run_session, if the session     run_session             the same; nothing is read,
 *                wants its output written first                          it becomes READY when it is
 *                                                                        given back
 * expired        deadline_look (the lock)        deadline_answer         the same; its next turn
 *                                                                        answers that step first
 * blocked        output_write, if the MTA takes  output_write            it is not read or called; the
 *                no more; unload_done, so that                           poller waits for room, or it
 *                the next runner writes first                            is READY
 * waits_to_write give_back, if blocked (lock)    give_back, if not       the poller watches for room,
 *                                                                        not for bytes
 * ending         end_idle, give_back (lock),     read_batch, if it       its next turn ends the
 *                output_write                    spoke                   session
 * over           run_session                     never                   give_back removes it
 *
 * So a connection with a whole packet is READY, in a batch, or in a callback; one that is IDLE has
 * been asked for its last whole packet, and the poller reports what comes. test_scheduler.c holds
 * the server against this, test_model.c a model of it. */
/* clang-format on */
struct conn {
    int fd;
    uint32_t generation; /* tells it from another one that had its descriptor */
    struct mkit_server *server;
    struct mkit_session *session;
    struct conn *next_ready;
    int64_t last_active; /* milliseconds; when bytes last moved */
    uint8_t status;
    bool again;       /* something was reported while it was READY or RUNNING */
    bool hangup;      /* the peer was reported to have closed */
    atomic_bool gone; /* the same, seen during a callback */
    /* From here on: of the runner that serves it. */
    struct runner *runner; /* the last one that did */
    uint8_t owed;          /* bytes of a progress packet that are still to be written */
    bool read_to_end;      /* the peer closed: read until the end */
    bool more;             /* there is more to read at the next turn */
    bool kept_input;       /* the session has bytes that it was not asked about */
    bool full;             /* the same, because too much output waits */
    bool blocked;          /* output waits for the MTA */
    bool waits_to_write;   /* the poller watches for room, not for bytes */
    uint8_t ending;        /* why it is to be ended at its next turn */
    uint8_t expired;       /* the step to be answered without its callback; NOT_EXPIRED */
    bool over;             /* the session has ended */
};

enum { NOT_EXPIRED = 255 };

/* A socket that accepts. */
struct listener {
    int fd;
    bool watched;       /* in the poller */
    int inherited;      /* the descriptor that it is a copy of; -1: it was opened here ... */
    pid_t opener;       /* ... by this process; else 0 */
    bool unlink_at_end; /* the path is ours ... */
    dev_t dev;          /* ... as long as it is still this file */
    ino_t ino;
    struct sockaddr_un path;
    struct listener *next;
};

/* What the watcher knows of the call that a runner is in. Milliseconds. */
struct long_call {
    unsigned call; /* the runner's `call` */
    int64_t began; /* it was first seen */
    int64_t since; /* the same, or progress last sent for it */
    int64_t at;    /* its MTA was last looked at */
};

/* What happens at a limit, or because one is reached; each is told at most once a second. */
enum notice_kind {
    NOTICE_FULL,
    NOTICE_ACCEPT,
    NOTICE_MEMORY,
    NOTICE_THREAD,
    NOTICE_DRAIN,
    NOTICES
};

struct notice {
    char text[128];
    unsigned times; /* since the last line */
    bool due;       /* a runner is to log it */
    int64_t after;  /* milliseconds; no further line before; 0: there was none */
};

/* clang-format off */
/* A worker thread.
 *
 * Its flags, as above:
 *
 * flag          set by                               cleared by            while it is set
 * ------------- ------------------------------------ --------------------- -----------------------
 * active        runner_start, wake (the lock)        wait_for_work, its    it is not in the list of
 *                                                    end                   those asleep; it counts in
 *                                                                          server->active
 * aside         step_aside, before a call that       come_back, after the  it counts in server->aside:
 *               waits; find_long, for one that       call                  somebody else may work in
 *               does; deadline_look (the lock)                             its place. Its batch is the
 *                                                                          connection that it calls
 * stepped       step_aside (the lock)                turn_take             batches stay small
 * long_computes find_long (the lock)                 the same, when the    one more than `share` may
 *                                                    call is over          work
 * parted        deadline_look (both locks), while    deadline_late, when   its batch is empty: the
 *               it is in a callback                  the callback returns  connection goes on with
 *                                                                          another session
 * left          left_behind (both locks), while it   never                 the server knows it no
 *               is in a call                                               more: it ends its connection
 *                                                                          and itself
 * told          left_tell (the lock)                 never                 its session is not looked
 *                                                                          at any more
 * ended         its end (the lock)                   never                 it is to be joined
 * calling       next_item (its own lock)             next_item             the item before next_item
 *                                                                          is in its callbacks, those
 *                                                                          before it are done
 * slow          call_batch                           call_batch            its next batch is measured
 */
/* clang-format on */
struct runner {
    struct mkit_server *server;
    pthread_t thread;
    pid_t tid;
    clockid_t clock; /* its thread's */
    struct runner *next;
    struct runner *next_asleep;
    pthread_cond_t wake;   /* it became active */
    bool ended;            /* to be joined */
    bool active;           /* not waiting for work */
    atomic_bool aside;     /* in a call that waits */
    bool long_computes;    /* in a call that runs long and computes */
    atomic_bool left;      /* its call never returned in time: the server goes on without it */
    unsigned batches;      /* that it has taken */
    unsigned seen_batches; /* `batches` at the last tick */
    unsigned seen_call;    /* `call` at the last tick */
    int64_t
        seen_computed; /* nanoseconds; what the thread had computed when its call was first seen */
    atomic_uint call;  /* odd inside what may block, counts up with each callback */
    atomic_int step;   /* of the call; NO_CALLBACK: only the program's log can block in it */
    struct long_call look; /* the watcher's */
    pthread_mutex_t lock;  /* guards the batch: the watcher may take from a runner that waits */
    struct conn *batch[MAX_BATCH];
    unsigned count;
    unsigned next_item;
    unsigned unread; /* the first of the batch for which the arena had no room; 0: there is none */
    bool calling;    /* the one before next_item is in its callbacks, those before it are done */
    bool between;    /* under the lock: the output stands where progress may be sent (output.c) */
    int64_t written; /* under the lock: milliseconds; when the call last wrote; 0: not yet */
    uint8_t *arena;
    bool slow;    /* its last batch took so long that something in it may have waited */
    bool stepped; /* a call of this batch stepped aside */
    struct mkit_session *parted; /* of the call, whose connection goes on without it */
    struct runner *next_left;
    int64_t left_after; /* milliseconds in its call */
    int left_step;      /* the call's */
    bool told;          /* that it was left behind, or there is nothing to tell */
    unsigned messages;  /* of the batch, for the statistics */
    unsigned failures;
};

enum { NO_CALLBACK = -1 };

enum server_state {
    SERVER_STOPPED,
    SERVER_RUNNING,
    SERVER_RETIRING, /* nothing is accepted, connections stay until their MTAs end them */
    SERVER_DRAINING, /* those outside a message are ended */
    SERVER_ABORTING, /* all are */
    SERVER_LEAVING   /* what still does not return is left behind */
};

struct mkit_server {
    const struct mkit_filter *filter;
    struct mkit_server_options options;
    pthread_mutex_t lock;
    struct poller *poller;
    struct listener *listeners;

    struct conn **conns; /* by descriptor */
    int conns_size;
    uint32_t generation;
    struct conn *ready_first;
    struct conn *ready_last;
    unsigned ready_count;
    unsigned round; /* of them, to be taken before the poller is asked again */

    struct runner *runners;
    struct runner *untold; /* left behind, and not logged yet */
    struct runner *asleep; /* those that wait for work, the last one to come first */
    unsigned threads;      /* runners that have not ended */
    unsigned active;       /* of them, not waiting for work */
    unsigned rising;       /* of these, woken or started but not at work yet */
    unsigned aside;        /* of these, in a call that waits */
    unsigned telling;      /* of these, in the program's log: max_threads does not count them */
    unsigned share;        /* how many may work because callbacks compute long together */
    unsigned target; /* how many may work: `share`, one more beside a call that computes long */
    unsigned batch_limit; /* how many connections a batch may have: no more than ran lately without
                             one that waited */
    unsigned most_aside;  /* how many may step aside: no more than keep what is shared busy */
    bool polling;         /* one of them waits in the poller */
    bool finishing;       /* no connection is left: runners end */

    struct habit habits[MKIT_STEPS];
    atomic_int curious;     /* calls that are still to be measured one by one */
    _Atomic int64_t worked; /* nanoseconds that measured calls have computed */
    int64_t seen_worked;    /* `worked` at the last tick */
    int64_t ticked;         /* nanoseconds; the last tick */

    enum server_state state;
    int64_t deadline;     /* of the state; the next one follows then */
    int64_t accept_after; /* accepting pauses until then; 0: it does not */
    int64_t look_at;      /* the watcher looks after calls that run long */
    int64_t thread_after; /* no thread is started before */
    struct notice notices[NOTICES];
    unsigned notices_due;

    atomic_bool watching; /* the watcher ticks */
    atomic_uint turns;    /* counts work, so that the watcher sees whether there is any */
    atomic_int asked;     /* 0 or a state after RUNNING: set by retire, stop, abort, hurry */
    atomic_uint retire;   /* seconds that retiring may take */
    int wake[2];          /* a pipe that wakes the watcher */
    int poke[2];          /* the same, for signal handlers */

    struct mkit_server_stats stats;
};

/* What the poller knows a connection by. */
static inline uint64_t conn_id(const struct conn *conn)
{
    return (uint64_t)conn->generation << 32 | (uint32_t)conn->fd;
}

/* server.c */
int64_t server_now(void);
/* Sets what mkit_server_why tells this thread; returns `error`. */
int server_fail(const struct mkit_server *server, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void server_log(const struct mkit_server *server, const struct mkit_session *session, int level,
                const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Names this thread for those who look at the process, 15 bytes at most. */
void server_name_thread(const char *name);
void server_wake_watcher(struct mkit_server *server);
/* Asks for a later state. From any thread. */
void server_ask(struct mkit_server *server, enum server_state wish);
/* With the lock held. */
void server_make_ready(struct mkit_server *server, struct conn *conn);
/* Makes a connection of a descriptor, which it then owns. With the lock held. */
int server_add_conn(struct mkit_server *server, int fd);
/* Forgets a connection. With the lock held; close it afterwards, without the lock. */
void server_remove_conn(struct mkit_server *server, struct conn *conn);
void server_close_conn(struct conn *conn);

/* watcher.c */

/* Watches a server that runs until no connection is left after a stop. `poke` as mkit_server_run's;
 * NULL if another thread sees to it. */
void watcher_run(struct mkit_server *server);

/* deadline.c */

/* Lets the connection of a call that has passed its deadline go on without it. Returns when to look
 * again. With the server's lock held. */
int64_t deadline_look(struct runner *runner, int64_t now);
/* Answers the step of such a call. In a batch. */
void deadline_answer(const struct mkit_server *server, struct conn *conn);
/* The call has returned. In a batch. */
void deadline_late(struct runner *runner, const char *step);

/* left.c: with the lock held */
/* Leaves behind every runner that is still in a call, after all has been ended. */
void left_behind(struct mkit_server *server, int64_t now);
/* Logs one that was left behind and not told yet, without the lock meanwhile. Returns whether there
 * was one. */
bool left_tell(struct runner *by);
/* The end of a runner that was left behind and has come back. Without the lock. */
void left_end(struct runner *runner);

/* output.c */

/* Writes what waits as far as the MTA takes it. `now` is noted if it took anything. */
void output_write(struct conn *conn, int64_t now);
/* Brackets the callback of an end of message: in between the watcher may send progress. */
void output_begin_call(struct runner *runner, const struct conn *conn);
void output_end_call(struct runner *runner);
/* A session's hooks; the argument is its connection. */
int output_flush(struct mkit_session *session, void *arg);
bool output_gone(const struct mkit_session *session, void *arg);
/* Looks after the calls that run long: whether their MTAs are there still, and need a sign of life.
 * Returns when to look again. With the server's lock held. */
int64_t output_look(struct mkit_server *server, int64_t now);

/* limits.c: with the lock held */
/* Leaves a line for a runner to log, now or with others of its kind when a second has passed. The
 * watcher never logs: the program's signal handlers may run in its thread, and what they raise
 * would be lost in the log's functions. */
void limits_tell(struct mkit_server *server, enum notice_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Makes the lines due whose second has passed, or all. */
void limits_check(struct mkit_server *server, int64_t now, bool all);
/* When limits_check has something to do next; INT64_MAX: nothing is left. */
int64_t limits_next(const struct mkit_server *server);
/* Takes a line that is due. Returns whether there was one. */
bool limits_take_line(struct mkit_server *server, char *line, size_t size);
/* Whether one more connection would be too many. */
bool limits_full(const struct mkit_server *server);
/* When to try again what the system has refused. */
int64_t limits_retry_at(void);

/* listener.c */
/* Accepts what waits, as far as it is fair to others. Returns whether there may be more. */
bool listener_accept(struct mkit_server *server, struct listener *listener);
int listeners_watch(struct mkit_server *server);
/* Accepts nothing for a moment. */
void listeners_pause(struct mkit_server *server);
/* Stops listening without losing who has connected already: removes the paths, takes what waits,
 * then closes. */
void listeners_retire(struct mkit_server *server);
/* Closes all. Removes their paths: if the server `served`, else only where nobody answers, a child
 * of this process for example that has taken over. */
void listeners_close(struct mkit_server *server, bool served);

/* runner.c: with the lock held */
int runner_start(struct mkit_server *server);
/* Wakes or starts runners while there is work and fewer work than may. */
void runners_for_work(struct mkit_server *server);
/* Wakes all, because the server is finishing. */
void runners_wake(struct mkit_server *server);
void runners_join(struct mkit_server *server, bool all);
void runner_free(struct runner *runner);

#endif
