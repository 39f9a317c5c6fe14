/* How much stack a callback has, where the system's default for threads is small and where it is
 * large. That default belongs to the process, hence a program of its own. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "client.h"
#include "milterkit.h"

enum {
    SMALL = 1 << 20, /* what the thread sanitizer keeps there does not fit in much less */
    LARGE = 6 << 20, /* musl knows no default above 8 MiB */
    LEAST = 2 << 20,
    APART = 64 << 10, /* what the C library itself puts there: guard, thread-local storage */
    FRAME = 4 << 10
};

static size_t found; /* of the thread that ran the callback; the server has ended when it is read */

/* Uses so much of the stack, and returns a sum so that no compiler leaves it out. */
static unsigned go_deep(size_t bytes)
{
    volatile unsigned char frame[FRAME];
    for (size_t i = 0; i < sizeof frame; i++)
        frame[i] = (unsigned char)(bytes >> 12);
    return bytes > sizeof frame ? frame[0] + go_deep(bytes - sizeof frame) : frame[0];
}

/* A deep callback: where its thread has the least there may be, it uses half of that; the
 * thread sanitizer needs the rest. */
static int on_helo(struct mkit_session *session, const struct mkit_event *event)
{
    (void)session;
    (void)event;
    pthread_attr_t attr;
    if (pthread_getattr_np(pthread_self(), &attr) == 0) {
        (void)pthread_attr_getstacksize(&attr, &found);
        (void)pthread_attr_destroy(&attr);
    }
    return found + APART >= LEAST && go_deep(LEAST / 2) ? MKIT_CONTINUE : MKIT_TEMPFAIL;
}

static const struct mkit_filter filter = {.on = {[MKIT_HELO] = on_helo}};

static void *run_server(void *server)
{
    return mkit_server_run(server, NULL, NULL) == 0 ? NULL : server;
}

/* The size of the stack that the callback of a server has, with this default for threads. */
static size_t stack_with(size_t usual)
{
    pthread_attr_t attr;
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstacksize(&attr, usual), 0);
    assert_int_equal(pthread_setattr_default_np(&attr), 0);
    (void)pthread_attr_destroy(&attr);

    char folder[] = "/tmp/mkit-XXXXXX";
    char spec[64];
    assert_non_null(mkdtemp(folder));
    const int prefix = snprintf(spec, sizeof spec, "unix:");
    (void)snprintf(spec + prefix, sizeof spec - (size_t)prefix, "%s/socket", folder);
    struct mkit_server *server = mkit_server_new(&filter, NULL);
    assert_non_null(server);
    assert_int_equal(mkit_server_listen(server, spec, NULL), 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_server, server), 0);
    const int fd = client_connect(spec + prefix);
    const bool served = say(fd, "O H") && hears(fd, "Oc");
    (void)close(fd);
    mkit_server_stop(server);
    void *failed = server;
    assert_int_equal(pthread_join(thread, &failed), 0);
    mkit_server_free(server);
    (void)unlink(spec + prefix);
    (void)rmdir(folder);
    assert_null(failed);
    assert_true(served);
    return found;
}

static void a_small_default(void **state)
{
    (void)state;
    assert_int_in_range(stack_with(SMALL), LEAST - APART, LEAST + APART);
}

/* It is followed where there are addresses enough for hundreds of such threads. */
static void a_large_default(void **state)
{
    (void)state;
    const size_t expected = sizeof(void *) > 4 ? LARGE : LEAST;
    assert_int_in_range(stack_with(LARGE), expected - APART, expected + APART);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_default), /* first: musl's default only grows */
        cmocka_unit_test(a_large_default),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
