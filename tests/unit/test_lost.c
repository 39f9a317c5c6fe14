/* No message is lost: what an MTA got a verdict for, the filter has seen whole; what it got none
 * for is the MTA's to decide. Peers that are killed at every step, and a system that fails by
 * chance. The filter keeps a digest of each message at its end; so does the peer. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "rig.h"
#include "stage.h"
#include "wire/bytes.h"

/* ------------------------------------------------------------------------------- killed peers */

/* The steps of a connection with the replies that are awaited after each, and what is in the air
 * when the peer is killed in the middle of the next one. */
static const struct {
    const char *say;
    const char *hear;
} steps[] = {
    {"O", "O"}, {"C", "c"}, {"H", "c"}, {"M", "c"}, {"R", "c"},           {"T", "c"},
    {"L", "c"}, {"N", "c"}, {"B", "c"}, {"E", "c"}, {"7:M<a@b>\\0", "c"}, {"A", ""},
    {"U", "c"}, {"M", "c"}, {"K", ""},  {"C", "c"},
};

enum {
    STEPS = sizeof steps / sizeof *steps,
    AND_AGAIN = 15 /* steps until another connection begins in its place */
};

/* How a peer takes its leave after a number of steps. */
enum leave { ANSWERED, UNANSWERED, IN_MID_PACKET, LEAVES };

/* Never returns. */
static void be_killed(const struct stage *stage, int count, enum leave leave)
{
    const int fd = client_connect(stage->path);
    bool fine = fd >= 0;
    for (int i = 0; i < count && fine; i++) {
        const bool last = i == count - 1;
        fine = say(fd, steps[i].say) && ((last && leave == UNANSWERED) || hears(fd, steps[i].hear));
    }
    if (leave == IN_MID_PACKET)
        fine = fine && say(fd, "hex:000000074d3c61"); /* a MAIL that breaks off */
    if (fine)
        (void)raise(SIGKILL);
    _exit(1);
}

static void kill_one(const struct stage *stage, int count, enum leave leave)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        be_killed(stage, count, leave);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static struct mkit_server *served;

static bool all_ended(unsigned accepted)
{
    struct mkit_server_stats stats;
    mkit_server_get_stats(served, &stats);
    return stats.open == 0 && stats.accepted == accepted;
}

static void killed_at_every_step(void **state)
{
    struct stage *stage = *state;
    assert_int_equal(stage_make(stage, (struct mkit_server_options){0}), 0);
    assert_true(stage_start(stage));
    served = stage->server;
    unsigned accepted = 0;
    for (int count = 0; count <= STEPS; count++)
        for (int leave = 0; leave < LEAVES; leave++) {
            const unsigned closes = stage_count(&account.seen[MKIT_CLOSE]);
            kill_one(stage, count, (enum leave)leave);
            stage_await(all_ended, ++accepted);
            assert_int_equal(stage_count(&account.open_connections), 0);
            assert_int_equal(stage_count(&account.open_messages), 0);
            assert_int_equal(stage_count(&account.seen[MKIT_CLOSE]) - closes,
                             1 + (count > AND_AGAIN));
        }
    stage_stop(stage);
    stage_free(stage);
    assert_int_equal(faults_alive(), 0);
}

/* In the middle of a callback, and while the filter writes more than a socket holds. */
static void killed_meanwhile(void **state)
{
    struct stage *stage = *state;
    assert_int_equal(stage_make(stage, (struct mkit_server_options){0}), 0);
    assert_true(stage_start(stage));
    served = stage->server;
    for (int i = 0; i < 2; i++) {
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            const int fd = client_connect(stage->path);
            const bool fine =
                i == 0 ? say(fd, "G 10:M<wait>\\0x\\0")
                       : say(fd, "G M R T L N 10:DE{big}\\0y\\0 E") && hears(fd, "Occccccc");
            for (;;)
                (void)(fine ? pause() : raise(SIGABRT));
        }
        if (i == 0)
            stage_await_gate(1);
        else
            stage_await_seen(MKIT_EOM, 1);
        int status;
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        stage_open_gate();
        stage_await(all_ended, (unsigned)i + 1);
    }
    assert_int_equal(stage_count(&account.seen[MKIT_ABORT]),
                     1); /* the other message had been seen whole */
    assert_int_equal(stage_count(&account.seen[MKIT_CLOSE]), 2);
    stage_stop(stage);
    stage_free(stage);
    assert_int_equal(faults_alive(), 0);
}

/* ------------------------------------------------------------------------------ faults by chance
 */

enum { PEERS = 4, MESSAGES = 60 };

/* What one peer sends, and what became of it. */
struct peer {
    const struct stage *stage;
    pthread_t thread;
    uint32_t chance;
    unsigned number;
    uint8_t bytes[1 << 17];
    size_t len;
    uint64_t digest;
    unsigned verdicts;
    unsigned without; /* messages that the peer went on to send, and got no verdict for */
    unsigned left;    /* it left on purpose */
    unsigned lost;    /* got a verdict, and the filter has not seen it whole */
};

static uint32_t draw(struct peer *peer, uint32_t below)
{
    peer->chance = peer->chance * 1664525U + 1013904223U;
    return (peer->chance >> 8) % below;
}

static void put(struct peer *peer, char command, const void *data, size_t len)
{
    put_u32(peer->bytes + peer->len, (uint32_t)len + 1);
    peer->bytes[peer->len + 4] = (uint8_t)command;
    if (len)
        memcpy(peer->bytes + peer->len + 5, data, len);
    peer->len += 5 + len;
}

static void put_strings(struct peer *peer, char command, const char *first, const char *second)
{
    char data[128];
    const int len = snprintf(data, sizeof data, "%s%c%s", first, '\0', second);
    put(peer, command, data, (size_t)len + (*second != '\0'));
    peer->digest = stage_digest(peer->digest, command, first, strlen(first));
    if (*second)
        peer->digest = stage_digest(peer->digest, 'l', second, strlen(second));
}

/* A message like no other, into `bytes`. Returns how many replies it will have. */
static unsigned write_message(struct peer *peer, unsigned number)
{
    char text[64];
    unsigned replies = 0;
    peer->len = 0;
    peer->digest = STAGE_NO_DIGEST;
    (void)snprintf(text, sizeof text, "<%u.%u@example.test>", peer->number, number);
    put_strings(peer, 'M', text, "");
    for (uint32_t i = draw(peer, 4) + 1; i; i--, replies++)
        put_strings(peer, 'R', "<rcpt@example.test>", "");
    put(peer, 'T', NULL, 0);
    for (uint32_t i = draw(peer, 20); i; i--, replies++) {
        (void)snprintf(text, sizeof text, "%u", draw(peer, 1 << 20) + 1);
        put_strings(peer, 'L', "X-Chance", text);
    }
    put(peer, 'N', NULL, 0);
    for (uint32_t i = draw(peer, 4); i; i--, replies++) {
        static const char body[20000];
        const size_t len = draw(peer, sizeof body) + 1;
        put(peer, 'B', body, len);
        peer->digest = stage_digest(peer->digest, 'B', body, len);
    }
    put(peer, 'E', NULL, 0);
    return replies + 4; /* M T N E */
}

static bool was_seen_whole(uint64_t digest)
{
    bool found = false;
    (void)pthread_mutex_lock(&account.lock);
    for (unsigned i = 0; i < account.digests_count && !found; i++)
        found = account.digests[i] == digest;
    (void)pthread_mutex_unlock(&account.lock);
    return found;
}

/* Sends the message in pieces. Returns false if it or the server left. */
static bool send_message(struct peer *peer, int fd, bool leave)
{
    const size_t end = leave ? draw(peer, (uint32_t)peer->len) : peer->len;
    for (size_t at = 0; at < end;) {
        size_t part = draw(peer, 8000) + 1;
        if (part > end - at)
            part = end - at;
        if (send(fd, peer->bytes + at, part, MSG_NOSIGNAL) != (ssize_t)part)
            return false;
        at += part;
    }
    return !leave;
}

/* One message; connects first where there is no connection. Returns the connection, or -1. */
static int one_message(struct peer *peer, int fd, unsigned number)
{
    if (fd < 0) {
        fd = client_connect(peer->stage->path);
        if (!say(fd, "G") || !hears(fd, "Occ")) {
            peer->without++;
            (void)close(fd);
            return -1;
        }
    }
    const bool leave = draw(peer, 10) == 0;
    const unsigned replies = write_message(peer, number);
    char letters[64] = "";
    memset(letters, 'c', replies);
    if (send_message(peer, fd, leave) && hears(fd, letters)) {
        peer->verdicts++;
        peer->lost += !was_seen_whole(peer->digest);
        return fd;
    }
    peer->left += leave;
    peer->without += !leave;
    (void)close(fd);
    return -1;
}

static void *be_peer(void *arg)
{
    struct peer *peer = arg;
    int fd = -1;
    for (unsigned i = 0; i < MESSAGES; i++)
        fd = one_message(peer, fd, i);
    (void)close(fd);
    return NULL;
}

static void faults_by_chance_everywhere(uint32_t seed)
{
    faults_by_chance(FAULT_MEMORY, 20, ENOMEM, seed);
    faults_by_chance(FAULT_ACCEPT, 40, EMFILE, seed);
    faults_by_chance(FAULT_THREAD, 2, EAGAIN, seed);
    faults_by_chance(FAULT_WATCH, 40, ENOSPC, seed);
    faults_by_chance(FAULT_RECV, 100, seed % 2 ? ECONNRESET : EINTR, seed);
    faults_by_chance(FAULT_SEND, 60, seed % 2 ? EAGAIN : ENOBUFS, seed);
}

static void nothing_is_lost(void **state)
{
    struct stage *stage = *state;
    static struct peer peers[PEERS];
    memset(peers, 0, sizeof peers);
    unsigned verdicts = 0;
    unsigned without = 0;
    assert_int_equal(stage_make(stage, (struct mkit_server_options){.runners = 2}), 0);
    assert_true(stage_start(stage));
    for (uint32_t seed = 1; seed <= 4; seed++) {
        faults_by_chance_everywhere(seed);
        for (unsigned i = 0; i < PEERS; i++) {
            peers[i] =
                (struct peer){.stage = stage, .number = seed * PEERS + i, .chance = seed * 77 + i};
            assert_int_equal(pthread_create(&peers[i].thread, NULL, be_peer, &peers[i]), 0);
        }
        for (unsigned i = 0; i < PEERS; i++) {
            assert_int_equal(pthread_join(peers[i].thread, NULL), 0);
            assert_int_equal(peers[i].lost, 0);
            assert_int_equal(peers[i].verdicts + peers[i].without + peers[i].left, MESSAGES);
            verdicts += peers[i].verdicts;
            without += peers[i].without;
        }
    }
    for (int what = 0; what < FAULTS; what++)
        faults_by_chance((enum fault)what, 0, 0, 0);
    assert_int_in_range(verdicts, 100, UINT_MAX);
    assert_int_in_range(without, 10, UINT_MAX);
    stage_stop(stage);
    assert_int_in_range(account.digests_count, verdicts, MOST_DIGESTS);
    stage_free(stage);
    assert_int_equal(faults_alive(), 0);
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
        ON_BOTH(killed_at_every_step),
        ON_BOTH(killed_meanwhile),
        ON_BOTH(nothing_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
