/* A server whose system fails it, and whose clocks jump: it serves what it can, says so at most
 * once a second, ends what it cannot serve so that the MTA falls back to its default action, and
 * leaks nothing. Nothing here waits for time to pass but for the server's own pause of 200 ms. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "rig.h"
#include "stage.h"

#define MESSAGE         "M R T L N B E"
#define MESSAGE_REPLIES "ccccccc"

static const struct mkit_server_options plain = {0};

static void make(struct stage *stage, struct mkit_server_options options)
{
    assert_int_equal(stage_make(stage, options), 0);
    assert_true(stage_start(stage));
}

static bool is_served(int fd)
{
    return say(fd, "G " MESSAGE) && hears(fd, "Occ" MESSAGE_REPLIES);
}

/* ------------------------------------------------------------------------------------- memory */

/* A connection of its own. Whether it got all its replies. */
static bool one_session(const struct stage *stage)
{
    const int fd = client_connect(stage->path);
    const bool served = fd >= 0 && is_served(fd) && say(fd, "Q") && hears_end(fd);
    (void)close(fd);
    return served;
}

/* Returns whether the server, or a message, failed. */
static bool life_of_a_server(struct stage *stage)
{
    if (stage_make(stage, plain) != 0) {
        if (stage->server)
            assert_non_null(strstr(mkit_server_why(stage->server), "no memory"));
        return true;
    }
    if (!stage_start(stage)) {
        stage_join(stage);
        assert_int_not_equal(stage->result, 0);
        assert_true(strlen(stage->why) > 0);
        return true;
    }
    const bool first = one_session(stage);
    const bool second = one_session(stage);
    assert_true(first || second); /* it serves on */
    stage_stop(stage);
    return !first || !second;
}

static void every_allocation_fails_in_turn(void **state)
{
    struct stage *stage = *state;
    unsigned runs = 0;
    unsigned failures = 0;
    for (unsigned failing = 1;; failing++, runs++) {
        faults_reset();
        faults_at(FAULT_MEMORY, failing, 1, ENOMEM);
        const bool told = life_of_a_server(stage);
        const bool failed = faults_failed(FAULT_MEMORY) > 0;
        assert_true(failed || !told);
        failures += told;
        stage_free(stage);
        assert_int_equal(faults_alive(), 0);
        if (!failed)
            break;
    }
    assert_int_in_range(runs, 10, 200);
    assert_int_in_range(failures, 5, runs);
}

/* --------------------------------------------------------------------------- connections, threads
 */

static const char cannot_accept[] = "cannot accept connections, trying again: ";

/* Whatever the system says, a client that waits is served in the end. */
static void accepting_fails(void **state)
{
    static const int errors[] = {EMFILE, ENFILE, ENOMEM, ENOBUFS, ECONNABORTED, EINTR};
    struct stage *stage = *state;
    make(stage, plain);
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        faults_at(FAULT_ACCEPT, 1, 1, errors[i]);
        assert_true(is_served(stage_client(stage)));
        assert_int_equal(faults_failed(FAULT_ACCEPT), 1);
    }
    stage_stop(stage);
    assert_int_equal(stage_told(cannot_accept), 4); /* the last two are no refusals */
}

/* A connection that cannot be watched is closed at once, so that its MTA need not wait. */
static void watching_fails(void **state)
{
    struct stage *stage = *state;
    make(stage, plain);
    assert_true(is_served(stage_client(stage)));
    for (int i = 0; i < 3; i++) {
        faults_at(FAULT_WATCH, 1, 1, i % 2 ? ENOMEM : ENOSPC);
        assert_true(hears_end(stage_client(stage)));
        assert_true(is_served(stage_client(stage)));
    }
    stage_stop(stage);
    assert_int_equal(stage_told("cannot serve a connection: closed it: "), 3);
}

static const char no_thread[] = "cannot start a thread: ";

static void no_thread_at_all(void **state)
{
    struct stage *stage = *state;
    faults_at(FAULT_THREAD, 1, 1, EAGAIN);
    assert_int_equal(stage_make(stage, plain), 0);
    assert_false(stage_start(stage));
    stage_join(stage);
    assert_int_equal(stage->result, MKIT_ETHREAD);
    assert_non_null(strstr(stage->why, "cannot start a thread"));
    assert_true(stage_start(stage)); /* it may be tried again */
    assert_true(is_served(stage_client(stage)));
    stage_stop(stage);
}

static bool has_tried_threads(unsigned count)
{
    return faults_failed(FAULT_THREAD) >= count;
}

/* The server goes on with the threads it has, tries again five times a second, and says so once. */
static void threads_fail(void **state)
{
    enum { TRIES = 6 };
    struct stage *stage = *state;
    faults_stop_clock();
    make(stage, (struct mkit_server_options){.runners = 1});
    const int blocked = stage_client(stage);
    const int waiting = stage_client(stage);
    assert_true(say(blocked, "G") && hears(blocked, "Occ"));
    assert_true(say(waiting, "G") && hears(waiting, "Occ"));
    faults_at(FAULT_THREAD, 1, UINT_MAX, EAGAIN);
    assert_true(say(blocked, "10:M<wait>\\0x\\0"));
    stage_await_gate(1);
    assert_true(say(waiting, "M"));
    for (unsigned tries = 1;; tries++) {
        stage_await(has_tried_threads, tries);
        stage_await_watcher(stage);
        assert_int_equal(faults_failed(FAULT_THREAD),
                         tries); /* no other before the pause is over */
        if (tries == TRIES)
            break;
        faults_move_clock(200);
    }
    stage_open_gate();
    assert_true(hears(blocked, "c") && hears(waiting, "c"));
    assert_true(say(blocked, "R T L N B E") && hears(blocked, "cccccc"));
    assert_true(say(waiting, "R T L N B E") && hears(waiting, "cccccc"));
    assert_int_equal(stage_lines(no_thread), 1);
    assert_int_equal(stage_told(no_thread), TRIES);
    stage_stop(stage);
}

/* Many callbacks block at once, all threads but one end again, and then none can be had while the
 * end brings work for several. Returns how often one was tried for. */
static unsigned rush(struct stage *stage)
{
    enum { CLIENTS = 60 };
    int clients[CLIENTS];
    faults_reset();
    faults_stop_clock();
    faults_move_clock(-60000); /* threads that wait for work have waited long enough */
    account.gate_open = false;
    account.at_gate = 0;
    faults_at(FAULT_THREAD, CLIENTS / 2, 1, EAGAIN); /* told now, the next one is not */
    make(stage, (struct mkit_server_options){.runners = 1});
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = client_connect(stage->path);
        assert_true(say(clients[i], "G 10:M<wait>\\0x\\0"));
    }
    stage_await(has_tried_threads, 1);
    stage_await_watcher(stage); /* the pause has begun */
    faults_move_clock(200);
    stage_await_gate(CLIENTS);
    stage_open_gate();
    for (int i = 0; i < CLIENTS; i++)
        assert_true(hears(clients[i], "Occc") && say(clients[i], "A H") && hears(clients[i], "c"));
    faults_at(FAULT_THREAD, 1, UINT_MAX, EAGAIN);
    stage_stop(stage);
    for (int i = 0; i < CLIENTS; i++)
        (void)close(clients[i]);
    stage_free(stage);
    return faults_failed(FAULT_THREAD);
}

/* The one that is left sees to it, and tries no more often than five times a second: the clock
 * stands. */
static void threads_fail_after_a_rush(void **state)
{
    assert_int_in_range(rush(*state), 0, 1);
}

/* -------------------------------------------------------------------------------------- limits */

static const char full[] = "the limit of 1 connection is reached: closed a new one";

/* Each refusal is told, in one line a second. */
static void too_many_connections(void **state)
{
    enum { REFUSED = 20 };
    struct stage *stage = *state;
    faults_stop_clock();
    make(stage, (struct mkit_server_options){.max_connections = 1});
    assert_true(is_served(stage_client(stage)));
    for (int i = 0; i < REFUSED; i++)
        assert_true(hears_end(stage_client(stage)));
    stage_await_watcher(stage);
    assert_int_equal(stage_lines(full), 1);
    faults_move_clock(999);
    stage_await_watcher(stage);
    assert_true(say(stage->clients[0], "M") && hears(stage->clients[0], "c"));
    assert_int_equal(stage_lines(full), 1);
    faults_move_clock(1);
    stage_await_watcher(stage);
    assert_true(say(stage->clients[0], "A M") && hears(stage->clients[0], "c"));
    assert_int_equal(stage_lines(full), 2);
    assert_int_equal(stage_told(full), REFUSED);
    assert_true(hears_end(stage_client(stage))); /* told at the end, however early that comes */
    assert_true(say(stage->clients[0], "A Q") && hears_end(stage->clients[0]));
    stage_stop(stage);
    struct mkit_server_stats stats;
    mkit_server_get_stats(stage->server, &stats);
    assert_int_equal(stats.refused, REFUSED + 1);
    assert_int_equal(stage_told(full), REFUSED + 1);
}

/* A log that takes its time holds up nobody. */
static void a_log_that_blocks(void **state)
{
    struct stage *stage = *state;
    make(stage, (struct mkit_server_options){.max_connections = 2, .runners = 1});
    const int first = stage_client(stage);
    const int second = stage_client(stage);
    assert_true(say(first, "G") && hears(first, "Occ"));
    assert_true(say(second, "G") && hears(second, "Occ"));
    (void)pthread_mutex_lock(&account.lock);
    account.log_helos = 3;
    (void)pthread_mutex_unlock(&account.lock);
    assert_true(hears_end(stage_client(stage)));
    stage_await_told("the limit of 2", 1);
    assert_true(say(first, MESSAGE) && hears(first, MESSAGE_REPLIES));
    assert_true(say(second, "H") && hears(second, "c")); /* lets the line end */
    stage_stop(stage);
}

static uint64_t sent_bytes;

static bool has_received(unsigned more)
{
    return faults_received() >= sent_bytes + more;
}

/* One byte a turn: nobody else waits for it, and a byte a second is no silence. */
static void one_byte_a_second(void **state)
{
    struct stage *stage = *state;
    faults_stop_clock();
    make(stage, (struct mkit_server_options){.timeout = 2, .runners = 1});
    const int slow = stage_client(stage);
    const int other = stage_client(stage);
    assert_true(say(other, "G") && hears(other, "Occ"));
    uint8_t bytes[1 << 12];
    static const struct rig none;
    const size_t len = rig_bytes(&none, "G " MESSAGE " Q", false, bytes, sizeof bytes);
    const unsigned before = faults_calls(FAULT_RECV);
    for (size_t i = 0; i < len; i++) {
        sent_bytes = faults_received();
        assert_int_equal(send(slow, bytes + i, 1, MSG_NOSIGNAL), 1);
        stage_await(has_received, 1);
        assert_true(say(other, "H") && hears(other, "c"));
        faults_move_clock(1000);
        stage_await_watcher(stage);
    }
    assert_true(hears(slow, "Occ" MESSAGE_REPLIES) && hears_end(slow));
    assert_int_in_range(faults_calls(FAULT_RECV) - before, len, 4 * len + 8); /* no busy reading */
    assert_int_equal(stage_lines("the MTA was silent"), 0);
    stage_stop(stage);
}

static const char silent_10[] = "the MTA was silent for 10 s: closed";

/* What it may send before the server stops reading from it is bounded; it holds up nobody, and ends
 * when its time is over. */
static void a_peer_that_never_reads(void **state)
{
    struct stage *stage = *state;
    faults_stop_clock();
    make(stage, (struct mkit_server_options){.timeout = 10, .runners = 1});
    const int deaf = stage_client(stage);
    assert_true(say(deaf, "G") && hears(deaf, "Occ"));
    uint8_t helos[7 * 4096];
    for (size_t at = 0; at < sizeof helos; at += 7)
        memcpy(helos + at, "\0\0\0\3Hx", 7);
    const struct timeval moment = {.tv_usec = 200000};
    assert_int_equal(setsockopt(deaf, SOL_SOCKET, SO_SNDTIMEO, &moment, sizeof moment), 0);
    size_t taken = 0;
    ssize_t sent;
    while ((sent = send(deaf, helos, sizeof helos, MSG_NOSIGNAL)) > 0 && taken < 1 << 26)
        taken += (size_t)sent;
    assert_int_in_range(taken, 1, 4 << 20);
    const int other = stage_client(stage);
    assert_true(is_served(other));
    for (int i = 0; i < 1000 && !stage_told(silent_10); i++) { /* it may have read until now */
        faults_move_clock(6000);
        assert_true(say(other, "H") && hears(other, "c"));
        stage_await_watcher(stage);
    }
    assert_int_equal(stage_told(silent_10), 1);
    assert_true(say(other, "H") && hears(other, "c"));
    stage_stop(stage);
    assert_int_equal(stage_told("the MTA was silent"), 1);
}

/* What the system does to a read or a write. What ends a connection tells the filter so; the MTA
 * sees it closed instead of waiting for an answer. */
static void reading_and_writing_fail(void **state)
{
    static const struct {
        enum fault what;
        int error;
        bool ends;
    } cases[] = {
        {FAULT_RECV, EINTR, false},  {FAULT_RECV, ECONNRESET, true}, {FAULT_RECV, ETIMEDOUT, true},
        {FAULT_RECV, ENOMEM, true},  {FAULT_SEND, EINTR, false},     {FAULT_SEND, EAGAIN, false},
        {FAULT_SEND, ENOBUFS, true}, {FAULT_SEND, ENOMEM, true},     {FAULT_SEND, ETIMEDOUT, true},
    };
    struct stage *stage = *state;
    unsigned ended = 0;
    make(stage, plain);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int fd = stage_client(stage);
        assert_true(say(fd, "G M") && hears(fd, "Occc"));
        faults_at(cases[i].what, 1, 1, cases[i].error);
        assert_true(say(fd, "R"));
        if (cases[i].ends)
            assert_true(hears_end(fd));
        else
            assert_true(hears(fd, "c") && say(fd, "T L N B E") && hears(fd, "ccccc"));
        ended += cases[i].ends;
        assert_int_equal(faults_failed(cases[i].what), 1);
    }
    stage_stop(stage);
    assert_int_equal(account.seen[MKIT_ABORT], ended);
}

/* -------------------------------------------------------------------------------------- clocks */

enum { DAY = 86400 };

/* The wall's clock may be set to anything: nobody asks it. */
static void the_wall_clock_jumps(void **state)
{
    struct stage *stage = *state;
    faults_stop_clock();
    make(stage, (struct mkit_server_options){.timeout = 10});
    const int idle = stage_client(stage);
    const int open = stage_client(stage);
    assert_true(say(idle, "G") && hears(idle, "Occ"));
    assert_true(say(open, "G M") && hears(open, "Occc"));
    static const int64_t jumps[] = {DAY, -2 * DAY};
    for (int i = 0; i < 2; i++) {
        faults_jump_wall(jumps[i]);
        faults_move_clock(5000); /* it looks for silence again */
        stage_await_watcher(stage);
        assert_true(say(idle, "H") && hears(idle, "c"));
        assert_true(say(open, "R") && hears(open, "c"));
    }
    assert_true(say(open, "T L N B E") && hears(open, "ccccc"));
    assert_int_equal(faults_wall_reads(), 0);
    stage_stop(stage);
    assert_int_equal(account.seen[MKIT_ABORT], 0);
}

/* The process stood still for hours, or the machine did and its clock went on. What has arrived
 * meanwhile counts; who is silent still was silent for all that time. */
static void the_other_clock_leaps(void **state)
{
    struct stage *stage = *state;
    faults_stop_clock();
    make(stage, (struct mkit_server_options){.timeout = 10});
    const int silent = stage_client(stage);
    const int open = stage_client(stage);
    assert_true(say(silent, "G M") && hears(silent, "Occc"));
    assert_true(say(open, "G M") && hears(open, "Occc"));
    faults_hold_poller(true);
    assert_true(say(open, "R"));
    faults_move_clock(3 * 3600 * 1000);
    stage_await_watcher(stage);
    faults_hold_poller(false);
    assert_true(hears(open, "c") && hears_end(silent));
    assert_true(say(open, "T L N B E") && hears(open, "ccccc"));
    stage_stop(stage);
    assert_int_equal(account.seen[MKIT_ABORT], 1);
    assert_int_equal(stage_told("the MTA was silent"), 1);
}

/* ---------------------------------------------------------------------------------- its errors */

static void *fail_often(void *arg)
{
    struct stage *stage = arg;
    static atomic_int threads;
    char spec[32];
    char expected[64];
    (void)snprintf(spec, sizeof spec, "nonsense%d:x", atomic_fetch_add(&threads, 1));
    (void)snprintf(expected, sizeof expected, "socket specification \"%s\": ", spec);
    unsigned wrong = 0;
    for (int i = 0; i < 2000; i++) {
        wrong += mkit_server_listen(stage->server, spec, NULL) != MKIT_ESPEC;
        const char *why = mkit_server_why(stage->server);
        wrong += strncmp(why, expected, strlen(expected)) != 0;
    }
    return wrong ? arg : NULL;
}

/* Each thread is told of its own failure. */
static void several_threads_fail(void **state)
{
    struct stage *stage = *state;
    make(stage, plain);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fail_often, stage), 0);
    unsigned wrong = 0;
    for (int i = 0; i < 2; i++) {
        void *result;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        wrong += result != NULL;
    }
    assert_int_equal(wrong, 0);
    assert_string_equal(mkit_server_why(stage->server), ""); /* nothing failed here */
    stage_stop(stage);
}

#define ON_BOTH(test)                                                                              \
    {#test " (poll)", test, stage_set_up, stage_tear_down, &by_poll},                              \
    {                                                                                              \
#test " (best)", test, stage_set_up, stage_tear_down, &by_best                             \
    }

int main(void)
{
    static enum mkit_poller by_poll = MKIT_POLLER_POLL;
    static enum mkit_poller by_best = MKIT_POLLER_BEST;
    const struct CMUnitTest tests[] = {
        ON_BOTH(every_allocation_fails_in_turn),
        ON_BOTH(accepting_fails),
#ifdef MKIT_HAVE_EPOLL
        {"watching_fails", watching_fails, stage_set_up, stage_tear_down, &by_best},
#endif
        ON_BOTH(no_thread_at_all),
        ON_BOTH(threads_fail),
        ON_BOTH(threads_fail_after_a_rush),
        ON_BOTH(too_many_connections),
        ON_BOTH(a_log_that_blocks),
        ON_BOTH(one_byte_a_second),
        ON_BOTH(a_peer_that_never_reads),
        ON_BOTH(reading_and_writing_fail),
        ON_BOTH(the_wall_clock_jumps),
        ON_BOTH(the_other_clock_leaps),
        ON_BOTH(several_threads_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
