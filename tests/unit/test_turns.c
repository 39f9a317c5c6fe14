/* Turns that are made by hand, one after the other in the test's thread: orders of events that
 * real threads come to once in a million, each found by the model (model.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "client.h"
#include "milterkit.h"
#include "server/server.h"
#include "server/turn.h"

enum { EVENTS = 8 };

struct bench {
    struct mkit_server *server;
    struct runner runners[2];
    int clients[2];
    struct conn *conns[2];
    size_t junk; /* bytes that fill the first connection, before its replies */
};

static struct bench *current;

/* What a runner does that has waited in the poller. Returns how many events there were. */
static int take_events(const struct bench *bench)
{
    struct poll_event events[EVENTS];
    const int count = poller_wait(bench->server->poller, events, EVENTS, true);
    for (int i = 0; i < count; i++)
        server_make_ready(bench->server, bench->server->conns[(uint32_t)events[i].id]);
    return count;
}

/* Reads what fills a connection, so that there is room for replies. */
static void make_room(struct bench *bench)
{
    char bytes[4096];
    while (bench->junk) {
        const size_t most = bench->junk < sizeof bytes ? bench->junk : sizeof bytes;
        const ssize_t got = recv(bench->clients[0], bytes, most, 0);
        assert_int_in_range(got, 1, most);
        bench->junk -= (size_t)got;
    }
}

/* HELO of the second connection: meanwhile the first MTA speaks, which the poller reports, and the
 * watcher takes the first connection from the runner. MAIL: its MTA makes room. */
static int on_step(struct mkit_session *session, const struct mkit_event *event)
{
    struct bench *bench = current;
    if (session != bench->conns[1]->session)
        return MKIT_CONTINUE;
    if (event->step == MKIT_HELO) {
        assert_true(say(bench->clients[0], "H"));
        (void)pthread_mutex_lock(&bench->server->lock);
        (void)take_events(bench);
        turn_unload(&bench->runners[0]);
        (void)pthread_mutex_unlock(&bench->server->lock);
    } else if (event->step == MKIT_MAIL) {
        make_room(bench);
    }
    return MKIT_CONTINUE;
}

static const struct mkit_filter filter = {
    .on = {[MKIT_CONNECT] = on_step, [MKIT_HELO] = on_step, [MKIT_MAIL] = on_step},
};

static void serve(struct bench *bench, unsigned by)
{
    (void)pthread_mutex_lock(&bench->server->lock);
    turn_take(&bench->runners[by]);
    (void)pthread_mutex_unlock(&bench->server->lock);
    assert_true(turn_serve(&bench->runners[by]));
}

static void make_connection(struct bench *bench, unsigned i)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    bench->clients[i] = ends[0];
    while (i == 0 && send(ends[1], "", 1, MSG_DONTWAIT) == 1)
        bench->junk++;
    assert_int_equal(mkit_server_adopt(bench->server, ends[1]), 0);
    bench->conns[i] = bench->server->conns[ends[1]];
}

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    if (!bench)
        return -1;
    const struct mkit_server_options options = {.poller = *(const enum mkit_poller *)*state};
    bench->server = mkit_server_new(&filter, &options);
    assert_non_null(bench->server);
    bench->server->poller = poller_open(options.poller);
    assert_non_null(bench->server->poller);
    bench->server->share = bench->server->target = 1;
    bench->server->batch_limit = MAX_BATCH;
    bench->server->state = SERVER_RUNNING;
    for (unsigned i = 0; i < 2; i++) {
        struct runner *runner = &bench->runners[i];
        runner->server = bench->server;
        runner->arena = malloc(ARENA);
        assert_non_null(runner->arena);
        (void)pthread_mutex_init(&runner->lock, NULL);
        make_connection(bench, i);
    }
    *state = current = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    for (unsigned i = 0; i < 2; i++) {
        (void)pthread_mutex_destroy(&bench->runners[i].lock);
        free(bench->runners[i].arena);
        (void)close(bench->clients[i]);
    }
    poller_close(bench->server->poller);
    bench->server->poller = NULL;
    mkit_server_free(bench->server);
    free(bench);
    return 0;
}

/* A connection is taken from its runner with a reply that its MTA does not take yet, and with bytes
 * that were reported already. In its next turn it is not read, because the reply still waits at the
 * beginning; at the end it does not wait any more. Then it is read all the same. */
static void what_output_held_up_is_read(void **state)
{
    struct bench *bench = *state;
    struct conn *conn = bench->conns[0];
    assert_true(say(bench->clients[0], "G") && say(bench->clients[1], "G"));
    for (unsigned i = 0; i < 2; i++)
        server_make_ready(bench->server, bench->conns[i]);
    serve(bench, 0);
    assert_int_equal(conn->status, CONN_READY);
    assert_true(conn->blocked);
    assert_true(say(bench->clients[1], "M"));
    (void)take_events(bench);
    serve(bench, 1);
    assert_false(conn->blocked);
    (void)take_events(bench);
    assert_int_equal(conn->status, CONN_READY);
    serve(bench, 1);
    assert_true(hears(bench->clients[0], "Occc"));
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
    const struct CMUnitTest tests[] = {ON_BOTH(what_output_held_up_is_read)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
