/* The scheduler on real servers: nothing is forgotten under load that is made at random, what the
 * server learns of callbacks, and what may block without holding up others. The test looks at the
 * server's inside. Nothing here depends on how long anything takes. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "procfs.h"
#include "rig.h"
#include "scene.h"
#include "session/session.h"

#define WAITING "10:M<wait>\\0x\\0"

/* ---------------------------------------------------------------------------------- the rules */

/* Whether a session that nobody serves has something that it could be asked about. */
static bool has_packet(const struct mkit_session *session)
{
    struct mkit_packet packet;
    size_t need;
    return session->todo_len || session->in_len ||
           mkit_frame_read(session->partial.at + session->partial_from,
                           session->partial.len - session->partial_from, session->limits.packet,
                           &packet, &need) != 0;
}

static const char *conn_wrong(const struct conn *conn)
{
    if (conn->status != CONN_IDLE)
        return NULL;
    if (conn->blocked != conn->waits_to_write)
        return "an idle connection does not wait for what holds it up";
    if (!conn->blocked && (conn->more || conn->ending))
        return "an idle connection was to have a turn";
    return !conn->blocked && has_packet(conn->session) ? "a whole packet was forgotten" : NULL;
}

static const char *conns_wrong(const struct mkit_server *server)
{
    unsigned ready = 0;
    for (int fd = 0; fd < server->conns_size; fd++) {
        const struct conn *conn = server->conns[fd];
        const char *wrong = conn ? conn_wrong(conn) : NULL;
        if (wrong)
            return wrong;
        ready += conn && conn->status == CONN_READY;
    }
    unsigned queued = 0;
    const struct conn *conn = server->ready_first;
    for (; conn && queued <= ready; conn = conn->next_ready, queued++)
        if (conn->status != CONN_READY)
            return "a connection is in the ready queue and not ready";
    return queued != ready || ready != server->ready_count ? "the ready queue is not what is ready"
                                                           : NULL;
}

static const char *runners_wrong(const struct mkit_server *server)
{
    unsigned active = 0;
    unsigned aside = 0;
    unsigned threads = 0;
    for (const struct runner *runner = server->runners; runner; runner = runner->next) {
        active += runner->active;
        aside += atomic_load(&runner->aside);
        threads += !runner->ended;
    }
    return active != server->active                ? "active is wrong"
           : aside != server->aside                ? "aside is wrong"
           : threads != server->threads            ? "threads is wrong"
           : server->rising > active               ? "rising is wrong"
           : threads > server->options.max_threads ? "there are too many threads"
                                                   : NULL;
}

/* Looks again and again whether the server keeps the rules. */
struct checker {
    struct mkit_server *server;
    pthread_t thread;
    atomic_bool ends;
    atomic_bool found;
    const char *wrong; /* that was found */
    unsigned looks;
};

static void *check(void *arg)
{
    struct checker *checker = arg;
    while (!checker->wrong && !atomic_load(&checker->ends)) {
        (void)pthread_mutex_lock(&checker->server->lock);
        checker->wrong = conns_wrong(checker->server);
        if (!checker->wrong)
            checker->wrong = runners_wrong(checker->server);
        (void)pthread_mutex_unlock(&checker->server->lock);
        atomic_store(&checker->found, checker->wrong != NULL);
        checker->looks++;
        (void)usleep(100);
    }
    return NULL;
}

/* --------------------------------------------------------------------------------------- load */

enum { MTAS = 120, MESSAGES = 150, REPLIES = 7, REPLY = 5, BIG = 1 << 17, PAUSE_US = 4000 };

/* What a burst consists of, beside small messages: most of large bodies, or what is around them. */
enum { BODIES, OTHERS, BURSTS };

enum { END = 5, BODY_AND_END = 4 + 65001 + END };

/* An MTA that sends messages in pieces, and reads replies when it likes. */
struct mta {
    int fd;
    bool big;          /* its packets are large */
    unsigned messages; /* begun */
    uint8_t bytes[BIG];
    size_t len, at;
    size_t heard; /* bytes */
};

static unsigned chance(void)
{
    static unsigned value = 1;
    value = value * 1664525 + 1013904223;
    return value >> 8;
}

/* Sends what is next: all or a part of a message; of a large one its head, most of its body or the
 * rest, if that is what the burst consists of. */
static void send_some(struct mta *mta, unsigned burst)
{
    static const struct rig none;
    if (mta->at == mta->len) {
        if (mta->messages == MESSAGES)
            return;
        mta->len = rig_bytes(&none, mta->big ? "M R T L N big:B65000 E" : "M R T L N B E", false,
                             mta->bytes, sizeof mta->bytes);
        mta->at = 0;
        mta->messages++;
    }
    const size_t body = mta->len - BODY_AND_END;
    const size_t left = mta->len - mta->at;
    size_t most = chance() % 4 ? left : 1 + chance() % left;
    if (mta->big && mta->at < body)
        most = burst == OTHERS ? body - mta->at : 0;
    else if (mta->big && mta->at == body)
        most = burst == BODIES ? left - (1 + END) - chance() % 1000 : 0;
    else if (mta->big)
        most = burst == OTHERS ? left : 0;
    const ssize_t sent = send(mta->fd, mta->bytes + mta->at, most, MSG_NOSIGNAL | MSG_DONTWAIT);
    mta->at += sent > 0 ? (size_t)sent : 0;
}

static void hear_some(struct mta *mta)
{
    char bytes[256];
    const ssize_t got = recv(mta->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    mta->heard += got > 0 ? (size_t)got : 0;
}

/* Lets all of them go on at random until each has all its replies. While the server's lock is held
 * nothing is taken from the poller: what a burst sends comes to the runners together. Returns how
 * many bytes they lack at the end. */
static size_t run_mtas(struct mta *mtas, struct checker *checker)
{
    const size_t all = (size_t)MTAS * MESSAGES * REPLIES * REPLY;
    const time_t until = time(NULL) + 2 * DEADLINE_S;
    size_t heard = 0;
    while (heard < all && !atomic_load(&checker->found) && time(NULL) < until) {
        (void)pthread_mutex_lock(&checker->server->lock);
        const unsigned burst = chance() % BURSTS;
        for (unsigned i = 0; i < MTAS; i++)
            if (chance() % 16)
                send_some(&mtas[i], burst);
        (void)pthread_mutex_unlock(&checker->server->lock);
        (void)usleep(chance() % PAUSE_US);
        heard = 0;
        for (unsigned i = 0; i < MTAS; i++) {
            if (chance() % 4 || mtas[i].messages == MESSAGES)
                hear_some(&mtas[i]);
            heard += mtas[i].heard;
        }
    }
    return all - heard;
}

/* Whole and partial packets of many connections, callbacks that sleep now and then: at each moment
 * the server keeps the rules, and at the end every packet has its reply. */
static void nothing_is_forgotten(void **state)
{
    struct scene *scene = *state;
    static struct mta mtas[MTAS];
    memset(mtas, 0, sizeof mtas);
    scene_make(scene, (struct mkit_server_options){.max_threads = 12}, true);
    scene_start(scene);
    for (unsigned i = 0; i < MTAS; i++) {
        mtas[i] = (struct mta){.fd = scene_client(scene), .big = i >= MTAS / 2};
        assert_true(say(mtas[i].fd, "G") && hears(mtas[i].fd, "Occ"));
    }
    atomic_store(&seen.at_random, true);
    struct checker checker = {.server = scene->server};
    assert_int_equal(pthread_create(&checker.thread, NULL, check, &checker), 0);
    const size_t missing = run_mtas(mtas, &checker);
    atomic_store(&checker.ends, true);
    assert_int_equal(pthread_join(checker.thread, NULL), 0);
    assert_string_equal(checker.wrong ? checker.wrong : "", "");
    assert_int_equal(missing, 0);
    print_message("%u looks\n", checker.looks);
    mkit_server_abort(scene->server);
    scene_join(scene);
    assert_int_equal(atomic_load(&seen.steps[MKIT_EOM]), MTAS * MESSAGES);
}

/* ----------------------------------------------------------------------------------- learning */

enum { CALLS = 400 }; /* within so many a habit is learned, and left */

static bool waits_at_mail(const struct scene *scene)
{
    return habit_waits(&scene->server->habits[MKIT_MAIL]);
}

/* One MAIL after the other, until it is known to wait, or not to. */
static void learn(const struct scene *scene, int fd, const char *mail, bool waits)
{
    for (unsigned i = 0; i < CALLS && waits_at_mail(scene) != waits; i++)
        assert_true(say(fd, mail) && hears(fd, "c"));
    assert_int_equal(waits_at_mail(scene), waits);
}

/* The watcher, held where it can do nothing: in a signal handler, without a lock. */
static struct {
    int reached[2];
    int leave[2];
} held;

static void hold(int signal)
{
    struct pollfd leave = {.fd = held.leave[0], .events = POLLIN};
    const int saved = errno;
    (void)signal;
    (void)!write(held.reached[1], "", 1);
    (void)poll(&leave, 1, (DEADLINE_S + 1) * 1000); /* the test has failed by then */
    (void)!write(held.reached[1], "", 1);
    errno = saved;
}

static void hold_watcher(const struct scene *scene)
{
    char byte;
    const struct sigaction action = {.sa_handler = hold};
    assert_int_equal(pipe2(held.reached, O_CLOEXEC) | pipe2(held.leave, O_CLOEXEC), 0);
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    (void)pthread_mutex_lock(&scene->server->lock); /* so that the watcher does not have it */
    const int error = pthread_kill(scene->thread, SIGUSR1);
    const ssize_t got = error ? -1 : read(held.reached[0], &byte, 1);
    (void)pthread_mutex_unlock(&scene->server->lock);
    assert_int_equal(got, 1);
}

static void release_watcher(void)
{
    char byte;
    assert_int_equal(write(held.leave[1], "", 1), 1);
    assert_int_equal(read(held.reached[0], &byte, 1), 1);
    for (int i = 0; i < 2; i++) {
        (void)close(held.reached[i]);
        (void)close(held.leave[i]);
    }
}

static unsigned aside_of(struct scene *scene)
{
    (void)pthread_mutex_lock(&scene->server->lock);
    const unsigned aside = scene->server->aside;
    (void)pthread_mutex_unlock(&scene->server->lock);
    return aside;
}

/* A step that waits is known after some calls. Then many are inside at once, none before it has let
 * the next one begin, without the watcher. Afterwards the threads end, and the step is known to be
 * quick after some quick calls. */
static void waiting_is_learned(void **state)
{
    struct scene *scene = *state;
    enum { MANY = 40 };
    scene_make(scene, (struct mkit_server_options){.linger = -1}, true);
    scene_start(scene);
    const int first = scene_client(scene);
    assert_true(say(first, "G") && hears(first, "Occ"));
    for (unsigned i = 0; i < MANY; i++) {
        const int fd = scene_client(scene);
        assert_true(say(fd, "G") && hears(fd, "Occ"));
    }
    assert_false(waits_at_mail(scene));
    learn(scene, first, "9:M<nap>\\0x\\0", true);
    hold_watcher(scene);
    for (unsigned i = 1; i <= MANY; i++)
        assert_true(say(scene->clients[i], WAITING));
    scene_await(&seen.inside, MANY);
    assert_int_equal(aside_of(scene), MANY);
    release_watcher();
    scene_pass(MANY);
    for (unsigned i = 1; i <= MANY; i++)
        assert_true(hears(scene->clients[i], "c"));
    scene_await_that(aside_of, scene, 0);
    scene_await_that(scene_threads, scene, 1);
    learn(scene, first, "M", false);
    mkit_server_abort(scene->server);
    scene_join(scene);
    assert_int_equal(atomic_load(&seen.threads), 0);
}

static void *be_busy(void *arg)
{
    const atomic_bool *ends = arg;
    while (!atomic_load(ends))
        ;
    return NULL;
}

/* Callbacks that compute are never taken for such that wait, however long they have to wait for a
 * processor: beside the one that computes there is one runner more. */
static void compute(struct scene *scene, unsigned busy)
{
    enum { MANY = 16, EACH = 6, BUSY = 2 };
    pthread_t threads[BUSY];
    atomic_bool ends = false;
    bool waited = false;
    scene_make(scene, (struct mkit_server_options){0}, true);
    scene_start(scene);
    for (unsigned i = 0; i < busy; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, be_busy, &ends), 0);
    for (unsigned i = 0; i < MANY; i++)
        assert_true(say(scene_client(scene), "G"));
    for (unsigned i = 0; i < MANY; i++)
        assert_true(hears(scene->clients[i], "Occ"));
    for (unsigned turn = 0; turn < EACH; turn++) {
        for (unsigned i = 0; i < MANY; i++)
            assert_true(say(scene->clients[i], "10:M<spin>\\0x\\0"));
        for (unsigned i = 0; i < MANY; i++) {
            assert_true(hears(scene->clients[i], "c"));
            waited = waited || waits_at_mail(scene);
        }
    }
    atomic_store(&ends, true);
    for (unsigned i = 0; i < busy; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_false(waited);
    assert_int_in_range(atomic_load(&seen.started), 1, 2);
    mkit_server_abort(scene->server);
    scene_join(scene);
}

static void computing_is_not_waiting(void **state)
{
    compute(*state, 0);
}

static void computing_is_not_waiting_on_a_busy_machine(void **state)
{
    compute(*state, 2);
}

/* ------------------------------------------------------------------------------- what may block */

/* A line for the log that does not return holds up no other connection, though there may be one
 * thread only. */
static void a_log_that_blocks(void **state)
{
    struct scene *scene = *state;
    scene_make(scene, (struct mkit_server_options){.max_threads = 1}, true);
    const int logging = scene_client(scene);
    const int other = scene_client(scene);
    scene_start(scene);
    assert_true(say(logging, "G") && hears(logging, "Occ"));
    atomic_store(&seen.hold_log, true);
    assert_true(say(logging, "R")); /* out of order */
    scene_await(&seen.logging, 1);
    assert_true(say(other, "G") && hears(other, "Occ"));
    for (unsigned i = 0; i < 3; i++)
        assert_true(say(other, "M R T L N E") && hears(other, "cccccc"));
    assert_int_equal(atomic_load(&seen.logging), 1);
    scene_pass(1);
    assert_true(say(logging, "M") && hears(logging, "c"));
    mkit_server_abort(scene->server);
    scene_join(scene);
}

static int poke(void *arg)
{
    (void)arg;
    scene_wait();
    return 0;
}

/* A poke that does not return holds up nothing: progress is sent, others are served. */
static void a_poke_that_blocks(void **state)
{
    struct scene *scene = *state;
    enum { INTERVAL_MS = 10 };
    scene_make(scene, (struct mkit_server_options){.progress = INTERVAL_MS}, true);
    scene->poke = poke;
    const int fd = scene_client(scene);
    const int other = scene_client(scene);
    scene_start(scene);
    assert_int_equal(write(mkit_server_poke_fd(scene->server), "", 1), 1);
    scene_await(&seen.inside, 1);
    atomic_store(&seen.hold_eom, true);
    assert_true(say(fd, "G M R T L N") && hears(fd, "Occccccc"));
    assert_true(say(fd, "E") && hears(fd, "ppp"));
    assert_true(say(other, "G M") && hears(other, "Occc"));
    assert_int_equal(atomic_load(&seen.inside), 2);
    scene_pass(2);
    char letter = 'p';
    while (letter == 'p')
        assert_true(hear(fd, &letter));
    assert_int_equal(letter, 'c');
    mkit_server_abort(scene->server);
    scene_join(scene);
}

int main(void)
{
    static enum mkit_poller by_poll = MKIT_POLLER_POLL;
    static enum mkit_poller by_best = MKIT_POLLER_BEST;
    assert_true(allow_files(2 * SCENE_CLIENTS + 100) > SCENE_CLIENTS);
    const struct CMUnitTest tests[] = {
        SCENE_ON_BOTH(nothing_is_forgotten),
        SCENE_ON_BOTH(waiting_is_learned),
        SCENE_ON_BOTH(computing_is_not_waiting),
        SCENE_ON_BOTH(computing_is_not_waiting_on_a_busy_machine),
        SCENE_ON_BOTH(a_log_that_blocks),
        SCENE_ON_BOTH(a_poke_that_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
