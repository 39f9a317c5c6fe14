/* The thread model of docs/architecture.md, property by property, as counts and orders: how many
 * threads there are and who wakes, what shares a batch, who has a turn before whom. Callbacks block
 * until something has happened, never for a time. Run plainly, and by `make sanitize` under the
 * thread sanitizer. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client.h"
#include "milterkit.h"
#include "procfs.h"
#include "server/poller.h"

enum { CLIENTS_MAX = 512, THREADS_MAX = 520, STREAMS_MAX = 160 };

/* A connection whose MTA never stops sending body. */
struct stream {
    int fd;
    size_t sent;      /* bytes of body packets */
    size_t consumed;  /* of them, those whose callbacks were called */
    size_t unread;    /* so many must wait before a callback returns: the next read is full */
    size_t at;        /* in the packet that is being sent */
    unsigned packets; /* whose callbacks were called */
};

/* What the filter has seen, and what its callbacks wait for. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER; /* the gate */
static struct {
    unsigned seen[MKIT_STEPS];
    unsigned callbacks;
    unsigned batches; /* entered */
    unsigned inside;  /* callbacks that wait at the gate */
    unsigned most;    /* of them, at once */
    unsigned passes;  /* the gate opens for so many, those that wait and those still to come */
    unsigned hung;    /* waits that reached their deadline */
    unsigned overlap; /* callbacks of one session at once */
    bool spying;      /* for the next member */
    unsigned early;   /* MTAs that had a reply before the first batch was left */
    unsigned threads; /* started and not ended */
    pid_t tids[THREADS_MAX];
    unsigned tids_count;
    pid_t helo_by;       /* the thread of the last HELO */
    unsigned helo_batch; /* its batch */
    struct stream streams[STREAMS_MAX];
    unsigned streams_count;
    bool streams_end;
} world;

/* A server and the thread that runs it. */
struct bench {
    struct mkit_server_options options;
    struct mkit_server *server;
    pthread_t thread;
    bool running;
    int result;
    pid_t watcher;
    int clients[CLIENTS_MAX]; /* to be closed */
    unsigned clients_count;
    pthread_t sender; /* of all streams */
    bool sending;
};

/* ---------------------------------------------------------------------------------- conditions */

static void lock(void)
{
    (void)pthread_mutex_lock(&mutex);
}

static void unlock(void)
{
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&mutex);
}

/* Waits for something to happen. With the lock held. False when the deadline is over. */
static bool wait_for(pthread_cond_t *what, const struct timespec *until)
{
    return pthread_cond_timedwait(what, &mutex, until) != ETIMEDOUT;
}

static struct timespec deadline(void)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += DEADLINE_S;
    return at;
}

static void await(const unsigned *what, unsigned value)
{
    const struct timespec until = deadline();
    lock();
    while (*what != value && wait_for(&changed, &until))
        ;
    const unsigned now = *what;
    unlock();
    assert_int_equal(now, value);
}

/* Lets the watcher come by so often. */
static void await_ticks(const struct bench *bench, unsigned ticks)
{
    const struct timespec until = deadline();
    const unsigned from = sleeps_of(bench->watcher);
    while (sleeps_of(bench->watcher) - from < ticks && time(NULL) < until.tv_sec)
        (void)usleep(1000);
    assert_int_in_range(sleeps_of(bench->watcher) - from, ticks, UINT_MAX);
}

/* The thread that served the last HELO. */
static pid_t last_server(void)
{
    lock();
    const pid_t tid = world.helo_by;
    unlock();
    return tid;
}

static void let_pass(unsigned count)
{
    lock();
    world.passes += count;
    (void)pthread_cond_broadcast(&opened);
    unlock();
}

/* ------------------------------------------------------------------------------------- filter */

/* Waits at the gate. With the lock held. */
static void wait_at_gate(void)
{
    const struct timespec until = deadline();
    world.inside++;
    if (world.inside > world.most)
        world.most = world.inside;
    (void)pthread_cond_broadcast(&changed);
    while (!world.passes)
        if (!wait_for(&opened, &until)) {
            world.hung++;
            break;
        }
    world.passes -= world.passes > 0;
    world.inside--;
}

/* Takes a packet of a stream: when the callback returns, there is plenty to read again. */
static void take_packet(struct stream *stream, size_t len)
{
    const struct timespec until = deadline();
    stream->consumed += len + 5;
    stream->packets++;
    while (stream->sent < stream->consumed + stream->unread && !world.streams_end)
        if (!wait_for(&changed, &until)) {
            world.hung++;
            break;
        }
}

/* MAIL from "<wait...>" waits at the gate; BODY belongs to the stream that HELO named. */
static int on_step(struct mkit_session *session, const struct mkit_event *event)
{
    struct {
        atomic_int inside;
        struct stream *stream;
    } *mine = mkit_private(session);
    if (!mine) {
        mine = calloc(1, sizeof *mine);
        mkit_set_private(session, mine);
    }
    const int before = mine ? atomic_fetch_add(&mine->inside, 1) : 1;
    lock();
    world.overlap += before != 0;
    world.seen[event->step]++;
    world.callbacks++;
    if (event->step == MKIT_NEGOTIATE) {
        event->of.options->protocol |= MKIT_NR_BODY;
    } else if (event->step == MKIT_HELO && mine && event->of.text.at[0] == 's') {
        mine->stream = &world.streams[strtoul(event->of.text.at + 1, NULL, 10)];
    } else if (event->step == MKIT_HELO) {
        world.helo_by = gettid();
        world.helo_batch = world.batches;
    } else if (event->step == MKIT_MAIL && strncmp(event->of.args.all.at, "<wait", 5) == 0) {
        wait_at_gate();
    } else if (event->step == MKIT_BODY && mine && mine->stream) {
        take_packet(mine->stream, event->of.body.len);
    }
    unlock();
    if (mine)
        (void)atomic_fetch_sub(&mine->inside, 1);
    if (event->step == MKIT_CLOSE) {
        mkit_set_private(session, NULL);
        free(mine);
    }
    return MKIT_CONTINUE;
}

static void thread_start(void *data)
{
    (void)data;
    lock();
    world.threads++;
    if (world.tids_count < THREADS_MAX)
        world.tids[world.tids_count++] = gettid();
    unlock();
}

static void thread_end(void *data)
{
    (void)data;
    lock();
    world.threads--;
    for (unsigned i = 0; i < world.tids_count; i++)
        if (world.tids[i] == gettid())
            world.tids[i] = world.tids[--world.tids_count];
    unlock();
}

static void enter_batch(void *data)
{
    (void)data;
    lock();
    world.batches++;
    unlock();
}

/* Looks whether an MTA has a reply to what the first batch has served. */
static void leave_batch(void *data)
{
    const struct bench *bench = *(struct bench **)data;
    lock();
    for (unsigned i = 0; world.spying && world.batches == 1 && i < bench->clients_count; i++) {
        char byte;
        world.early += recv(bench->clients[i], &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
    }
    unlock();
}

static struct bench *current;

static const struct mkit_filter filter = {
    .data = &current,
    .on = {on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step,
           on_step, on_step, on_step},
    .thread_start = thread_start,
    .thread_end = thread_end,
    .enter_batch = enter_batch,
    .leave_batch = leave_batch,
};

/* ------------------------------------------------------------------------------------- server */

static void *run_server(void *arg)
{
    struct bench *bench = arg;
    bench->watcher = gettid();
    bench->result = mkit_server_run(bench->server, NULL, NULL);
    return NULL;
}

static void make(struct bench *bench, struct mkit_server_options options)
{
    options.poller = bench->options.poller;
    options.adopts = true;
    bench->options = options;
    bench->server = mkit_server_new(&filter, &options);
    assert_non_null(bench->server);
}

static void start(struct bench *bench)
{
    assert_int_equal(pthread_create(&bench->thread, NULL, run_server, bench), 0);
    bench->running = true;
}

static unsigned threads_of(const struct bench *bench)
{
    struct mkit_server_stats stats;
    mkit_server_get_stats(bench->server, &stats);
    return stats.threads;
}

/* A new connection: the MTA's end of it. It can hold `size` bytes that the server has not read. */
static int client_with_room(struct bench *bench, int size)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    if (size && setsockopt(ends[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
        (void)setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    assert_true(bench->clients_count < CLIENTS_MAX);
    bench->clients[bench->clients_count++] = ends[0];
    assert_int_equal(mkit_server_adopt(bench->server, ends[1]), 0);
    return ends[0];
}

static int client(struct bench *bench)
{
    return client_with_room(bench, 0);
}

static void finish(struct bench *bench)
{
    lock();
    world.streams_end = true;
    unlock();
    mkit_server_abort(bench->server);
    assert_int_equal(pthread_join(bench->thread, NULL), 0);
    bench->running = false;
    assert_int_equal(bench->result, 0);
    assert_int_equal(world.threads, 0);
    assert_int_equal(world.overlap, 0);
    assert_int_equal(world.hung, 0);
}

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    if (!bench)
        return -1;
    bench->options.poller = *(const enum mkit_poller *)*state;
    memset(&world, 0, sizeof world);
    *state = current = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    lock();
    world.streams_end = true;
    world.passes = UINT_MAX;
    (void)pthread_cond_broadcast(&opened);
    unlock();
    if (bench->running) {
        mkit_server_abort(bench->server);
        (void)pthread_join(bench->thread, NULL);
    }
    if (bench->sending)
        (void)pthread_join(bench->sender, NULL);
    mkit_server_free(bench->server);
    for (unsigned i = 0; i < bench->clients_count; i++)
        (void)close(bench->clients[i]);
    free(bench);
    return 0;
}

#define WAITING "10:M<wait>\\0x\\0"

/* Lets so many callbacks wait at once, each on a connection and a thread of its own. */
static void fill_gate(struct bench *bench, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_true(say(client(bench), "G " WAITING));
    await(&world.inside, count);
}

/* -------------------------------------------------------------------------------- the number */

/* Callbacks that block, all at once: none is let through before the last one has come. */
static void threads_follow_the_need(void **state)
{
    struct bench *bench = *state;
    enum { MANY = 500 };
    make(bench, (struct mkit_server_options){.max_threads = 512});
    start(bench);
    fill_gate(bench, MANY);
    assert_int_in_range(threads_of(bench), MANY, 512);
    let_pass(MANY);
    for (unsigned i = 0; i < MANY; i++)
        assert_true(hears(bench->clients[i], "Occc"));
    finish(bench);
}

/* There are never more than max_threads, and what has to wait for one is served. */
static void threads_have_a_bound(void **state)
{
    struct bench *bench = *state;
    enum { BOUND = 6, MANY = 40, TICKS = 20 };
    make(bench, (struct mkit_server_options){.max_threads = BOUND});
    start(bench);
    for (unsigned i = 0; i < MANY; i++)
        assert_true(say(client(bench), "G " WAITING));
    await(&world.inside, BOUND);
    await_ticks(bench, TICKS);
    assert_int_equal(threads_of(bench), BOUND);
    let_pass(MANY);
    for (unsigned i = 0; i < MANY; i++)
        assert_true(hears(bench->clients[i], "Occc"));
    assert_int_equal(world.most, BOUND);
    finish(bench);
}

/* Threads that are not needed any more end, and the last one serves on. */
static void threads_become_few(void **state)
{
    struct bench *bench = *state;
    enum { MANY = 32 };
    make(bench, (struct mkit_server_options){.linger = -1});
    start(bench);
    fill_gate(bench, MANY);
    let_pass(MANY);
    for (unsigned i = 0; i < MANY; i++)
        assert_true(hears(bench->clients[i], "Occc"));
    await(&world.threads, 1);
    assert_true(say(client(bench), "G") && hears(bench->clients[MANY], "Occ"));
    finish(bench);
}

/* ------------------------------------------------------------------------------------ wake-ups */

/* The worker threads that there are. Returns how many. */
static unsigned workers(pid_t tids[THREADS_MAX])
{
    lock();
    const unsigned count = world.tids_count;
    memcpy(tids, world.tids, sizeof world.tids);
    unlock();
    return count;
}

/* How often all of the server's threads have gone to sleep. */
static unsigned sleeps_of_all(const struct bench *bench)
{
    pid_t tids[THREADS_MAX];
    const unsigned count = workers(tids);
    unsigned sleeps = sleeps_of(bench->watcher);
    for (unsigned i = 0; i < count; i++)
        sleeps += sleeps_of(tids[i]);
    return sleeps;
}

/* Waits until no thread of the server wakes for a while. */
static void await_stillness(const struct bench *bench)
{
    enum { WHILE_MS = 200 };
    const struct timespec until = deadline();
    unsigned before;
    do {
        before = sleeps_of_all(bench);
        (void)poll(NULL, 0, WHILE_MS);
    } while (sleeps_of_all(bench) != before && time(NULL) < until.tv_sec);
    assert_int_equal(sleeps_of_all(bench), before);
}

enum { EVENTS = 100, FEW = 4 };

/* Wake-ups of worker threads. */
struct wakes {
    unsigned all;
    unsigned few; /* of them, those of the FEW threads that woke most often */
};

static int more_first(const void *a, const void *b)
{
    const unsigned first = *(const unsigned *)a;
    const unsigned second = *(const unsigned *)b;
    return (first < second) - (first > second);
}

/* Counts them while one connection gets replies, one after the other. */
static struct wakes count_wakes(int fd, unsigned events)
{
    struct wakes wakes = {0};
    unsigned woke[THREADS_MAX];
    pid_t tids[THREADS_MAX];
    const unsigned count = workers(tids);
    for (unsigned i = 0; i < count; i++)
        woke[i] = sleeps_of(tids[i]);
    for (unsigned i = 0; i < events; i++)
        assert_true(say(fd, "H") && hears(fd, "c"));
    for (unsigned i = 0; i < count; i++)
        woke[i] = sleeps_of(tids[i]) - woke[i];
    qsort(woke, count, sizeof *woke, more_first);
    for (unsigned i = 0; i < count; i++) {
        wakes.all += woke[i];
        wakes.few += i < FEW ? woke[i] : 0;
    }
    return wakes;
}

/* An idle server does nothing, however many threads it has; then one event wakes one of them. */
static void threads_sleep(void **state)
{
    struct bench *bench = *state;
    enum { MANY = 64 };
    make(bench, (struct mkit_server_options){.runners = 1});
    start(bench);
    fill_gate(bench, MANY);
    let_pass(MANY);
    for (unsigned i = 0; i < MANY; i++)
        assert_true(hears(bench->clients[i], "Occc"));
    await_stillness(bench);
    assert_int_in_range(threads_of(bench), MANY, MANY * 2);
    const int other = client(bench);
    assert_true(say(other, "G") && hears(other, "Occ"));
    await_stillness(bench);
    /* One for each; some more where a callback has to wait for a processor. */
    assert_int_in_range(count_wakes(other, EVENTS).all, 0, EVENTS * 7 / 4);
    finish(bench);
}

/* The same while a callback blocks for long: an event needs nobody but the thread that waits. */
static void threads_sleep_beside_a_long_call(void **state)
{
    struct bench *bench = *state;
    enum { BLOCKED = 3, ROUNDS = 3 };
    make(bench, (struct mkit_server_options){.runners = 1});
    start(bench);
    const int other = client(bench);
    assert_true(say(other, "G") && hears(other, "Occ"));
    fill_gate(bench, BLOCKED);
    unsigned wakes = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        await_stillness(bench);
        wakes += count_wakes(other, 1).all;
    }
    assert_int_in_range(wakes, 0, ROUNDS * 2 - 1);
    let_pass(BLOCKED);
    finish(bench);
}

/* While some threads are needed it is the same few, so that the others can end. */
static void threads_that_are_not_needed_sleep(void **state)
{
    struct bench *bench = *state;
    enum { MANY = 32 };
    make(bench, (struct mkit_server_options){.runners = 1});
    start(bench);
    const int other = client(bench);
    assert_true(say(other, "G") && hears(other, "Occ"));
    fill_gate(bench, MANY);
    let_pass(MANY - 1);
    await(&world.inside, 1);
    const struct wakes wakes = count_wakes(other, EVENTS);
    assert_int_in_range(wakes.few, wakes.all / 2, wakes.all);
    let_pass(1);
    finish(bench);
}

/* ------------------------------------------------------------------------------------- batches */

/* What is ready together is served between one enter_batch and one leave_batch; what is written
 * is written after it. */
static void ready_sessions_share_a_batch(void **state)
{
    struct bench *bench = *state;
    enum { MANY = 64, STEPS = 9, BATCHES = 8 };
    make(bench, (struct mkit_server_options){.max_threads = 1});
    for (unsigned i = 0; i < MANY; i++)
        assert_true(say(client(bench), "G M R T L N E"));
    world.spying = true;
    start(bench);
    for (unsigned i = 0; i < MANY; i++)
        assert_true(hears(bench->clients[i], "Occcccccc"));
    finish(bench);
    assert_int_in_range(world.callbacks, MANY * STEPS, MANY * (STEPS + 1)); /* and close */
    /* One for the messages, one for the end; more where a callback waits for a processor. */
    assert_int_in_range(world.batches, 1, BATCHES);
    assert_int_equal(world.early, 0);
}

/* ------------------------------------------------------------------------------------ fairness */

enum { PACKET = 65535, PACKET_SIZE = PACKET + 5 };

/* Sends body packets to all streams as fast as they are taken. */
static void *send_streams(void *arg)
{
    static uint8_t packet[PACKET_SIZE] = {0, 1, 0, 0, 'B'};
    struct pollfd fds[STREAMS_MAX];
    (void)arg;
    for (;;) {
        for (unsigned i = 0; i < world.streams_count; i++)
            fds[i] = (struct pollfd){.fd = world.streams[i].fd, .events = POLLOUT};
        (void)poll(fds, world.streams_count, 100);
        for (unsigned i = 0; i < world.streams_count; i++) {
            struct stream *stream = &world.streams[i];
            ssize_t sent = 0;
            if (fds[i].revents)
                sent = send(stream->fd, packet + stream->at, PACKET_SIZE - stream->at,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
            lock();
            const bool end = world.streams_end || (sent < 0 && errno != EAGAIN);
            stream->sent += sent > 0 ? (size_t)sent : 0;
            unlock();
            if (end)
                return NULL;
            stream->at = (stream->at + (sent > 0 ? (size_t)sent : 0)) % PACKET_SIZE;
        }
    }
}

/* Opens connections that always have `unread` bytes waiting when their turn is over. */
static void open_streams(struct bench *bench, unsigned count, int unread)
{
    for (unsigned i = 0; i < count; i++) {
        char hello[16];
        int room = 0;
        socklen_t len = sizeof room;
        const int fd = client_with_room(bench, unread * 2);
        assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, &len), 0);
        lock();
        world.streams[i] =
            (struct stream){.fd = fd, .unread = (size_t)(unread < room / 2 ? unread : room / 2)};
        unlock();
        (void)snprintf(hello, sizeof hello, "6:Hs%03u\\0", i);
        assert_true(say(fd, "O C") && say(fd, hello) && say(fd, "M R") && hears(fd, "Occcc"));
    }
    world.streams_count = count;
    assert_int_equal(pthread_create(&bench->sender, NULL, send_streams, NULL), 0);
    bench->sending = true;
    const struct timespec until = deadline();
    bool all;
    do {
        lock();
        all = true;
        for (unsigned i = 0; i < count; i++)
            all = all && world.streams[i].packets;
        const bool more = all || wait_for(&changed, &until);
        unlock();
        assert_true(more);
    } while (!all);
}

/* How many connections of those that read as much as they may have a turn in one batch. */
enum { FULL_TURNS = 8 };

/* With one thread and endless streams another connection has its turn after each of them has had
 * two at most: one that had begun, and one more. */
static void others_have_turns(struct bench *bench, unsigned streams, int unread)
{
    enum { HELLOS = 30, MESSAGES = 5 };
    make(bench, (struct mkit_server_options){.max_threads = 1});
    start(bench);
    const unsigned bound = 2 * (streams / FULL_TURNS + 1) + 1;
    open_streams(bench, streams, unread);
    const int other = client(bench);
    assert_true(say(other, "G") && hears(other, "Occ"));
    for (int i = 0; i < HELLOS; i++) {
        assert_true(say(other, "H"));
        lock();
        const unsigned from = world.batches;
        unlock();
        assert_true(hears(other, "c"));
        lock();
        const int turns = (int)(world.helo_batch - from);
        unlock();
        assert_true(turns <= (int)bound);
    }
    for (int i = 0; i < MESSAGES; i++)
        assert_true(say(other, "M R T L N B E") && hears(other, "cccccc"));
    finish(bench);
}

static void an_endless_body(void **state)
{
    others_have_turns(*state, 1, 768 * 1024);
}

static void a_65th_connection(void **state)
{
    others_have_turns(*state, 64, 192 * 1024);
}

/* More than a poller reports at once. */
static void a_151st_connection(void **state)
{
    others_have_turns(*state, 150, 192 * 1024);
}

/* Connections that read as much as they may have as many turns as each other. */
static void turns_are_equal(void **state)
{
    struct bench *bench = *state;
    enum { STREAMS = 20, PACKETS = 60, APART = 6 }; /* a turn is one or two packets */
    make(bench, (struct mkit_server_options){.max_threads = 1});
    start(bench);
    open_streams(bench, STREAMS, 192 * 1024);
    const struct timespec until = deadline();
    unsigned from[STREAMS];
    unsigned least;
    unsigned most;
    lock();
    for (unsigned i = 0; i < STREAMS; i++)
        from[i] = world.streams[i].packets;
    do {
        least = UINT_MAX;
        most = 0;
        for (unsigned i = 0; i < STREAMS; i++) {
            const unsigned packets = world.streams[i].packets - from[i];
            least = packets < least ? packets : least;
            most = packets > most ? packets : most;
        }
    } while (most < PACKETS && wait_for(&changed, &until));
    unlock();
    assert_int_in_range(most, PACKETS, UINT_MAX);
    assert_int_in_range(most - least, 0, APART);
    finish(bench);
}

/* Every source is reported before one of them is reported again, though all are ready. */
static void pollers_go_round(void **state)
{
    const struct bench *bench = *state;
    enum { SOURCES = 10, AT_ONCE = 4 };
    struct poller *poller = poller_open(bench->options.poller);
    assert_non_null(poller);
    int ends[SOURCES][2];
    unsigned reports[SOURCES] = {0};
    for (unsigned i = 0; i < SOURCES; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends[i]), 0);
        assert_int_equal(poller_add(poller, ends[i][0], i, POLL_READ), 0);
        assert_int_equal(write(ends[i][1], "", 1), 1);
    }
    for (unsigned total = 0; total < SOURCES * 3;) {
        struct poll_event events[AT_ONCE];
        const int count = poller_wait(poller, events, AT_ONCE, true);
        assert_int_in_range(count, 1, AT_ONCE);
        for (int i = 0; i < count; i++, total++) {
            const uint64_t id = events[i].id;
            assert_int_equal(reports[id]++, total / SOURCES);
            assert_int_equal(write(ends[id][1], "", 1), 1);
            poller_rearm(poller, ends[id][0], id);
        }
    }
    for (unsigned i = 0; i < SOURCES; i++) {
        poller_remove(poller, ends[i][0]);
        (void)close(ends[i][0]);
        (void)close(ends[i][1]);
    }
    poller_close(poller);
}

/* ----------------------------------------------------------------------------------- one thread */

/* A session changes threads from turn to turn: the one that served it is in a callback of another
 * session. `finish` asserts that two callbacks of one session never overlap. */
static void a_session_changes_threads(void **state)
{
    struct bench *bench = *state;
    enum { TURNS = 5 };
    make(bench, (struct mkit_server_options){.runners = 1});
    start(bench);
    const int wanderer = client(bench);
    assert_true(say(wanderer, "G") && hears(wanderer, "Occ"));
    pid_t served_by[TURNS];
    for (unsigned turn = 0; turn < TURNS; turn++) {
        assert_true(say(wanderer, "H") && hears(wanderer, "c"));
        served_by[turn] = last_server();
        for (unsigned i = 0; i < turn; i++)
            assert_int_not_equal(served_by[turn], served_by[i]);
        /* Until the thread that has just served it waits in another one's callback. */
        for (pid_t taken = 0; taken != served_by[turn];) {
            assert_true(say(client(bench), "G " WAITING));
            await(&world.inside, bench->clients_count - 1);
            taken = last_server();
        }
    }
    let_pass(bench->clients_count);
    finish(bench);
}

/* What arrives while a session is in a callback waits for it, though other threads are free. */
static void a_session_has_one_thread(void **state)
{
    struct bench *bench = *state;
    make(bench, (struct mkit_server_options){0});
    start(bench);
    fill_gate(bench, 1);
    assert_true(say(bench->clients[0], "R"));
    const int other = client(bench);
    for (int i = 0; i < 10; i++)
        assert_true(say(other, i ? "H" : "G") && hears(other, i ? "c" : "Occ"));
    lock();
    const unsigned seen = world.seen[MKIT_RCPT];
    unlock();
    assert_int_equal(seen, 0);
    let_pass(1);
    assert_true(hears(bench->clients[0], "Occcc"));
    finish(bench);
}

/* Many connections with a whole packet are taken from a runner that blocks, together with others in
 * the middle of large packets, for which the next runner's buffer has no room: every whole packet
 * is served while the first callback still blocks. */
static void kept_input_is_served(void **state)
{
    struct bench *bench = *state;
    enum { WHOLE = 63, PARTS = 60, PART = 64900 };
    static uint8_t part[PART] = {0, 0, 0xfd, 0xe9, 'B'}; /* of 65001 bytes */
    make(bench, (struct mkit_server_options){.runners = 2});
    assert_true(say(client(bench), "G " WAITING));
    for (unsigned i = 0; i < WHOLE; i++)
        assert_true(say(client(bench), "O"));
    for (unsigned i = 0; i < PARTS; i++)
        assert_int_equal(write(client(bench), part, PART), PART);
    start(bench);
    for (unsigned i = 1; i <= WHOLE; i++)
        assert_true(hears(bench->clients[i], "O"));
    await(&world.inside, 1);
    let_pass(1);
    finish(bench);
}

#define ON_BOTH(test)                                                                              \
    {#test " (poll)", test, set_up, tear_down, &by_poll},                                          \
    {                                                                                              \
#test " (best)", test, set_up, tear_down, &by_best                                         \
    }

int main(void)
{
    static enum mkit_poller by_poll = MKIT_POLLER_POLL;
    static enum mkit_poller by_best = MKIT_POLLER_BEST;
    assert_true(allow_files(2 * CLIENTS_MAX + 100) > CLIENTS_MAX);
    const struct CMUnitTest tests[] = {
        ON_BOTH(threads_follow_the_need),
        ON_BOTH(threads_have_a_bound),
        ON_BOTH(threads_become_few),
        ON_BOTH(threads_sleep),
        ON_BOTH(threads_sleep_beside_a_long_call),
        ON_BOTH(threads_that_are_not_needed_sleep),
        ON_BOTH(ready_sessions_share_a_batch),
        ON_BOTH(an_endless_body),
        ON_BOTH(a_65th_connection),
        ON_BOTH(a_151st_connection),
        ON_BOTH(turns_are_equal),
        ON_BOTH(pollers_go_round),
        ON_BOTH(a_session_changes_threads),
        ON_BOTH(a_session_has_one_thread),
        ON_BOTH(kept_input_is_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
