/* The watcher: it sees to calls that run long, to time-outs, and to the end. It calls nothing of
 * the program's, so that nothing of the program's can hold it up. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/server.h"
#include "server/turn.h"

enum {
    SLOWEST_CHECK_MS = 60000, /* idle connections are looked at this often, at least */
    FASTEST_CHECK_MS = 250,
    LEAVE_MS = 20, /* so often it is looked whether the last calls have returned */
    TICK_NS = TICK_MS * 1000000
};

/* --------------------------------------------------------------------------------------- state */

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

/* Acts on retire, stop, abort and hurry. */
static void change_state(struct mkit_server *server)
{
    const int asked = atomic_load(&server->asked);
    if (asked <= (int)server->state)
        return;
    const struct mkit_server_options *options = &server->options;
    int64_t seconds = 0;
    server->state = (enum server_state)asked;
    if (asked == SERVER_RETIRING)
        listeners_retire(server);
    else
        listeners_close(server, true);
    if (asked == SERVER_RETIRING)
        seconds = atomic_load(&server->retire);
    else if (asked == SERVER_DRAINING)
        seconds = options->drain > 0 ? options->drain : 0;
    else if (asked == SERVER_ABORTING)
        seconds = options->grace > 0 ? options->grace : 0;
    server->deadline = server_now() + seconds * 1000;
    if (asked >= SERVER_DRAINING)
        end_idle(server, END_STOP, asked == SERVER_DRAINING ? is_outside_message : is_any, 0);
}

/* The time of a state is over: the next one follows. */
static void pass_deadline(struct mkit_server *server)
{
    if (server->state == SERVER_DRAINING && server->stats.open)
        limits_tell(server, NOTICE_DRAIN, "%u connection%s still inside a message: ended",
                    server->stats.open, server->stats.open == 1 ? " was" : "s were");
    server_ask(server, (enum server_state)(server->state + 1));
    change_state(server);
}

/* ----------------------------------------------------------------------------------------- calls
 */

/* Whether a thread computes, or would if it had a processor; false where it sleeps. Where the
 * system does not tell, it counts as one that sleeps. */
static bool is_computing(pid_t tid)
{
    char path[64];
    char line[128] = "";
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)tid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    const ssize_t len = read(fd, line, sizeof line - 1);
    close(fd);
    const char *name_end = len > 0 ? strrchr(line, ')') : NULL;
    return name_end && strncmp(name_end, ") R", 3) == 0;
}

/* Nanoseconds that a runner's thread has computed. */
static int64_t computed(const struct runner *runner)
{
    struct timespec time = {0};
    (void)clock_gettime(runner->clock, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* A call that was seen at the last tick too. One that computes goes on computing for as long as it
 * lasts: later it may have to wait for the interpreter's lock, which is no wait of its own. One
 * that would compute if it had a processor is left alone: nobody else would get on faster. */
static void find_long_call(struct mkit_server *server, struct runner *runner)
{
    if (runner->long_computes || atomic_load(&runner->aside))
        return;
    if (is_computing(runner->tid)) {
        runner->long_computes = computed(runner) - runner->seen_computed >= TICK_NS / 2;
        return;
    }
    const int step = atomic_load_explicit(&runner->step, memory_order_relaxed);
    if (step != NO_CALLBACK)
        habit_learn(&server->habits[step], TICK_NS, 0);
    turn_set_aside(runner);
}

/* Looks at what the runners do: counts those whose call computes long, and those whose batch takes
 * long. What they have not begun is taken from them if others may do it. */
static void find_long(struct mkit_server *server, unsigned *computing, unsigned *slow)
{
    const bool may_share = server->active - server->aside < server->options.runners;
    *computing = *slow = server->telling = 0;
    for (struct runner *runner = server->runners; runner; runner = runner->next) {
        if (!runner->active)
            continue;
        const unsigned call = atomic_load_explicit(&runner->call, memory_order_relaxed);
        const bool same_call = call % 2 == 1 && call == runner->seen_call;
        const bool same_batch = runner->count && runner->batches == runner->seen_batches;
        if (same_call) {
            find_long_call(server, runner);
        } else {
            runner->long_computes = false;
            runner->seen_computed = call % 2 == 1 ? computed(runner) : 0;
        }
        if (runner->long_computes)
            ++*computing;
        else if (same_batch && !atomic_load(&runner->aside))
            ++*slow;
        if (runner->long_computes || (same_batch && may_share))
            turn_unload(runner);
        if (same_call && atomic_load(&runner->aside) && atomic_load(&runner->step) == NO_CALLBACK)
            server->telling++;
        runner->seen_call = call;
        runner->seen_batches = runner->batches;
    }
}

/* Lets no more step aside than keep what they share busy: the interpreter's lock, or the
 * processors. More would only queue for it. */
static void bound_aside(struct mkit_server *server)
{
    const int64_t now = habit_wall();
    const int64_t worked = atomic_load_explicit(&server->worked, memory_order_relaxed);
    const int64_t could = (now - server->ticked) * server->options.runners;
    unsigned most = server->most_aside;
    if (worked - server->seen_worked > could / 10 * 9)
        most -= (most + 7) / 8;
    else
        most += most / 8 + 1;
    server->most_aside =
        most < server->options.max_threads ? most : server->options.max_threads - 1;
    server->seen_worked = worked;
    server->ticked = now;
}

/* Lets the number of runners that work follow what callbacks do. One is enough while they are
 * quick; as many as may compute at once share batches that take long; beside calls that compute
 * long there is one more, two at least. Those that wait in a call do not count. */
static void adapt(struct mkit_server *server)
{
    const unsigned runners = server->options.runners;
    const unsigned most = runners > 2 ? runners : 2;
    unsigned computing;
    unsigned slow;
    find_long(server, &computing, &slow);
    bound_aside(server);
    if (slow && server->share < runners)
        server->share++;
    else if (!slow && server->share > 1)
        server->share--;
    server->target = server->share;
    if (computing >= server->share && server->target < most &&
        server->target < server->options.max_threads)
        server->target++;
    runners_for_work(server);
}

/* Looks after the runners at each tick. Returns whether to go on ticking: not after some without
 * work, when one runner is enough beside those that wait. */
static bool tick(struct mkit_server *server, unsigned *quiet, unsigned *turns)
{
    if (!atomic_load(&server->watching))
        return false;
    const unsigned now = atomic_load_explicit(&server->turns, memory_order_relaxed);
    adapt(server);
    const bool calm = now == *turns && server->active <= server->aside + 1 && server->polling &&
                      !server->ready_count;
    *turns = now;
    *quiet = calm ? *quiet + 1 : 0;
    if (*quiet <= QUIET_TICKS)
        return true;
    *quiet = 0;
    server->share = server->target = 1;
    atomic_store(&server->watching, false);
    return false;
}

/* ----------------------------------------------------------------------------------------- clock
 */

/* How long the watcher may sleep, in milliseconds; -1: until it is woken. */
static int nap(const struct mkit_server *server, int64_t next_check)
{
    int64_t until = INT64_MAX;
    if (server->stats.open)
        until = next_check;
    if (server->state > SERVER_RUNNING && server->deadline < until)
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
    /* At the end no line is left for later. */
    limits_check(server, now, server->state > SERVER_RUNNING && !server->stats.open);
    if (now >= *next_check) {
        end_idle(server, END_SILENT, is_silent, now - (int64_t)server->options.timeout * 1000);
        *next_check = now + check_interval(server);
    }
    server->look_at = output_look(server, now);
    if (server->state == SERVER_RUNNING && server->accept_after && now >= server->accept_after &&
        listeners_watch(server) < 0) {
        limits_tell(server, NOTICE_ACCEPT, "%s", mkit_server_why(server));
        listeners_pause(server);
    }
    if (server->state > SERVER_RUNNING && server->state < SERVER_LEAVING && now >= server->deadline)
        pass_deadline(server);
    if (server->state == SERVER_LEAVING) {
        left_behind(server, now);
        server->deadline = now + LEAVE_MS;
    }
}

/* Whether nothing is left to be done or told, nor anybody in a call: the program's log may be one.
 */
static bool is_finished(const struct mkit_server *server)
{
    if (server->state <= SERVER_RUNNING || server->stats.open || server->untold ||
        server->notices_due)
        return false;
    for (const struct runner *runner = server->runners; runner; runner = runner->next)
        if (atomic_load(&runner->call) % 2 == 1)
            return false;
    return true;
}

/* Sleeps, and takes what woke it. Without the lock. */
static void sleep_watcher(struct mkit_server *server, int timeout)
{
    struct pollfd woken = {.fd = server->wake[0], .events = POLLIN};
    char bytes[64];
    if (poll(&woken, 1, timeout) > 0)
        while (read(server->wake[0], bytes, sizeof bytes) == sizeof bytes)
            ;
}

void watcher_run(struct mkit_server *server)
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
        sleep_watcher(server, timeout);
        pthread_mutex_lock(&server->lock);
    }
    pthread_mutex_unlock(&server->lock);
}
