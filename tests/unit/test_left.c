/* The ends of a server: step by step by mkit_server_hurry, with callbacks that never return, and
 * while another one takes over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "scene.h"

#define WAITING "10:M<wait>\\0x\\0"

/* Opens a connection whose callback waits at the gate. */
static int open_waiting(struct scene *scene)
{
    const int fd = scene_client(scene);
    const unsigned inside = atomic_load(&seen.inside);
    assert_true(say(fd, "G") && hears(fd, "Occ") && say(fd, WAITING));
    scene_await(&seen.inside, inside + 1);
    return fd;
}

static int open_client(struct scene *scene, const char *words, const char *replies)
{
    const int fd = scene_client(scene);
    assert_true(say(fd, words) && hears(fd, replies));
    return fd;
}

/* A callback never returns: the run ends without it, and all others get what they are owed. When it
 * returns after all, it gets that too. */
static void one_is_left_behind(void **state)
{
    struct scene *scene = *state;
    scene_make(scene, (struct mkit_server_options){.drain = -1, .grace = -1}, false);
    scene_start(scene);
    const int inside = open_client(scene, "G M R", "Occcc");
    const int outside = open_client(scene, "G", "Occ");
    const int waiting = open_waiting(scene);
    mkit_server_stop(scene->server);
    scene_join(scene);
    assert_true(hears_end(waiting) && hears_end(inside) && hears_end(outside));
    assert_int_equal(scene_left(scene), 1);
    assert_true(scene_logged("envfrom: it has not returned"));
    assert_int_equal(atomic_load(&seen.steps[MKIT_ABORT]), 1);
    assert_int_equal(atomic_load(&seen.steps[MKIT_CLOSE]), 2);
    scene_pass(1);
    scene_await_that(scene_left, scene, 0);
    assert_int_equal(atomic_load(&seen.steps[MKIT_ABORT]), 2);
    assert_int_equal(atomic_load(&seen.steps[MKIT_CLOSE]), 3);
    assert_int_equal(atomic_load(&seen.threads), 0);
}

/* Several at once; to free the server meanwhile does nothing. */
static void two_are_left_behind(void **state)
{
    struct scene *scene = *state;
    scene_make(scene, (struct mkit_server_options){.drain = -1, .grace = -1}, true);
    scene_start(scene);
    const int first = open_waiting(scene);
    const int second = open_waiting(scene);
    mkit_server_stop(scene->server);
    scene_join(scene);
    assert_true(hears_end(first) && hears_end(second));
    assert_int_equal(scene_left(scene), 2);
    mkit_server_free(scene->server);
    scene_pass(1);
    scene_await_that(scene_left, scene, 1);
    mkit_server_free(scene->server);
    assert_int_equal(atomic_load(&seen.inside), 1);
    scene_pass(1);
    scene_await_that(scene_left, scene, 0);
    assert_int_equal(atomic_load(&seen.steps[MKIT_CLOSE]), 2);
}

/* A line for the log never returns. */
static void a_log_line_is_left_behind(void **state)
{
    struct scene *scene = *state;
    scene_make(scene, (struct mkit_server_options){.drain = -1, .grace = -1}, false);
    scene_start(scene);
    const int logging = open_client(scene, "G", "Occ");
    atomic_store(&seen.hold_log, true);
    assert_true(say(logging, "R")); /* out of order */
    scene_await(&seen.logging, 1);
    mkit_server_stop(scene->server);
    scene_join(scene);
    assert_true(hears_end(logging));
    assert_int_equal(scene_left(scene), 1);
    assert_true(scene_logged("a line for the log: it has not returned"));
    scene_pass(1);
    scene_await_that(scene_left, scene, 0);
    assert_int_equal(atomic_load(&seen.steps[MKIT_CLOSE]), 1);
}

/* The log never returns where it is told that a callback did not. */
static void what_tells_is_left_behind(void **state)
{
    struct scene *scene = *state;
    scene_make(scene, (struct mkit_server_options){.drain = -1, .grace = -1}, false);
    scene_start(scene);
    const int waiting = open_waiting(scene);
    atomic_store(&seen.hold_log, true);
    mkit_server_abort(scene->server);
    scene_join(scene);
    assert_true(hears_end(waiting));
    assert_int_equal(atomic_load(&seen.logging), 1);
    assert_int_equal(scene_left(scene), 2);
    scene_pass(2);
    scene_await_that(scene_left, scene, 0);
    assert_int_equal(atomic_load(&seen.steps[MKIT_CLOSE]), 1);
}

/* The log never returns where it is told that an MTA was silent. */
static void silence_is_left_behind(void **state)
{
    struct scene *scene = *state;
    scene_make(scene, (struct mkit_server_options){.timeout = 1, .grace = -1}, false);
    scene_start(scene);
    const int silent = open_client(scene, "G", "Occ");
    atomic_store(&seen.hold_log, true);
    scene_await(&seen.logging, 1);
    mkit_server_abort(scene->server);
    scene_join(scene);
    assert_true(hears_end(silent));
    assert_int_equal(scene_left(scene), 1);
    scene_pass(1);
    scene_await_that(scene_left, scene, 0);
    assert_int_equal(atomic_load(&seen.steps[MKIT_CLOSE]), 1);
}

/* Each hurry goes one step further, whatever time there is left. */
static void hurry_goes_step_by_step(void **state)
{
    struct scene *scene = *state;
    scene_make(scene, (struct mkit_server_options){.drain = 3600, .grace = 3600}, false);
    scene_start(scene);
    const int inside = open_client(scene, "G M", "Occc");
    const int outside = open_client(scene, "G", "Occ");
    const int waiting = open_waiting(scene);
    mkit_server_hurry(scene->server);
    scene_await_that(scene_state, scene, SERVER_DRAINING);
    assert_true(hears_end(outside));
    assert_true(say(inside, "R") && hears(inside, "c"));
    mkit_server_hurry(scene->server);
    scene_await_that(scene_state, scene, SERVER_ABORTING);
    assert_true(hears_end(inside));
    assert_int_equal(scene_left(scene), 0);
    mkit_server_hurry(scene->server);
    scene_join(scene);
    assert_true(hears_end(waiting));
    assert_int_equal(scene_left(scene), 1);
    assert_int_equal(atomic_load(&seen.steps[MKIT_CLOSE]), 2);
    scene_pass(1);
    scene_await_that(scene_left, scene, 0);
}

/* A server that retires goes on with the connections that it has, while another one at the same
 * path has the new ones; it ends with its last connection. */
static void one_retires_for_another(void **state)
{
    struct scene *scene = *state;
    struct scene next = *scene;
    scene_make(scene, (struct mkit_server_options){0}, true);
    scene_listen(scene, scene->server);
    scene_start(scene);
    const int old = scene_connect(scene);
    assert_true(say(old, "G M R T L N E") && hears(old, "Occcccccc"));
    mkit_server_retire(scene->server, 0);
    scene_await_that(scene_state, scene, SERVER_RETIRING);
    assert_int_equal(client_connect(scene->path), -1);
    scene_make(&next, (struct mkit_server_options){0}, true);
    scene_listen(&next, next.server);
    scene_start(&next);
    const int new = scene_connect(scene);
    assert_true(say(old, "M R T L N E") && hears(old, "cccccc"));
    assert_true(say(new, "G M R T L N E") && hears(new, "Occcccccc"));
    assert_true(say(old, "M R T L N E") && hears(old, "cccccc"));
    assert_int_equal(scene_state(scene), SERVER_RETIRING);
    assert_int_equal(shutdown(old, SHUT_WR), 0);
    scene_join(scene);
    assert_true(say(new, "M") && hears(new, "c"));
    mkit_server_abort(next.server);
    scene_join(&next);
    mkit_server_free(next.server);
}

/* Who waits in the backlog when a server retires is served by it. */
static void retiring_serves_the_backlog(void **state)
{
    struct scene *scene = *state;
    enum { MANY = 100 };
    scene_make(scene, (struct mkit_server_options){.max_threads = 1}, true);
    scene_listen(scene, scene->server);
    for (unsigned i = 0; i < MANY; i++)
        assert_true(say(scene_connect(scene), "G"));
    mkit_server_retire(scene->server, 0);
    scene_start(scene);
    for (unsigned i = 0; i < MANY; i++)
        assert_true(hears(scene->clients[i], "Occ"));
    scene_await_that(scene_state, scene, SERVER_RETIRING);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(shutdown(scene->clients[i], SHUT_WR), 0);
    scene_join(scene);
    assert_int_equal(atomic_load(&seen.steps[MKIT_CLOSE]), MANY);
}

/* Retiring has an end: then what is outside a message is ended, as by a stop. */
static void retiring_has_an_end(void **state)
{
    struct scene *scene = *state;
    scene_make(scene, (struct mkit_server_options){0}, false);
    scene_start(scene);
    const int inside = open_client(scene, "G M", "Occc");
    const int outside = open_client(scene, "G", "Occ");
    mkit_server_retire(scene->server, 1);
    assert_true(hears_end(outside));
    assert_true(say(inside, "R T L N E") && hears(inside, "ccccc") && hears_end(inside));
    scene_join(scene);
    assert_int_equal(atomic_load(&seen.steps[MKIT_CLOSE]), 2);
}

int main(void)
{
    static enum mkit_poller by_poll = MKIT_POLLER_POLL;
    static enum mkit_poller by_best = MKIT_POLLER_BEST;
    const struct CMUnitTest tests[] = {
        SCENE_ON_BOTH(one_is_left_behind),        SCENE_ON_BOTH(two_are_left_behind),
        SCENE_ON_BOTH(a_log_line_is_left_behind), SCENE_ON_BOTH(what_tells_is_left_behind),
        SCENE_ON_BOTH(silence_is_left_behind),    SCENE_ON_BOTH(hurry_goes_step_by_step),
        SCENE_ON_BOTH(one_retires_for_another),   SCENE_ON_BOTH(retiring_serves_the_backlog),
        SCENE_ON_BOTH(retiring_has_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
