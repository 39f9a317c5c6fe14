/* One turn of a batch of connections: taken, read, called, written, given back. Ready connections
 * are taken in batches, so that what brackets callbacks (Python's lock) is paid once for many.
 *
 * A callback that waits needs nobody's processor and nobody's lock: before it begins, its runner
 * steps aside, which leaves the rest of the batch and the waiting for events to another one. Which
 * calls wait is learned (habit.h) by the step, in three looks, each only where the one before saw
 * something: how long a batch took; whether its thread slept in it; which of its calls slept. What
 * nothing was learned of is found by the watcher (watcher.c). */
#include <errno.h>
#include <string.h>

#include "server/server.h"
#include "server/turn.h"

enum {
    SLOW_NS = 100000,   /* a batch that takes so long may have waited: the next one is measured */
    SUSPECT_NS = 60000, /* one that slept so long has: its calls are measured one by one */
    CURIOUS = 64        /* so many calls; each costs two system calls more */
};

void turn_enter_call(struct runner *runner)
{
    const unsigned call = atomic_load_explicit(&runner->call, memory_order_relaxed);
    atomic_store_explicit(&runner->call, call + 1, memory_order_relaxed);
}

void turn_leave_call(struct runner *runner)
{
    turn_enter_call(runner); /* it counts at both ends */
}

/* -------------------------------------------------------------------------------------- aside */

/* Gives back the connections of the batch that are before the one in a callback: their output must
 * not wait for it. Whoever serves them next writes it first. */
static void unload_done(struct runner *runner)
{
    const unsigned done = runner->calling ? runner->next_item - 1 : 0;
    if (done == 0) /* nothing is touched: the runner may be past its callbacks */
        return;
    for (unsigned i = 0; i < done; i++) {
        struct conn *conn = runner->batch[i];
        conn->blocked = true;
        conn->status = CONN_IDLE;
        server_make_ready(runner->server, conn);
    }
    runner->count -= done;
    runner->next_item -= done;
    runner->unread -= runner->unread < done ? runner->unread : done;
    memmove(runner->batch, runner->batch + done, runner->count * sizeof *runner->batch);
}

void turn_unload(struct runner *runner)
{
    pthread_mutex_lock(&runner->lock);
    unload_done(runner);
    while (runner->count > runner->next_item) {
        struct conn *conn = runner->batch[runner->count - 1];
        if (mkit_session_keep_input(conn->session) < 0)
            break; /* no memory: it waits for its runner */
        runner->count--;
        conn->kept_input = true;
        conn->status = CONN_IDLE;
        server_make_ready(runner->server, conn);
    }
    pthread_mutex_unlock(&runner->lock);
}

void turn_set_aside(struct runner *runner)
{
    atomic_store_explicit(&runner->aside, true, memory_order_relaxed);
    runner->server->aside++;
    turn_unload(runner);
}

/* Before a call that will wait: lets another runner work. */
static void step_aside(struct runner *runner)
{
    struct mkit_server *server = runner->server;
    pthread_mutex_lock(&server->lock);
    if (server->aside < server->most_aside && !atomic_load(&runner->aside)) {
        server->batch_limit = runner->next_item > 1 ? runner->next_item - 1 : 1;
        runner->stepped = true;
        turn_set_aside(runner);
        runners_for_work(server);
    }
    pthread_mutex_unlock(&server->lock);
}

void turn_come_back(struct runner *runner)
{
    if (!atomic_load_explicit(&runner->aside, memory_order_relaxed))
        return;
    atomic_store_explicit(&runner->aside, false, memory_order_relaxed);
    runner->server->aside--;
}

/* After a call. */
static void come_back(struct runner *runner)
{
    if (!atomic_load_explicit(&runner->aside, memory_order_relaxed))
        return;
    pthread_mutex_lock(&runner->server->lock);
    if (!atomic_load(&runner->left)) /* else it counts no more */
        turn_come_back(runner);
    pthread_mutex_unlock(&runner->server->lock);
}

/* -------------------------------------------------------------------------------- one session */

/* Reads what has arrived: the rest of a packet to where its start is, what follows into the arena.
 * Returns how many bytes of the arena are used, and says in `any` if there is something to call:
 * Postfix writes a body chunk in 16 pieces, none but the last is worth the interpreter's lock. */
static size_t read_input(struct conn *conn, uint8_t *arena, size_t size, int64_t now, bool *any)
{
    struct mkit_session *session = conn->session;
    uint8_t *rest;
    const size_t missing = mkit_session_room(session, &rest);
    struct iovec parts[] = {{rest, missing}, {arena, size}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t got;
    do
        got = recvmsg(conn->fd, &message, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    *any = *any || conn->kept_input;
    if (got > 0) {
        const size_t len = (size_t)got;
        const size_t filled = len < missing ? len : missing;
        conn->last_active = now;
        /* A short read has emptied the socket; a full one, or a peer that closed, has more. */
        conn->more = len == missing + size || conn->read_to_end;
        mkit_session_filled(session, filled);
        (void)mkit_session_feed(session, arena, len - filled);
        *any = mkit_session_room(session, &rest) == 0 || *any;
        return len - filled;
    }
    if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
        *any = true; /* the end is input too */
        mkit_session_eof(session);
    }
    return 0;
}

/* Calls the filter for a step, and measures the call where something may be learned from it. */
static int call_step(struct runner *runner, struct conn *conn, const struct mkit_event *event)
{
    struct mkit_server *server = runner->server;
    struct habit *habit = &server->habits[event->step];
    mkit_callback *callback = server->filter->on[event->step];
    const bool waits = habit_waits(habit);
    atomic_store_explicit(&runner->step, (int)event->step, memory_order_relaxed);
    if (!waits && atomic_load_explicit(&server->curious, memory_order_relaxed) <= 0)
        return callback(conn->session, event);
    if (waits)
        step_aside(runner);
    else
        atomic_fetch_sub_explicit(&server->curious, 1, memory_order_relaxed);
    const struct clocks from = habit_clocks();
    const int verdict = callback(conn->session, event);
    if (atomic_load(&runner->left))
        return verdict;
    const struct clocks to = habit_clocks();
    habit_learn(habit, habit_slept(&from, &to), to.cpu - from.cpu);
    atomic_fetch_add_explicit(&server->worked, to.cpu - from.cpu, memory_order_relaxed);
    return verdict;
}

/* Runs the session's callbacks until it needs more bytes, or is over. */
static void run_session(struct runner *runner, struct conn *conn)
{
    struct mkit_event event;
    int result;
    conn->kept_input =
        false; /* here and nowhere else: a turn that does not come here asks nothing */
    turn_enter_call(runner);
    while ((result = mkit_session_next(conn->session, &event)) == MKIT_EVENT) {
        if (event.step == MKIT_EOM)
            output_begin_call(runner, conn);
        const int verdict = call_step(runner, conn, &event);
        if (event.step == MKIT_EOM)
            output_end_call(runner);
        atomic_store_explicit(&runner->step, NO_CALLBACK, memory_order_relaxed);
        if (atomic_load(&runner->left)) /* abort and close follow, for the filter's own sake */
            mkit_session_end(conn->session);
        (void)mkit_session_answer(conn->session, verdict);
        if (event.step == MKIT_EOM)
            runner->messages++;
        turn_leave_call(runner);
        come_back(runner);
        turn_enter_call(runner);
    }
    turn_leave_call(runner); /* after the session, which may have a line for the log */
    come_back(runner);
    conn->full = result == MKIT_NEED_OUTPUT;
    if (conn->full && mkit_session_keep_input(conn->session) < 0)
        conn->ending = END_BROKEN; /* no memory */
    conn->over = result != MKIT_NEED_INPUT && !conn->full;
    runner->failures += result < 0;
}

/* -------------------------------------------------------------------------------------- batch */

void turn_take(struct runner *runner)
{
    struct mkit_server *server = runner->server;
    const unsigned share = server->ready_count / server->target;
    unsigned limit = server->batch_limit;
    if (share >= 1 && share < limit)
        limit = share;
    runner->batches++;
    runner->count = 0;
    runner->unread = 0;
    runner->stepped = false;
    do {
        struct conn *conn = server->ready_first;
        server->ready_first = conn->next_ready;
        if (!server->ready_first)
            server->ready_last = NULL;
        server->ready_count--;
        server->round -= server->round > 0;
        conn->status = CONN_RUNNING;
        conn->runner = runner;
        conn->again = false;
        conn->more = false;
        conn->read_to_end = conn->read_to_end || conn->hangup;
        runner->batch[runner->count++] = conn;
    } while (server->ready_first && runner->count < limit);
    runner->next_item = runner->count; /* nothing may be taken from it before its callbacks begin */
}

static struct conn *next_item(struct runner *runner)
{
    pthread_mutex_lock(&runner->lock);
    runner->calling = runner->next_item < runner->count && !atomic_load(&runner->left);
    struct conn *conn = runner->calling ? runner->batch[runner->next_item++] : NULL;
    pthread_mutex_unlock(&runner->lock);
    return conn;
}

/* Whether bytes have arrived that were not read yet. */
static bool has_input(const struct conn *conn)
{
    char byte;
    return recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* Ends a connection for its silence, unless it spoke after all: where the process or the machine
 * stood still, the time passed before anybody could look. */
static void end_silent(struct runner *runner, struct conn *conn, bool spoke)
{
    const struct mkit_server *server = runner->server;
    if (spoke) {
        conn->ending = END_NOT;
        return;
    }
    turn_enter_call(runner);
    server_log(server, conn->session, MKIT_LOG_WARNING, "the MTA was silent for %u s: closed",
               server->options.timeout);
    turn_leave_call(runner);
}

/* Reads for the whole batch, an equal share of the arena for each. What it has no room for is read
 * at the next turn. Returns whether there is anything to call. */
static bool read_batch(struct runner *runner, int64_t now)
{
    struct mkit_server *server = runner->server;
    const bool aborting = atomic_load(&server->asked) >= SERVER_ABORTING;
    const size_t share = ARENA / runner->count;
    const size_t most = share > PORTION ? share : PORTION;
    size_t used = 0;
    bool any = false;
    for (unsigned i = 0; i < runner->count; i++) {
        struct conn *conn = runner->batch[i];
        const bool was_blocked = conn->blocked;
        if (was_blocked)
            output_write(conn, now);
        if (conn->ending == END_SILENT)
            end_silent(runner, conn, was_blocked ? conn->last_active == now : has_input(conn));
        if (conn->ending || aborting) {
            conn->blocked = false;
            mkit_session_end(conn->session);
            any = true;
        } else if (conn->blocked || conn->over) {
            continue;
        } else if (conn->full) {
            any = true; /* what it has comes before what could be read */
        } else if (ARENA - used < PORTION) {
            conn->more = true;
            if (!runner->unread)
                runner->unread = i;
        } else {
            const size_t room = ARENA - used < most ? ARENA - used : most;
            const size_t got = read_input(conn, runner->arena + used, room, now, &any);
            used += (got + 63) & ~(size_t)63;
        }
    }
    return any;
}

static void call_items(struct runner *runner)
{
    struct conn *conn;
    pthread_mutex_lock(&runner->lock);
    runner->next_item = 0;
    pthread_mutex_unlock(&runner->lock);
    while ((conn = next_item(runner)))
        if (!conn->blocked && !conn->over)
            run_session(runner, conn);
}

/* Calls, and looks whether something in it may have waited. Without the clocks of a thread where
 * the last batch was quick: a quick one has not waited. */
static void call_batch(struct runner *runner)
{
    const struct mkit_filter *filter = runner->server->filter;
    if (filter->enter_batch)
        filter->enter_batch(filter->data);
    struct clocks from = {.wall = habit_wall()};
    if (runner->slow)
        from = habit_clocks();
    call_items(runner);
    if (runner->slow && !atomic_load(&runner->left)) {
        const struct clocks to = habit_clocks();
        if (habit_slept(&from, &to) > SUSPECT_NS)
            atomic_store_explicit(&runner->server->curious, CURIOUS, memory_order_relaxed);
    }
    runner->slow = habit_wall() - from.wall > SLOW_NS;
    if (filter->leave_batch)
        filter->leave_batch(filter->data);
}

static void write_batch(struct runner *runner, int64_t now)
{
    for (unsigned i = 0; i < runner->count; i++) {
        struct conn *conn = runner->batch[i];
        output_write(conn, now);
        if (!conn->blocked) /* the time that callbacks took is not the MTA's silence */
            conn->last_active = now;
        mkit_session_trim(conn->session);
    }
}

/* Gives a connection back after its turn. With the lock held; true if it is to be closed. */
static bool give_back(struct mkit_server *server, struct conn *conn)
{
    if (conn->over) {
        server_remove_conn(server, conn);
        return true;
    }
    const uint64_t id = conn_id(conn);
    conn->status = CONN_IDLE;
    if (server->state >= SERVER_ABORTING || (server->state == SERVER_DRAINING && !conn->blocked &&
                                             !mkit_session_in_message(conn->session)))
        conn->ending = END_STOP;
    if (conn->blocked && !conn->ending) {
        (void)poller_change(server->poller, conn->fd, id, POLL_WRITE);
        conn->waits_to_write = true;
        return false;
    }
    if (conn->waits_to_write) {
        conn->waits_to_write = false;
        (void)poller_change(server->poller, conn->fd, id, POLL_READ);
    }
    if (conn->again || conn->more || conn->full || conn->ending)
        server_make_ready(server, conn);
    else
        poller_rearm(server->poller, conn->fd, id);
    return false;
}

/* Gives the batch back. With the lock held. Returns how many are to be closed, in `ended`. */
static unsigned give_batch_back(struct runner *runner, struct conn *ended[MAX_BATCH])
{
    struct mkit_server *server = runner->server;
    unsigned count = 0;
    for (unsigned i = 0; i < runner->count; i++) { /* what was not read comes first next time */
        struct conn *conn = runner->batch[(runner->unread + i) % runner->count];
        if (give_back(server, conn))
            ended[count++] = conn;
    }
    if (runner->count >= server->batch_limit && !runner->stepped)
        server->batch_limit =
            server->batch_limit < MAX_BATCH / 2 ? server->batch_limit * 2 : MAX_BATCH;
    server->stats.messages += runner->messages;
    server->stats.failures += runner->failures;
    runner->messages = runner->failures = 0;
    runner->count = 0;
    return count;
}

bool turn_serve(struct runner *runner)
{
    struct mkit_server *server = runner->server;
    atomic_fetch_add_explicit(&server->turns, 1, memory_order_relaxed);
    if (read_batch(runner, server_now()))
        call_batch(runner);
    if (atomic_load(&runner->left))
        return false;
    write_batch(runner, server_now());
    struct conn *ended[MAX_BATCH];
    pthread_mutex_lock(&server->lock);
    const unsigned ended_count = give_batch_back(runner, ended);
    const bool finished = server->state > SERVER_RUNNING && server->stats.open == 0;
    pthread_mutex_unlock(&server->lock);
    for (unsigned i = 0; i < ended_count; i++)
        server_close_conn(ended[i]);
    if (finished)
        server_wake_watcher(server);
    return true;
}

bool turn_tell(struct runner *runner, const char *line)
{
    turn_enter_call(runner);
    server_log(runner->server, NULL, MKIT_LOG_WARNING, "%s", line);
    turn_leave_call(runner);
    return !atomic_load(&runner->left);
}
