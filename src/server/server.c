/* A server's life: made, listening, running, draining, stopped. The thread that runs it is the
 * watcher: it sees to callbacks that block, to time-outs, and to the end. Serving is runner.c's. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/server.h"

enum {
    DEFAULT_TIMEOUT = 7210, /* seconds, as libmilter's */
    DEFAULT_DRAIN = 30,
    DEFAULT_MAX_THREADS = 512,
    DEFAULT_LINGER = 10,
    DEFAULT_PROGRESS_MS = 30000,
    SLOWEST_CHECK_MS = 60000, /* idle connections are looked at this often, at least */
    FASTEST_CHECK_MS = 250
};

int64_t server_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Why the last call of this thread failed, and on which server: several threads may fail at once.
 */
static _Thread_local struct {
    const struct mkit_server *server;
    char text[256];
} failure;

int server_fail(const struct mkit_server *server, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(failure.text, sizeof failure.text, format, args);
    va_end(args);
    failure.server = server;
    return error;
}

void server_log(const struct mkit_server *server, const struct mkit_session *session, int level,
                const char *format, ...)
{
    const struct mkit_filter *filter = server->filter;
    if (!filter->log)
        return;
    char line[256];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    filter->log(filter->data, level, session, line);
}

/* --------------------------------------------------------------------------------------- life */

static unsigned or_default(unsigned value, unsigned standard)
{
    return value ? value : standard;
}

static unsigned processors(void)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (unsigned)count : 1;
}

static void close_pipe(int ends[2])
{
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0)
            close(ends[i]);
}

struct mkit_server *mkit_server_new(const struct mkit_filter *filter,
                                    const struct mkit_server_options *options)
{
    static const struct mkit_server_options defaults = {0};
    struct mkit_server *server = calloc(1, sizeof *server);
    if (!server)
        return NULL;
    if (failure.server == server) /* an earlier one, in the same place */
        failure.server = NULL;
    if (!options)
        options = &defaults;
    server->filter = filter;
    server->options = (struct mkit_server_options){
        .timeout = or_default(options->timeout, DEFAULT_TIMEOUT),
        .drain = options->drain ? options->drain : DEFAULT_DRAIN,
        .max_threads = or_default(options->max_threads, DEFAULT_MAX_THREADS),
        .max_connections = options->max_connections,
        .runners = or_default(options->runners, filter->enter_batch ? 1 : processors()),
        .linger = options->linger ? options->linger : DEFAULT_LINGER,
        .progress = options->progress ? options->progress : DEFAULT_PROGRESS_MS,
        .poller = options->poller,
        .adopts = options->adopts,
    };
    if (server->options.runners > server->options.max_threads)
        server->options.runners = server->options.max_threads;
    server->wake[0] = server->wake[1] = server->poke[0] = server->poke[1] = -1;
    if (pipe2(server->wake, O_CLOEXEC | O_NONBLOCK) < 0 ||
        pipe2(server->poke, O_CLOEXEC | O_NONBLOCK) < 0) {
        close_pipe(server->wake);
        free(server);
        return NULL;
    }
    pthread_mutex_init(&server->lock, NULL);
    return server;
}

void mkit_server_set_timeout(struct mkit_server *server, unsigned seconds)
{
    server->options.timeout = or_default(seconds, DEFAULT_TIMEOUT);
}

static void free_conn(struct conn *conn)
{
    close(conn->fd);
    mkit_session_free(conn->session);
    free(conn);
}

void mkit_server_free(struct mkit_server *server)
{
    if (!server)
        return;
    listeners_close(server, false);
    for (int fd = 0; fd < server->conns_size; fd++)
        if (server->conns[fd])
            free_conn(server->conns[fd]);
    free(server->conns);
    close_pipe(server->wake);
    close_pipe(server->poke);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

/* -------------------------------------------------------------------------------- connections */

void server_make_ready(struct mkit_server *server, struct conn *conn)
{
    if (conn->status != CONN_IDLE) {
        conn->again = true;
        return;
    }
    conn->status = CONN_READY;
    conn->next_ready = NULL;
    if (server->ready_last)
        server->ready_last->next_ready = conn;
    else
        server->ready_first = conn;
    server->ready_last = conn;
    server->ready_count++;
}

static bool make_room(struct mkit_server *server, int fd)
{
    if (fd < server->conns_size)
        return true;
    int size = server->conns_size ? server->conns_size : 64;
    while (size <= fd)
        size *= 2;
    struct conn **conns = calloc((size_t)size, sizeof *conns);
    if (!conns)
        return false;
    if (server->conns)
        memcpy(conns, server->conns, (size_t)server->conns_size * sizeof *conns);
    struct conn **before = server->conns;
    server->conns = conns; /* a fork may come at any moment: see forked.c */
    server->conns_size = size;
    free(before);
    return true;
}

int server_add_conn(struct mkit_server *server, int fd)
{
    struct conn *conn = calloc(1, sizeof *conn);
    struct mkit_session *session = conn ? mkit_session_new(server->filter) : NULL;
    if (!session || !make_room(server, fd)) {
        mkit_session_free(session);
        free(conn);
        return MKIT_ENOMEM;
    }
    server->generation = server->generation == UINT32_MAX ? 1 : server->generation + 1;
    *conn = (struct conn){
        .fd = fd,
        .generation = server->generation,
        .server = server,
        .session = session,
        .last_active = server_now(),
    };
    if (server->poller && poller_add(server->poller, fd, conn_id(conn), POLL_READ) < 0) {
        mkit_session_free(session);
        free(conn);
        return MKIT_ESOCKET;
    }
    mkit_session_on_flush(session, output_flush, conn);
    mkit_session_on_gone(session, output_gone, conn);
    server->conns[fd] = conn;
    server->stats.open++;
    return 0;
}

int mkit_server_adopt(struct mkit_server *server, int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return server_fail(server, MKIT_ESOCKET, "descriptor %d: %s", fd, strerror(errno));
    pthread_mutex_lock(&server->lock);
    const bool known = fd < server->conns_size && server->conns[fd];
    int error = 0;
    if (known || server->state > SERVER_RUNNING)
        error = server_fail(server, MKIT_EBUSY, "descriptor %d: %s", fd,
                            known ? "it is served already" : "the server is ending");
    else if ((error = server_add_conn(server, fd)))
        (void)server_fail(server, error, "descriptor %d: %s", fd, mkit_error_text(error));
    else
        server->stats.accepted++;
    pthread_mutex_unlock(&server->lock);
    if (!error) /* it may sleep until there is somebody whose time can be out */
        server_wake_watcher(server);
    return error;
}

void server_remove_conn(struct mkit_server *server, struct conn *conn)
{
    if (server->poller)
        poller_remove(server->poller, conn->fd);
    server->conns[conn->fd] = NULL;
    server->stats.open--;
}

void server_close_conn(struct conn *conn)
{
    (void)shutdown(conn->fd, SHUT_RDWR); /* a process that a callback has forked may have it too */
    free_conn(conn);
}

/* ------------------------------------------------------------------------------------ watcher */

void server_wake_watcher(struct mkit_server *server)
{
    (void)!write(server->wake[1], "", 1);
}

static void drain_pipe(int fd)
{
    char bytes[64];
    while (read(fd, bytes, sizeof bytes) == sizeof bytes)
        ;
}

/* Lets every idle connection that is to end come to a runner, which ends it. */
static void end_idle(struct mkit_server *server, enum conn_ending why,
                     bool (*which)(const struct conn *, int64_t), int64_t limit)
{
    for (int fd = 0; fd < server->conns_size; fd++) {
        struct conn *conn = server->conns[fd];
        if (conn && conn->status == CONN_IDLE && which(conn, limit)) {
            conn->ending = (uint8_t)why;
            server_make_ready(server, conn);
        }
    }
    runners_for_work(server);
}

static bool is_silent(const struct conn *conn, int64_t limit)
{
    return conn->last_active <= limit;
}

static bool is_outside_message(const struct conn *conn, int64_t limit)
{
    (void)limit;
    return !mkit_session_in_message(conn->session);
}

static bool is_any(const struct conn *conn, int64_t limit)
{
    (void)conn;
    (void)limit;
    return true;
}

/* Acts on stop and abort. */
static void change_state(struct mkit_server *server)
{
    int asked = atomic_load(&server->asked);
    if (asked <= (int)server->state)
        return;
    server->state = (enum server_state)asked;
    listeners_close(server, true);
    const int drain = server->options.drain > 0 ? server->options.drain : 0;
    server->deadline = server_now() + (int64_t)drain * 1000;
    end_idle(server, END_STOP, asked == SERVER_ABORTING ? is_any : is_outside_message, 0);
}

/* Counts the runners that have been in one call since the last tick, and those in one batch. Their
 * work is taken from them if others may do it. */
static void find_slow(struct mkit_server *server, unsigned *blocked, unsigned *slow)
{
    const bool may_share = server->active < server->options.runners;
    *blocked = *slow = 0;
    for (struct runner *runner = server->runners; runner; runner = runner->next) {
        const unsigned call = atomic_load_explicit(&runner->call, memory_order_relaxed);
        const bool same_call = call % 2 == 1 && call == runner->seen_call;
        const bool same_batch = runner->count && runner->batches == runner->seen_batches;
        if (runner->active && same_call)
            ++*blocked;
        else if (runner->active && same_batch)
            ++*slow;
        if (runner->active && (same_call || (same_batch && may_share)))
            runner_unload(runner);
        runner->seen_call = call;
        runner->seen_batches = runner->batches;
    }
}

/* Lets the number of runners follow the need. One is enough while callbacks are quick; as many as
 * may compute at once share batches that take long; it doubles while all of them block; and it goes
 * back slowly. Returns how many block. */
static unsigned adapt(struct mkit_server *server)
{
    unsigned blocked;
    unsigned slow;
    find_slow(server, &blocked, &slow);
    if (blocked >= server->active && (server->ready_count || !server->polling)) {
        unsigned more = server->ready_count < blocked ? server->ready_count : blocked;
        server->target = server->active + (more ? more : 1);
        if (server->target > server->options.max_threads)
            server->target = server->options.max_threads;
    } else if (slow && server->active < server->options.runners) {
        server->target = server->active + 1;
    } else if (!slow && blocked * 2 < server->target && server->target > 1) {
        server->target--;
    }
    runners_for_work(server);
    return blocked;
}

/* How long the watcher may sleep, in milliseconds; -1: until it is woken. */
static int nap(const struct mkit_server *server, int64_t next_check)
{
    int64_t until = INT64_MAX;
    if (server->stats.open)
        until = next_check;
    if (server->state == SERVER_DRAINING && server->deadline < until)
        until = server->deadline;
    if (server->accept_after && server->accept_after < until)
        until = server->accept_after;
    if (server->look_at < until)
        until = server->look_at;
    if (limits_next(server) < until)
        until = limits_next(server);
    if (until == INT64_MAX)
        return -1;
    int64_t left = until - server_now();
    return left < 0 ? 0 : left > SLOWEST_CHECK_MS ? SLOWEST_CHECK_MS : (int)left;
}

static int check_interval(const struct mkit_server *server)
{
    int64_t quarter = (int64_t)server->options.timeout * 1000 / 4;
    return quarter > SLOWEST_CHECK_MS   ? SLOWEST_CHECK_MS
           : quarter < FASTEST_CHECK_MS ? FASTEST_CHECK_MS
                                        : (int)quarter;
}

/* What is due by the clock. */
static void check_clock(struct mkit_server *server, int64_t *next_check)
{
    const int64_t now = server_now();
    limits_check(server, now, false);
    if (now >= *next_check) {
        end_idle(server, END_SILENT, is_silent, now - (int64_t)server->options.timeout * 1000);
        *next_check = now + check_interval(server);
    }
    server->look_at = output_look(server, now);
    if (server->state == SERVER_RUNNING && server->accept_after && now >= server->accept_after &&
        listeners_watch(server) < 0) {
        limits_tell(server, NOTICE_ACCEPT, "%s", failure.text);
        listeners_pause(server);
    }
    if (server->state == SERVER_DRAINING && now >= server->deadline) {
        limits_tell(server, NOTICE_DRAIN, "%u connection%s still inside a message: ended",
                    server->stats.open, server->stats.open == 1 ? " was" : "s were");
        atomic_store(&server->asked, SERVER_ABORTING);
        change_state(server);
    }
}

static bool is_finished(const struct mkit_server *server)
{
    return server->state > SERVER_RUNNING && server->stats.open == 0;
}

/* Sleeps, and takes what woke it. Without the lock. */
static void sleep_watcher(struct mkit_server *server, int timeout, int (*poke)(void *), void *arg)
{
    struct pollfd fds[] = {{.fd = server->wake[0], .events = POLLIN},
                           {.fd = server->poke[0], .events = POLLIN}};
    if (poll(fds, 2, timeout) <= 0)
        return;
    if (fds[0].revents)
        drain_pipe(server->wake[0]);
    if (fds[1].revents) {
        drain_pipe(server->poke[0]);
        if (poke && poke(arg))
            mkit_server_abort(server);
    }
}

/* Looks after the runners at each tick. Returns whether to go on ticking: not after some without
 * work, when one runner is enough beside those that block. */
static bool tick(struct mkit_server *server, unsigned *quiet, unsigned *turns)
{
    if (!atomic_load(&server->watching))
        return false;
    const unsigned now = atomic_load_explicit(&server->turns, memory_order_relaxed);
    const unsigned blocked = adapt(server);
    const bool calm =
        now == *turns && server->active <= blocked + 1 && server->polling && !server->ready_count;
    *turns = now;
    *quiet = calm ? *quiet + 1 : 0;
    if (*quiet <= QUIET_TICKS)
        return true;
    *quiet = 0;
    server->target = blocked + 1;
    atomic_store(&server->watching, false);
    return false;
}

/* The loop of the thread that runs the server. */
static void watch(struct mkit_server *server, int (*poke)(void *), void *arg)
{
    int64_t next_check = server_now() + check_interval(server);
    unsigned quiet = 0;
    unsigned turns = 0;
    pthread_mutex_lock(&server->lock);
    for (;;) {
        change_state(server);
        check_clock(server, &next_check);
        runners_join(server, false);
        if (is_finished(server))
            break;
        const int timeout = tick(server, &quiet, &turns) ? TICK_MS : nap(server, next_check);
        pthread_mutex_unlock(&server->lock);
        sleep_watcher(server, timeout, poke, arg);
        pthread_mutex_lock(&server->lock);
    }
    pthread_mutex_unlock(&server->lock);
}

/* Watches what was there before the run: connections that were adopted. */
static int watch_conns(struct mkit_server *server)
{
    for (int fd = 0; fd < server->conns_size; fd++) {
        struct conn *conn = server->conns[fd];
        if (conn && poller_add(server->poller, fd, conn_id(conn), POLL_READ) < 0)
            return server_fail(server, MKIT_ESOCKET, "cannot watch a connection: %s",
                               strerror(errno));
    }
    return 0;
}

/* Opens the poller and starts the first runner. With the lock held. */
static int begin(struct mkit_server *server)
{
    if (!server->listeners && !server->stats.open && !server->options.adopts)
        return server_fail(server, MKIT_EINVAL,
                           "there is nothing to serve: open a socket or adopt a connection first");
    server->poller = poller_open(server->options.poller);
    if (!server->poller)
        return server_fail(server, MKIT_ESOCKET, "cannot make a poller: %s", strerror(errno));
    server->target = 1;
    server->finishing = false;
    atomic_store(&server->watching, false);
    int error = watch_conns(server);
    if (!error)
        error = listeners_watch(server);
    if (!error)
        error = runner_start(server);
    return error;
}

int mkit_server_run(struct mkit_server *server, int (*poke)(void *arg), void *arg)
{
    pthread_mutex_lock(&server->lock);
    if (server->state != SERVER_STOPPED) {
        pthread_mutex_unlock(&server->lock);
        return server_fail(server, MKIT_EBUSY, "the server runs already");
    }
    server->state = SERVER_RUNNING;
    int error = begin(server);
    pthread_mutex_unlock(&server->lock);

    if (!error)
        watch(server, poke, arg);

    pthread_mutex_lock(&server->lock);
    server->finishing = true;
    limits_check(server, server_now(), true);
    if (server->poller)
        poller_wake(server->poller);
    runners_wake(server);
    runners_join(server, true);
    for (struct listener *listener = server->listeners; listener; listener = listener->next)
        listener->watched = false;
    struct poller *poller = server->poller;
    server->poller = NULL; /* before it is gone: a fork may come at any moment */
    poller_close(poller);
    server->state = SERVER_STOPPED;
    atomic_store(&server->asked, 0);
    pthread_mutex_unlock(&server->lock);
    return error;
}

static void ask(struct mkit_server *server, int wish)
{
    int asked = atomic_load(&server->asked);
    while (asked < wish && !atomic_compare_exchange_weak(&server->asked, &asked, wish))
        ;
    server_wake_watcher(server);
}

int mkit_server_renew(struct mkit_server *server)
{
    pthread_mutex_lock(&server->lock);
    const bool runs = server->state != SERVER_STOPPED;
    if (!runs)
        atomic_store(&server->asked, 0);
    pthread_mutex_unlock(&server->lock);
    return runs ? server_fail(server, MKIT_EBUSY, "the server runs already") : 0;
}

void mkit_server_stop(struct mkit_server *server)
{
    ask(server, SERVER_DRAINING);
}

void mkit_server_abort(struct mkit_server *server)
{
    ask(server, SERVER_ABORTING);
}

int mkit_server_poke_fd(const struct mkit_server *server)
{
    return server->poke[1];
}

const char *mkit_server_why(const struct mkit_server *server)
{
    return failure.server == server ? failure.text : "";
}

void mkit_server_get_stats(struct mkit_server *server, struct mkit_server_stats *stats)
{
    pthread_mutex_lock(&server->lock);
    *stats = server->stats;
    stats->threads = server->threads;
    pthread_mutex_unlock(&server->lock);
}
