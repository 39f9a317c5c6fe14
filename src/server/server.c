/* A server's life: made, listening, running, stopped; and its table of connections. Serving is
 * runner.c's and turn.c's; time-outs, calls that run long and the end are watcher.c's. */
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
    DEFAULT_GRACE = 5,
    DEFAULT_RETIRE = 3600 /* Sendmail's limit for an idle session; Postfix's is 300 s */
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
        .grace = options->grace ? options->grace : DEFAULT_GRACE,
        .deadline = options->deadline,
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
    pthread_mutex_lock(&server->lock);
    const bool in_use = server->stats.left > 0;
    pthread_mutex_unlock(&server->lock);
    if (in_use) /* by a callback that never returned */
        return;
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
        .expired = NOT_EXPIRED,
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

/* ---------------------------------------------------------------------------------------- run */

void server_name_thread(const char *name)
{
#ifdef __linux__
    (void)pthread_setname_np(pthread_self(), name);
#else
    (void)name;
#endif
}

void server_wake_watcher(struct mkit_server *server)
{
    (void)!write(server->wake[1], "", 1);
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
    server->share = server->target = 1;
    server->batch_limit = MAX_BATCH;
    server->most_aside = server->options.max_threads - 1;
    server->aside = server->telling = 0;
    server->ticked = habit_wall();
    server->finishing = false;
    atomic_store(&server->watching, false);
    int error = watch_conns(server);
    if (!error)
        error = listeners_watch(server);
    if (!error)
        error = runner_start(server);
    return error;
}

/* Ends what begin has begun. */
static void finish(struct mkit_server *server)
{
    pthread_mutex_lock(&server->lock);
    server->finishing = true;
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
}

/* What the thread that runs the server does while another one watches it: it takes pokes, which may
 * have to wait for a lock of the program's that a callback holds. */
struct poked {
    struct mkit_server *server;
    int ended[2]; /* a pipe: the watcher has ended */
};

static void *watch_beside(void *arg)
{
    struct poked *poked = arg;
    server_name_thread("mkit-watcher");
    watcher_run(poked->server);
    (void)!write(poked->ended[1], "", 1);
    return NULL;
}

static void drain_pipe(int fd)
{
    char bytes[64];
    while (read(fd, bytes, sizeof bytes) == sizeof bytes)
        ;
}

static void take_pokes(struct poked *poked, int (*poke)(void *), void *arg)
{
    struct pollfd fds[] = {{.fd = poked->ended[0], .events = POLLIN},
                           {.fd = poked->server->poke[0], .events = POLLIN}};
    while (!fds[0].revents) {
        if (poll(fds, 2, -1) < 0) {
            fds[0].revents = fds[1].revents = 0;
            continue;
        }
        if (fds[1].revents) {
            drain_pipe(poked->server->poke[0]);
            if (poke(arg))
                mkit_server_abort(poked->server);
        }
    }
}

/* Runs the watcher: in this thread, or beside it where this one has pokes to take. */
static int watch(struct mkit_server *server, int (*poke)(void *), void *arg)
{
    if (!poke) {
        watcher_run(server);
        return 0;
    }
    struct poked poked = {.server = server};
    pthread_t watcher;
    if (pipe2(poked.ended, O_CLOEXEC) < 0)
        return server_fail(server, MKIT_ESOCKET, "cannot make a pipe: %s", strerror(errno));
    int error = pthread_create(&watcher, NULL, watch_beside, &poked);
    if (error) {
        error = server_fail(server, MKIT_ETHREAD, "cannot start a thread: %s", strerror(error));
    } else {
        take_pokes(&poked, poke, arg);
        (void)pthread_join(watcher, NULL);
    }
    close_pipe(poked.ended);
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
        error = watch(server, poke, arg);
    finish(server);
    return error;
}

void server_ask(struct mkit_server *server, enum server_state wish)
{
    int asked = atomic_load(&server->asked);
    while (asked < (int)wish && !atomic_compare_exchange_weak(&server->asked, &asked, (int)wish))
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

void mkit_server_retire(struct mkit_server *server, unsigned seconds)
{
    atomic_store(&server->retire, or_default(seconds, DEFAULT_RETIRE));
    server_ask(server, SERVER_RETIRING);
}

void mkit_server_stop(struct mkit_server *server)
{
    server_ask(server, SERVER_DRAINING);
}

void mkit_server_abort(struct mkit_server *server)
{
    server_ask(server, SERVER_ABORTING);
}

void mkit_server_hurry(struct mkit_server *server)
{
    const int asked = atomic_load(&server->asked);
    server_ask(server, asked < SERVER_DRAINING   ? SERVER_DRAINING
                       : asked < SERVER_ABORTING ? SERVER_ABORTING
                                                 : SERVER_LEAVING);
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
