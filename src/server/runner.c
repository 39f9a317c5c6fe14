/* Worker threads. Each one waits, reads, runs callbacks and writes; one of them at a time waits
 * for all connections. How many there are, and what each does next, is decided here; what a turn
 * consists of is turn.c's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "server/server.h"
#include "server/turn.h"

enum { STACK = 2 << 20 }; /* bytes: musl's default of 128 KiB is too little for parsers in Python */

/* Lets the watcher tick, as it does while there is work. */
static void wake_watching(struct mkit_server *server)
{
    if (!atomic_load_explicit(&server->watching, memory_order_relaxed) &&
        !atomic_exchange(&server->watching, true))
        server_wake_watcher(server);
}

/* How many are at work or wait for events: those aside need neither the processor nor the lock. */
static unsigned working(const struct mkit_server *server)
{
    return server->active - server->aside;
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
                (void)listener_accept(server, listener);
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
    const bool ours = turn_tell(runner, line);
    pthread_mutex_lock(&server->lock);
    if (ours)
        turn_come_back(runner);
    return true;
}

/* The loop of a runner. With the lock held, and without it while it serves, waits or sleeps.
 * Connections that always have more to read must not keep the others away: once all that were
 * ready have had a turn, it looks for new events first. */
static void run(struct runner *runner)
{
    struct mkit_server *server = runner->server;
    server->rising--;
    while (!atomic_load(&runner->left)) {
        if (log_notice(runner) || left_tell(runner))
            continue;
        if (server->finishing)
            return;
        const bool surplus = working(server) > server->target;
        const bool ready = server->ready_first;
        if (ready && !surplus && (server->round || server->polling)) {
            turn_take(runner);
            runners_for_work(server);
            pthread_mutex_unlock(&server->lock);
            wake_watching(server);
            (void)turn_serve(runner);
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
    server_name_thread("mkit-runner");
#ifdef __linux__
    runner->tid = gettid();
#endif
    if (filter->thread_start)
        filter->thread_start(filter->data);
    pthread_mutex_lock(&server->lock);
    run(runner);
    const bool left = atomic_load(&runner->left);
    if (!left) {
        server->active--;
        runner->active = false;
        runners_for_work(server);
    }
    pthread_mutex_unlock(&server->lock);
    if (filter->thread_end)
        filter->thread_end(filter->data);
    if (left) {
        left_end(runner);
        return NULL;
    }
    pthread_mutex_lock(&server->lock);
    server->threads--;
    runner->ended = true;
    pthread_mutex_unlock(&server->lock);
    server_wake_watcher(server);
    return NULL;
}

/* Starts the thread of a runner. Its stack has the system's default size, but not less than filters
 * need, and where addresses are scarce not more. Returns 0 or an errno value. */
static int start_thread(struct runner *runner)
{
    const bool scarce = sizeof(void *) <= 4;
    pthread_attr_t attr;
    size_t usual = 0;
    int error = pthread_attr_init(&attr);
    if (error)
        return error;
    (void)pthread_attr_getstacksize(&attr, &usual);
    if (usual < STACK || scarce)
        error = pthread_attr_setstacksize(&attr, STACK);
    /* With the signal mask of the program, which those that callbacks start inherit. */
    if (!error)
        error = pthread_create(&runner->thread, &attr, runner_main, runner);
    (void)pthread_attr_destroy(&attr);
    return error;
}

void runner_free(struct runner *runner)
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
    atomic_store(&runner->step, NO_CALLBACK);
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
        runner_free(runner);
        return server_fail(server, MKIT_ENOMEM, "no memory for a thread");
    }
    const int error = start_thread(runner);
    if (error) {
        runner_free(runner);
        return server_fail(server, MKIT_ETHREAD, "cannot start a thread: %s", strerror(error));
    }
    (void)pthread_getcpuclockid(runner->thread, &runner->clock);
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
    const unsigned most = server->options.max_threads + server->telling;
    const bool full = working(server) >= server->target;
    const unsigned wanted = server->ready_count + !server->polling;
    bool refused = false;
    while (working(server) < server->target && server->rising < wanted && !server->finishing &&
           !refused) {
        if (server->asleep)
            wake(server, server->asleep);
        else
            refused = server->threads >= most || !start_another(server);
    }
    /* Where no further one may work, or none can be had, the one that waits for events has to see
     * to it. */
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
        runner_free(runner);
        pthread_mutex_lock(&server->lock);
        at = &server->runners; /* it may have changed meanwhile */
    }
}
