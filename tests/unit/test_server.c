/* A server with a filter in C, on both pollers: many connections at once, callbacks that block,
 * stop with its drain, abort, adopted connections, limits, time-outs. Run plainly, and by
 * `make sanitize` under the thread sanitizer. Nothing here waits for time to pass: callbacks block
 * until other connections have been served. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>

#include "client.h"
#include "milterkit.h"

#define MESSAGE         "M R T L N B E"
#define MESSAGE_REPLIES "ccccccc"

/* ------------------------------------------------------------------------------------- filter */

/* What the filter has seen, and what its callbacks wait for. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned seen[MKIT_STEPS];
    unsigned inside;  /* callbacks that wait at the gate */
    unsigned opens;   /* the gate: it opens when so many wait, or ... */
    unsigned helos;   /* ... when so many HELOs were seen */
    unsigned hung;    /* waits that reached their deadline */
    unsigned overlap; /* callbacks of one session at once */
    unsigned threads; /* started and not ended */
    unsigned batches; /* entered and not left */
    unsigned entered; /* of all time */
} world = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static struct timespec deadline(void)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += DEADLINE_S;
    return at;
}

/* Waits at the gate. With the lock held. */
static void wait_at_gate(void)
{
    const struct timespec until = deadline();
    world.inside++;
    (void)pthread_cond_broadcast(&world.changed);
    while (world.inside < world.opens || world.seen[MKIT_HELO] < world.helos)
        if (pthread_cond_timedwait(&world.changed, &world.lock, &until) == ETIMEDOUT) {
            world.hung++;
            break;
        }
}

/* Every step: MAIL from "<wait...>" blocks until the gate opens; CLOSE frees what CONNECT made. */
static int on_step(struct mkit_session *session, const struct mkit_event *event)
{
    atomic_int *mine = mkit_private(session);
    if (!mine) {
        mine = calloc(1, sizeof *mine);
        mkit_set_private(session, mine);
    }
    const int before = mine ? atomic_fetch_add(mine, 1) : 1;
    (void)pthread_mutex_lock(&world.lock);
    world.overlap += before != 0;
    world.seen[event->step]++;
    if (event->step == MKIT_MAIL && strncmp(event->of.args.all.at, "<wait", 5) == 0)
        wait_at_gate();
    (void)pthread_cond_broadcast(&world.changed);
    (void)pthread_mutex_unlock(&world.lock);
    if (event->step == MKIT_EOM)
        (void)mkit_addheader(session, "X-Seen", "by the filter");
    if (mine)
        (void)atomic_fetch_sub(mine, 1);
    if (event->step == MKIT_CLOSE) {
        mkit_set_private(session, NULL);
        free(mine);
    }
    return MKIT_CONTINUE;
}

static void count(unsigned *what, int change)
{
    (void)pthread_mutex_lock(&world.lock);
    *what += (unsigned)change;
    (void)pthread_mutex_unlock(&world.lock);
}

static void thread_start(void *data)
{
    (void)data;
    count(&world.threads, 1);
}

static void thread_end(void *data)
{
    (void)data;
    count(&world.threads, -1);
}

static void enter_batch(void *data)
{
    (void)data;
    count(&world.batches, 1);
    count(&world.entered, 1);
}

static void leave_batch(void *data)
{
    (void)data;
    count(&world.batches, -1);
}

static void on_log(void *data, int level, const struct mkit_session *session, const char *line)
{
    (void)data;
    (void)session;
    assert_int_in_range(level, MKIT_LOG_ERROR, MKIT_LOG_DEBUG);
    assert_true(strlen(line) > 0);
}

static const struct mkit_filter filter = {
    .actions = MKIT_ADDHDRS,
    .on = {on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step,
           on_step, on_step},
    .thread_start = thread_start,
    .thread_end = thread_end,
    .enter_batch = enter_batch,
    .leave_batch = leave_batch,
    .log = on_log,
};

/* Waits until the filter has seen a step so many times. */
static void await_seen(enum mkit_step step, unsigned times)
{
    const struct timespec until = deadline();
    int error = 0;
    (void)pthread_mutex_lock(&world.lock);
    while (world.seen[step] < times && !error)
        error = pthread_cond_timedwait(&world.changed, &world.lock, &until);
    const unsigned seen = world.seen[step];
    (void)pthread_mutex_unlock(&world.lock);
    assert_int_in_range(seen, times, UINT_MAX);
}

/* ------------------------------------------------------------------------------------- server */

/* A server and the thread that runs it. */
struct bench {
    enum mkit_poller poller;
    struct mkit_server *server;
    pthread_t thread;
    bool running;
    int result;
    char folder[32];
    char path[64];
    int clients[64]; /* to be closed */
    unsigned clients_count;
};

static void *run_server(void *arg)
{
    struct bench *bench = arg;
    bench->result = mkit_server_run(bench->server, NULL, NULL);
    return NULL;
}

static void listen_at(struct bench *bench)
{
    static const struct mkit_listen_options options = {.remove_stale = true};
    char spec[80];
    (void)snprintf(spec, sizeof spec, "unix:%s", bench->path);
    assert_int_equal(mkit_server_listen(bench->server, spec, &options), 0);
}

static void start(struct bench *bench)
{
    assert_int_equal(pthread_create(&bench->thread, NULL, run_server, bench), 0);
    bench->running = true;
}

static void make(struct bench *bench, struct mkit_server_options options)
{
    options.poller = bench->poller;
    bench->server = mkit_server_new(&filter, &options);
    assert_non_null(bench->server);
    listen_at(bench);
}

/* Waits for the end of the run, which something else has asked for. */
static void join(struct bench *bench)
{
    assert_int_equal(pthread_join(bench->thread, NULL), 0);
    bench->running = false;
    assert_int_equal(bench->result, 0);
    struct mkit_server_stats stats;
    mkit_server_get_stats(bench->server, &stats);
    assert_int_equal(stats.open, 0);
    assert_int_equal(stats.threads, 0);
    assert_int_equal(world.threads, 0);
    assert_int_equal(world.batches, 0);
    assert_int_equal(world.overlap, 0);
    assert_int_equal(world.hung, 0);
}

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    bench->poller = *(const enum mkit_poller *)*state;
    (void)snprintf(bench->folder, sizeof bench->folder, "/tmp/mkit-XXXXXX");
    if (!mkdtemp(bench->folder))
        return -1;
    (void)snprintf(bench->path, sizeof bench->path, "%s/socket", bench->folder);
    memset(world.seen, 0, sizeof world.seen);
    world.inside = world.opens = world.helos = world.hung = world.overlap = 0;
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    if (bench->running) {
        mkit_server_abort(bench->server);
        (void)pthread_join(bench->thread, NULL);
    }
    mkit_server_free(bench->server);
    for (unsigned i = 0; i < bench->clients_count; i++)
        (void)close(bench->clients[i]);
    (void)unlink(bench->path);
    (void)rmdir(bench->folder);
    free(bench);
    return 0;
}

/* ------------------------------------------------------------------------------------ clients */

static int connect_client(const struct bench *bench)
{
    return client_connect(bench->path);
}

/* A client that the test itself is, closed at its end. */
static int client(struct bench *bench)
{
    const int fd = connect_client(bench);
    assert_true(fd >= 0);
    bench->clients[bench->clients_count++] = fd;
    return fd;
}

/* -------------------------------------------------------------------------------------- tests */

enum { CLIENTS = 8, CONNECTIONS = 40 };

/* Whole sessions, one after the other: two messages at once, then one in pieces. */
static void *be_clients(void *arg)
{
    const struct bench *bench = arg;
    bool fine = true;
    for (int i = 0; i < CONNECTIONS && fine; i++) {
        const int fd = connect_client(bench);
        fine = fd >= 0 && say(fd, "G " MESSAGE " " MESSAGE) &&
               hears(fd, "Occ" MESSAGE_REPLIES MESSAGE_REPLIES) && say(fd, "M R") &&
               hears(fd, "cc") && say(fd, "T L N B") && hears(fd, "cccc") && say(fd, "E Q") &&
               hears(fd, "c") && hears_end(fd);
        (void)close(fd);
    }
    return fine ? NULL : arg;
}

static void many_connections(void **state)
{
    struct bench *bench = *state;
    make(bench, (struct mkit_server_options){0});
    start(bench);
    pthread_t threads[CLIENTS];
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, be_clients, bench), 0);
    unsigned failed = 0;
    for (int i = 0; i < CLIENTS; i++) {
        void *result;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        failed += result != NULL;
    }
    assert_int_equal(failed, 0);
    mkit_server_stop(bench->server);
    join(bench);
    struct mkit_server_stats stats;
    mkit_server_get_stats(bench->server, &stats);
    assert_int_equal(stats.accepted, CLIENTS * CONNECTIONS);
    assert_int_equal(stats.messages, 3 * CLIENTS * CONNECTIONS);
    assert_int_equal(stats.failures, 0);
    assert_int_equal(world.seen[MKIT_CLOSE], CLIENTS * CONNECTIONS);
    assert_int_equal(world.seen[MKIT_ABORT], 0);
}

/* None of these callbacks returns before all of them run: each needs a thread of its own. */
static void blocking_callbacks_get_threads(void **state)
{
    struct bench *bench = *state;
    make(bench, (struct mkit_server_options){.runners = 1});
    world.opens = 12;
    start(bench);
    for (unsigned i = 0; i < world.opens; i++)
        assert_true(say(client(bench), "G 10:M<wait>\\0x\\0"));
    for (unsigned i = 0; i < world.opens; i++)
        assert_true(hears(bench->clients[i], "Occc"));
    mkit_server_abort(bench->server);
    join(bench);
}

/* One callback blocks until all other connections were served, some of which the same runner had
 * taken before: they are taken from it. */
static void work_behind_a_blocked_callback(void **state)
{
    struct bench *bench = *state;
    make(bench, (struct mkit_server_options){.runners = 1});
    enum { OTHERS = 40 };
    world.opens = 1;
    start(bench);
    for (int i = 0; i <= OTHERS; i++)
        assert_true(say(client(bench), "O C") && hears(bench->clients[i], "Oc"));
    (void)pthread_mutex_lock(&world.lock);
    world.helos = OTHERS;
    (void)pthread_mutex_unlock(&world.lock);
    for (int round = 0; round < 5; round++) { /* which ones share a batch is up to chance */
        assert_true(say(bench->clients[0], "10:M<wait>\\0x\\0"));
        for (int i = 1; i <= OTHERS; i++)
            assert_true(say(bench->clients[i], "H"));
        for (int i = 0; i <= OTHERS; i++)
            assert_true(hears(bench->clients[i], "c"));
        assert_true(say(bench->clients[0], "A"));
        (void)pthread_mutex_lock(&world.lock);
        world.helos += OTHERS;
        (void)pthread_mutex_unlock(&world.lock);
    }
    mkit_server_stop(bench->server);
    join(bench);
}

/* Messages that are open finish; what is idle, and what is new, is closed. */
static void stop_drains(void **state)
{
    struct bench *bench = *state;
    make(bench, (struct mkit_server_options){0});
    start(bench);
    const int open = client(bench);
    const int idle = client(bench);
    assert_true(say(open, "G M R") && hears(open, "Occcc"));
    assert_true(say(idle, "G") && hears(idle, "Occ"));
    mkit_server_stop(bench->server);
    assert_true(hears_end(idle));
    assert_int_equal(connect_client(bench), -1);
    assert_true(say(open, "T L N B") && hears(open, "cccc"));
    assert_true(say(open, "E") && hears(open, "c") && hears_end(open));
    join(bench);
    assert_int_equal(world.seen[MKIT_ABORT], 0);
    assert_int_equal(world.seen[MKIT_CLOSE], 2);
    listen_at(bench); /* the same server once more */
    start(bench);
    const int again = client(bench);
    assert_true(say(again, "G " MESSAGE " Q") && hears(again, "Occ" MESSAGE_REPLIES));
    assert_true(hears_end(again));
    mkit_server_stop(bench->server);
    join(bench);
}

/* Clients at every step of a session, and of a message, when the stop comes. */
static void stop_in_every_step(void **state)
{
    static const char *const outside[] = {"", "O", "O C", "G", "G " MESSAGE};
    static const char *const answers[] = {"", "O", "Oc", "Occ", "Occ" MESSAGE_REPLIES};
    enum { OUTSIDE = 5, INSIDE = 6, EACH = 5 }; /* the commands of a message but the last */
    struct bench *bench = *state;
    char notation[32] = "G ";
    make(bench, (struct mkit_server_options){0});
    start(bench);
    for (int i = 0; i < OUTSIDE * EACH; i++)
        assert_true(say(client(bench), outside[i % OUTSIDE]) &&
                    hears(bench->clients[i], answers[i % OUTSIDE]));
    const int *inside = bench->clients + bench->clients_count;
    for (int i = 0; i < INSIDE * EACH; i++) {
        const int commands = i % INSIDE + 1; /* each with the space before the next one */
        (void)snprintf(notation + 2, sizeof notation - 2, "%.*s", commands * 2 - 1, MESSAGE);
        assert_true(say(client(bench), notation) && hears(inside[i], "Occ"));
        assert_true(hears(inside[i], MESSAGE_REPLIES + INSIDE + 1 - commands));
    }
    mkit_server_stop(bench->server);
    for (int i = 0; i < OUTSIDE * EACH; i++)
        assert_true(hears_end(bench->clients[i]));
    assert_int_equal(connect_client(bench), -1);
    for (int i = 0; i < INSIDE * EACH; i++) {
        const int commands = i % INSIDE + 1;
        assert_true(say(inside[i], MESSAGE + commands * 2));
        assert_true(hears(inside[i], MESSAGE_REPLIES + commands) && hears_end(inside[i]));
    }
    join(bench);
    assert_int_equal(world.seen[MKIT_EOM], EACH + INSIDE * EACH);
    assert_int_equal(world.seen[MKIT_ABORT], 0);
}

/* A message that does not finish is aborted when the time of the drain is over. */
static void a_drain_ends(void **state)
{
    struct bench *bench = *state;
    make(bench, (struct mkit_server_options){.drain = 1});
    start(bench);
    const int open = client(bench);
    assert_true(say(open, "G M R") && hears(open, "Occcc"));
    mkit_server_stop(bench->server);
    assert_true(hears_end(open));
    join(bench);
    assert_int_equal(world.seen[MKIT_ABORT], 1);
    assert_int_equal(world.seen[MKIT_CLOSE], 1);
}

/* Every connection gets its abort and close, wherever it is, a blocked callback's included. */
static void abort_ends_all(void **state)
{
    struct bench *bench = *state;
    make(bench, (struct mkit_server_options){0});
    world.opens = 2;
    start(bench);
    const int idle = client(bench);
    const int open = client(bench);
    const int blocked = client(bench);
    assert_true(say(idle, "G") && hears(idle, "Occ"));
    assert_true(say(open, "G M R") && hears(open, "Occcc"));
    assert_true(say(blocked, "G") && hears(blocked, "Occ"));
    assert_true(say(blocked, "10:M<wait>\\0x\\0"));
    await_seen(MKIT_MAIL, 2);
    mkit_server_abort(bench->server);
    assert_true(hears_end(idle) && hears_end(open));
    (void)pthread_mutex_lock(&world.lock);
    world.opens = 1;
    (void)pthread_cond_broadcast(&world.changed);
    (void)pthread_mutex_unlock(&world.lock);
    join(bench);
    assert_int_equal(world.seen[MKIT_ABORT], 2);
    assert_int_equal(world.seen[MKIT_CLOSE], 3);
}

static void adopted_connections(void **state)
{
    struct bench *bench = *state;
    make(bench, (struct mkit_server_options){0});
    for (int i = 0; i < 2; i++) {
        int ends[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        bench->clients[bench->clients_count++] = ends[0];
        assert_int_equal(mkit_server_adopt(bench->server, ends[1]), 0);
        if (i == 0) /* one before the run, one while it serves the first */
            start(bench);
        assert_true(say(ends[0], "G " MESSAGE) && hears(ends[0], "Occ" MESSAGE_REPLIES));
    }
    mkit_server_stop(bench->server);
    assert_true(hears_end(bench->clients[0]) && hears_end(bench->clients[1]));
    join(bench);
}

static void max_connections(void **state)
{
    struct bench *bench = *state;
    make(bench, (struct mkit_server_options){.max_connections = 2});
    start(bench);
    const int first = client(bench);
    const int second = client(bench);
    assert_true(say(first, "G") && hears(first, "Occ"));
    assert_true(say(second, "G") && hears(second, "Occ"));
    assert_true(hears_end(client(bench)));
    assert_true(say(first, "Q") && hears_end(first)); /* it is forgotten before it is closed */
    const int fourth = client(bench);
    assert_true(say(fourth, "G") && hears(fourth, "Occ"));
    mkit_server_stop(bench->server);
    join(bench);
    struct mkit_server_stats stats;
    mkit_server_get_stats(bench->server, &stats);
    assert_int_equal(stats.accepted, 4);
    assert_int_equal(stats.refused, 1);
}

/* A connection that says nothing for too long is ended; one that speaks is not. */
static void silence(void **state)
{
    struct bench *bench = *state;
    make(bench, (struct mkit_server_options){.timeout = 1});
    start(bench);
    const int silent = client(bench);
    assert_true(say(silent, "G M R") && hears(silent, "Occcc"));
    assert_true(hears_end(silent));
    const int other = client(bench);
    assert_true(say(other, "G " MESSAGE) && hears(other, "Occ" MESSAGE_REPLIES));
    mkit_server_stop(bench->server);
    join(bench);
    assert_int_equal(world.seen[MKIT_ABORT], 1);
}

/* Stop and abort from many threads at once, while clients come and go. */
static void *stop_it(void *arg)
{
    const struct bench *bench = arg;
    struct mkit_server_stats stats;
    for (int i = 0; i < 20; i++) {
        mkit_server_stop(bench->server);
        mkit_server_get_stats(bench->server, &stats);
    }
    mkit_server_abort(bench->server);
    return NULL;
}

static void *come_and_go(void *arg)
{
    for (int fd; (fd = connect_client(arg)) >= 0; (void)close(fd)) /* until nobody listens */
        if (say(fd, "G M R"))
            (void)hears(fd, "Occcc");
    return NULL;
}

static void an_end_amid_traffic(void **state)
{
    struct bench *bench = *state;
    make(bench, (struct mkit_server_options){0});
    start(bench);
    pthread_t threads[6];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, bench), 0);
    await_seen(MKIT_RCPT, 20);
    for (int i = 4; i < 6; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, stop_it, bench), 0);
    for (int i = 0; i < 6; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    join(bench);
    assert_int_equal(world.seen[MKIT_RCPT], world.seen[MKIT_ABORT]);
}

#define ON_BOTH(test)                                                                              \
    {#test " (poll)", test, set_up, tear_down, &by_poll},                                          \
    {                                                                                              \
#test " (best)", test, set_up, tear_down, &by_best                                         \
    }

/* Waits until the server has read all that was written. */
static bool is_read(int fd)
{
    const struct timespec pause = {.tv_nsec = 100000};
    int left = 1;
    for (int i = 0; i < DEADLINE_S * 10000 && left; i++)
        if (ioctl(fd, TIOCOUTQ, &left) < 0 || (left && nanosleep(&pause, NULL)))
            return false;
    return left == 0;
}

static unsigned times_entered(void)
{
    (void)pthread_mutex_lock(&world.lock);
    const unsigned entered = world.entered;
    (void)pthread_mutex_unlock(&world.lock);
    return entered;
}

/* A packet that comes in pieces is no work before it is whole: Python's lock is not taken. */
static void a_packet_in_pieces_enters_once(void **state)
{
    struct bench *bench = *state;
    make(bench, (struct mkit_server_options){0});
    start(bench);
    const int fd = client(bench);
    assert_true(say(fd, "G") && hears(fd, "Occ"));
    const unsigned before = times_entered();
    static const char *const pieces[] = {"hex:00", "hex:0000", "hex:074d", "hex:3c61", "hex:4062"};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        assert_true(say(fd, pieces[i]) && is_read(fd));
    assert_true(say(fd, "hex:3e00") && hears(fd, "c"));
    assert_true(say(fd, "R") && hears(fd, "c")); /* so that nothing is under way */
    assert_int_equal(times_entered(), before + 2);
    mkit_server_abort(bench->server);
    join(bench);
}

int main(void)
{
    static enum mkit_poller by_poll = MKIT_POLLER_POLL;
    static enum mkit_poller by_best = MKIT_POLLER_BEST;
    const struct CMUnitTest tests[] = {
        ON_BOTH(many_connections),
        ON_BOTH(blocking_callbacks_get_threads),
        ON_BOTH(work_behind_a_blocked_callback),
        ON_BOTH(stop_drains),
        ON_BOTH(stop_in_every_step),
        ON_BOTH(a_drain_ends),
        ON_BOTH(abort_ends_all),
        ON_BOTH(adopted_connections),
        ON_BOTH(max_connections),
        ON_BOTH(silence),
        ON_BOTH(an_end_amid_traffic),
        ON_BOTH(a_packet_in_pieces_enters_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
