/* Worker threads. Each one waits, reads, runs callbacks and writes; one of them at a time waits
 * for all connections. Ready connections are taken in batches, so that what brackets callbacks
 * (Python's lock) is paid once for many. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "server/server.h"

/* Brackets what may block without end, the program's own functions for example: the watcher then
 * sees to it that others are served meanwhile. */
static void begin_call(struct runner *runner)
{
    const unsigned call = atomic_load_explicit(&runner->call, memory_order_relaxed);
    atomic_store_explicit(&runner->call, call + 1, memory_order_relaxed);
}

static void end_call(struct runner *runner)
{
    begin_call(runner); /* it counts at both ends */
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
        conn->more = len == missing + size || conn->drain;
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

/* Runs the session's callbacks until it needs more bytes, or is over. */
static void run_session(struct runner *runner, struct conn *conn)
{
    const struct mkit_filter *filter = runner->server->filter;
    struct mkit_event event;
    int result;
    begin_call(runner);
    while ((result = mkit_session_next(conn->session, &event)) == MKIT_EVENT) {
        if (event.step == MKIT_EOM)
            output_begin_call(runner, conn);
        int verdict = filter->on[event.step](conn->session, &event);
        if (event.step == MKIT_EOM)
            output_end_call(runner);
        (void)mkit_session_answer(conn->session, verdict);
        if (event.step == MKIT_EOM)
            runner->messages++;
        end_call(runner);
        begin_call(runner);
    }
    end_call(runner); /* after the session, which may have a line for the log */
    conn->full = result == MKIT_NEED_OUTPUT;
    if (conn->full && mkit_session_keep_input(conn->session) < 0)
        conn->ending = END_BROKEN; /* no memory */
    conn->over = result != MKIT_NEED_INPUT && !conn->full;
    runner->failures += result < 0;
}

/* -------------------------------------------------------------------------------------- batch */

/* Takes ready connections, of which there is one at least. With the server's lock held. */
static void take_batch(struct runner *runner)
{
    struct mkit_server *server = runner->server;
    unsigned share = server->ready_count / server->target;
    unsigned limit = server->target > server->options.runners ? 1 : MAX_BATCH;
    if (share >= 1 && share < limit)
        limit = share;
    runner->batches++;
    runner->count = 0;
    runner->unread = 0;
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
        conn->drain = conn->drain || conn->hangup;
        runner->batch[runner->count++] = conn;
    } while (server->ready_first && runner->count < limit);
    runner->next_item = runner->count; /* nothing may be taken from it before its callbacks begin */
}

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

void runner_unload(struct runner *runner)
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

static struct conn *next_item(struct runner *runner)
{
    pthread_mutex_lock(&runner->lock);
    runner->calling = runner->next_item < runner->count;
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
    begin_call(runner);
    server_log(server, conn->session, MKIT_LOG_WARNING, "the MTA was silent for %u s: closed",
               server->options.timeout);
    end_call(runner);
}

/* Reads for the whole batch, an equal share of the arena for each. What it has no room for is read
 * at the next turn. Returns whether there is anything to call. */
static bool read_batch(struct runner *runner, int64_t now)
{
    struct mkit_server *server = runner->server;
    const bool aborting = atomic_load(&server->asked) == SERVER_ABORTING;
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

static void call_batch(struct runner *runner)
{
    const struct mkit_filter *filter = runner->server->filter;
    pthread_mutex_lock(&runner->lock);
    runner->next_item = 0;
    pthread_mutex_unlock(&runner->lock);
    if (filter->enter_batch)
        filter->enter_batch(filter->data);
    struct conn *conn;
    while ((conn = next_item(runner))) {
        if (!conn->blocked && !conn->over)
            run_session(runner, conn);
    }
    if (filter->leave_batch)
        filter->leave_batch(filter->data);
}

static void write_batch(struct runner *runner, int64_t now)
{
    for (unsigned i = 0; i < runner->count; i++) {
        struct conn *conn = runner->batch[i];
        conn->kept_input = false;
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
    if (server->state == SERVER_ABORTING || (server->state == SERVER_DRAINING && !conn->blocked &&
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

/* Lets the watcher tick, as it does while there is work. */
static void wake_watching(struct mkit_server *server)
{
    if (!atomic_load_explicit(&server->watching, memory_order_relaxed) &&
        !atomic_exchange(&server->watching, true))
        server_wake_watcher(server);
}

/* Serves a batch, from reading to writing. Without the lock, except at the end. */
static void serve_batch(struct runner *runner)
{
    struct mkit_server *server = runner->server;
    wake_watching(server);
    atomic_fetch_add_explicit(&server->turns, 1, memory_order_relaxed);
    if (read_batch(runner, server_now()))
        call_batch(runner);
    write_batch(runner, server_now());
    struct conn *ended[MAX_BATCH];
    unsigned ended_count = 0;
    pthread_mutex_lock(&server->lock);
    for (unsigned i = 0; i < runner->count; i++) { /* what was not read comes first next time */
        struct conn *conn = runner->batch[(runner->unread + i) % runner->count];
        if (give_back(server, conn))
            ended[ended_count++] = conn;
    }
    server->stats.messages += runner->messages;
    server->stats.failures += runner->failures;
    runner->messages = runner->failures = 0;
    runner->count = 0;
    bool finished = server->state > SERVER_RUNNING && server->stats.open == 0;
    pthread_mutex_unlock(&server->lock);
    for (unsigned i = 0; i < ended_count; i++)
        server_close_conn(ended[i]);
    if (finished)
        server_wake_watcher(server);
}

/* ------------------------------------------------------------------------------------- thread */

/* Turns what the poller reports into ready connections. With the lock held. */
static void take_events(struct mkit_server *server, const struct poll_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        const int fd = (int)(uint32_t)events[i].id;
        const uint32_t generation = (uint32_t)(events[i].id >> 32);
        if (generation == 0) {
            struct listener *listener = server->listeners;
            while (listener && listener->fd != fd)
                listener = listener->next;
            if (listener && listener->watched)
                listener_accept(server, listener);
            continue;
        }
        struct conn *conn = fd < server->conns_size ? server->conns[fd] : NULL;
        if (!conn || conn->generation != generation)
            continue; /* it was closed since */
        conn->hangup = conn->hangup || events[i].hangup;
        server_make_ready(server, conn);
    }
    server->round = server->ready_count;
}

/* Waits for connections, or only looks for them. With the lock held, and without it meanwhile. */
static void find_events(struct runner *runner, bool look)
{
    struct mkit_server *server = runner->server;
    struct poll_event events[MAX_BATCH * 2];
    server->polling = true;
    pthread_mutex_unlock(&server->lock);
    int count = poller_wait(server->poller, events, MAX_BATCH * 2, look);
    wake_watching(server);
    pthread_mutex_lock(&server->lock);
    server->polling = false;
    take_events(server, events, count);
}

/* Makes a runner that waits for work active. With the lock held. */
static void wake(struct mkit_server *server, struct runner *runner)
{
    struct runner **at = &server->asleep;
    while (*at != runner)
        at = &(*at)->next_asleep;
    *at = runner->next_asleep;
    runner->active = true;
    server->active++;
    server->rising++;
    pthread_cond_signal(&runner->wake);
}

/* Sleeps until there is work for one more; the last one to come is the first to be woken, so that
 * those that are not needed stay asleep and end. Returns false when the thread should end. */
static bool wait_for_work(struct runner *runner)
{
    struct mkit_server *server = runner->server;
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += server->options.linger > 0 ? server->options.linger : 0;
    runner->active = false;
    server->active--;
    runner->next_asleep = server->asleep;
    server->asleep = runner;
    int waited = 0;
    while (!runner->active && waited != ETIMEDOUT)
        waited = pthread_cond_timedwait(&runner->wake, &server->lock, &until);
    const bool work = runner->active;
    if (!work)
        wake(server, runner); /* to its end */
    server->rising--;
    return work;
}

/* Logs what was left for it. With the lock held, and without it meanwhile. Returns whether there
 * was anything. */
static bool log_notice(struct runner *runner)
{
    struct mkit_server *server = runner->server;
    char line[sizeof server->notices->text + sizeof " (4294967295 times since the last such line)"];
    if (!limits_take_line(server, line, sizeof line))
        return false;
    pthread_mutex_unlock(&server->lock);
    begin_call(runner);
    server_log(server, NULL, MKIT_LOG_WARNING, "%s", line);
    end_call(runner);
    pthread_mutex_lock(&server->lock);
    return true;
}

/* The loop of a runner. With the lock held, and without it while it serves, waits or sleeps.
 * Connections that always have more to read must not keep the others away: once all that were
 * ready have had a turn, it looks for new events first. */
static void run(struct runner *runner)
{
    struct mkit_server *server = runner->server;
    server->rising--;
    for (;;) {
        if (log_notice(runner))
            continue;
        if (server->finishing)
            return;
        const bool surplus = server->active > server->target;
        const bool ready = server->ready_first;
        if (ready && !surplus && (server->round || server->polling)) {
            take_batch(runner);
            runners_for_work(server);
            pthread_mutex_unlock(&server->lock);
            serve_batch(runner);
            pthread_mutex_lock(&server->lock);
        } else if (!server->polling && !surplus) {
            find_events(runner, ready);
        } else {
            if (surplus) /* what it leaves behind is for another one */
                runners_for_work(server);
            if (!wait_for_work(runner))
                return;
        }
    }
}

static void *runner_main(void *arg)
{
    struct runner *runner = arg;
    struct mkit_server *server = runner->server;
    const struct mkit_filter *filter = server->filter;
    if (filter->thread_start)
        filter->thread_start(filter->data);
    pthread_mutex_lock(&server->lock);
    run(runner);
    server->active--;
    runner->active = false;
    runners_for_work(server);
    pthread_mutex_unlock(&server->lock);
    if (filter->thread_end)
        filter->thread_end(filter->data);
    pthread_mutex_lock(&server->lock);
    server->threads--;
    runner->ended = true;
    pthread_mutex_unlock(&server->lock);
    server_wake_watcher(server);
    return NULL;
}

static void free_runner(struct runner *runner)
{
    pthread_mutex_destroy(&runner->lock);
    pthread_cond_destroy(&runner->wake);
    if (runner->arena)
        (void)munmap(runner->arena, ARENA);
    free(runner);
}

int runner_start(struct mkit_server *server)
{
    struct runner *runner = calloc(1, sizeof *runner);
    if (!runner)
        return server_fail(server, MKIT_ENOMEM, "no memory for a thread");
    runner->server = server;
    runner->active = true;
    /* Not from malloc, which keeps what threads that have ended gave back. */
    void *arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    runner->arena = arena == MAP_FAILED ? NULL : arena;
    pthread_mutex_init(&runner->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&runner->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (!runner->arena) {
        free_runner(runner);
        return server_fail(server, MKIT_ENOMEM, "no memory for a thread");
    }
    /* With the signal mask of the program, which those that callbacks start inherit. */
    int error = pthread_create(&runner->thread, NULL, runner_main, runner);
    if (error) {
        free_runner(runner);
        return server_fail(server, MKIT_ETHREAD, "cannot start a thread: %s", strerror(error));
    }
    runner->next = server->runners;
    server->runners = runner;
    server->threads++;
    server->active++;
    server->rising++;
    return 0;
}

/* Starts a runner. Returns whether it could; where not, it is tried again after a moment. */
static bool start_another(struct mkit_server *server)
{
    if (server->thread_after > server_now())
        return false;
    if (runner_start(server) == 0)
        return true;
    limits_tell(server, NOTICE_THREAD, "%s", mkit_server_why(server));
    server->thread_after = limits_retry_at();
    return false;
}

void runners_for_work(struct mkit_server *server)
{
    const bool full = server->active >= server->target;
    const unsigned wanted = server->ready_count + !server->polling;
    bool refused = false;
    while (server->active < server->target && server->rising < wanted && !server->finishing &&
           !refused) {
        if (server->asleep)
            wake(server, server->asleep);
        else
            refused = !start_another(server);
    }
    /* Where no further one may be active, or none can be had, the one that waits for events has to
     * see to it. */
    if (server->ready_count && server->polling && (full || refused))
        poller_wake(server->poller);
}

void runners_wake(struct mkit_server *server)
{
    while (server->asleep)
        wake(server, server->asleep);
}

void runners_join(struct mkit_server *server, bool all)
{
    struct runner **at = &server->runners;
    while (*at) {
        struct runner *runner = *at;
        if (!runner->ended && !all) {
            at = &runner->next;
            continue;
        }
        *at = runner->next;
        pthread_mutex_unlock(&server->lock);
        pthread_join(runner->thread, NULL);
        free_runner(runner);
        pthread_mutex_lock(&server->lock);
        at = &server->runners; /* it may have changed meanwhile */
    }
}
