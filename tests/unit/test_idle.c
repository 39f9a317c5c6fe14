/* What idle connections cost the engine: bytes of its heap, counted by the functions below that the
 * linker puts in place of the C library's (-Wl,--wrap), threads, and wake-ups. Not counted is what
 * the system keeps for the sockets. */
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "client.h"
#include "milterkit.h"
#include "procfs.h"

enum {
    CONNECTIONS = 10000, /* where the system allows so many */
    LEAST = 4000,        /* else, and on poll(2), which looks at all of them each time */
    WARM = 100,          /* opened before anything is measured */
    MOST_BYTES = 2048    /* for each */
};

/* ------------------------------------------------------------------------------------ memory */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *at, size_t size);
char *__real_strdup(const char *text);
void __real_free(void *at);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *at, size_t size);
char *__wrap_strdup(const char *text);
void __wrap_free(void *at);

static atomic_long held; /* bytes, with what malloc itself keeps for each piece */

static void *weigh(void *at, long sign)
{
    if (at)
        (void)atomic_fetch_add(&held, sign * (long)(malloc_usable_size(at) + sizeof(size_t)));
    return at;
}

void *__wrap_malloc(size_t size)
{
    return weigh(__real_malloc(size), 1);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return weigh(__real_calloc(count, size), 1);
}

void *__wrap_realloc(void *at, size_t size)
{
    (void)weigh(at, -1);
    void *moved = __real_realloc(at, size);
    (void)weigh(moved ? moved : at, 1);
    return moved;
}

char *__wrap_strdup(const char *text)
{
    return weigh(__real_strdup(text), 1);
}

void __wrap_free(void *at)
{
    __real_free(weigh(at, -1));
}

/* ------------------------------------------------------------------------------------- filter */

static atomic_int worker; /* the last one that started */

static int on_step(struct mkit_session *session, const struct mkit_event *event)
{
    (void)session;
    (void)event;
    return MKIT_CONTINUE;
}

static void thread_start(void *data)
{
    (void)data;
    worker = gettid();
}

static const struct mkit_filter filter = {
    .on = {on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step,
           on_step, on_step},
    .thread_start = thread_start,
};

/* ------------------------------------------------------------------------------------- clients */

/* Another process, because one could not have both ends of so many. */
struct mtas {
    pid_t process;
    int to;   /* a byte lets it open the next ones */
    int from; /* a byte says that they are open */
};

/* Opens connections; on each one message with macros, as an MTA that keeps it for the next one. */
static bool open_some(const char *path, unsigned count)
{
    while (count--) {
        const int fd = client_connect(path);
        if (fd < 0 ||
            !say(fd, "O 39:DCj\\0mx.example.org\\0{daemon_name}\\0smtpd\\0 C H "
                     "17:DMi\\0BZQ1Xy0Lkz1q\\0 M R T L N B E") ||
            !hears(fd, "Occccccccc"))
            return false;
    }
    return true;
}

static void be_mtas(const char *path, unsigned count, int to, int from)
{
    const unsigned portions[] = {WARM, count - WARM};
    char byte;
    for (int i = 0; i < 2; i++)
        if (read(to, &byte, 1) != 1 || !open_some(path, portions[i]) || write(from, "", 1) != 1)
            _exit(1);
    _exit(read(to, &byte, 1) != 0); /* until the test ends */
}

static struct mtas start_mtas(const char *path, unsigned count)
{
    int to[2];
    int from[2];
    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    const pid_t process = fork();
    if (process == 0) {
        (void)close(to[1]);
        be_mtas(path, count, to[0], from[1]);
    }
    (void)close(to[0]);
    (void)close(from[1]);
    return (struct mtas){process, to[1], from[0]};
}

static void let_open(const struct mtas *mtas)
{
    char byte;
    assert_int_equal(write(mtas->to, "", 1), 1);
    assert_int_equal(read(mtas->from, &byte, 1), 1);
}

/* --------------------------------------------------------------------------------------- test */

/* A server and the thread that runs it. */
struct bench {
    enum mkit_poller poller;
    struct mkit_server *server;
    pthread_t thread;
    atomic_int watcher;
    bool running;
    char folder[32];
    char path[64];
    struct mtas mtas;
};

static void *run_server(void *arg)
{
    struct bench *bench = arg;
    bench->watcher = gettid();
    (void)mkit_server_run(bench->server, NULL, NULL);
    return NULL;
}

/* Waits until neither the watcher nor the last worker wakes for a while. */
static void await_stillness(const struct bench *bench)
{
    enum { WHILE_MS = 200 };
    const time_t until = time(NULL) + DEADLINE_S;
    unsigned before;
    unsigned after;
    do {
        before = sleeps_of(bench->watcher) + sleeps_of(worker);
        (void)poll(NULL, 0, WHILE_MS);
        after = sleeps_of(bench->watcher) + sleeps_of(worker);
    } while (after != before && time(NULL) < until);
    assert_int_equal(after, before);
}

static void idle_connections(void **state)
{
    struct bench *bench = *state;
    char spec[80];
    const unsigned wanted = bench->poller == MKIT_POLLER_POLL ? LEAST : CONNECTIONS;
    const unsigned files = allow_files(wanted + 100);
    const unsigned count = files < wanted + 100 ? files - 100 : wanted;
    assert_int_in_range(count, LEAST, wanted);
    const struct mkit_server_options options = {.poller = bench->poller, .linger = -1};
    bench->server = mkit_server_new(&filter, &options);
    assert_non_null(bench->server);
    (void)snprintf(spec, sizeof spec, "unix:%s", bench->path);
    assert_int_equal(mkit_server_listen(bench->server, spec, NULL), 0);
    bench->mtas = start_mtas(bench->path, count);
    assert_int_equal(pthread_create(&bench->thread, NULL, run_server, bench), 0);
    bench->running = true;

    let_open(&bench->mtas);
    await_stillness(bench);
    const long before = atomic_load(&held);
    let_open(&bench->mtas);
    await_stillness(bench);
    const long bytes = (atomic_load(&held) - before) / (long)(count - WARM);
    print_message("%u idle connections, %ld bytes each\n", count, bytes);

    struct mkit_server_stats stats;
    mkit_server_get_stats(bench->server, &stats);
    assert_int_equal(stats.open, count);
    assert_int_equal(stats.messages, count);
    assert_int_equal(stats.threads, 1);
    assert_int_in_range(bytes, 1, MOST_BYTES);
}

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    if (!bench)
        return -1;
    bench->poller = *(const enum mkit_poller *)*state;
    (void)snprintf(bench->folder, sizeof bench->folder, "/tmp/mkit-XXXXXX");
    if (!mkdtemp(bench->folder))
        return -1;
    (void)snprintf(bench->path, sizeof bench->path, "%s/socket", bench->folder);
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
    if (bench->mtas.process > 0) {
        (void)close(bench->mtas.to);
        (void)close(bench->mtas.from);
        (void)waitpid(bench->mtas.process, NULL, 0);
    }
    (void)unlink(bench->path);
    (void)rmdir(bench->folder);
    free(bench);
    return 0;
}

int main(void)
{
    static enum mkit_poller by_poll = MKIT_POLLER_POLL;
    static enum mkit_poller by_best = MKIT_POLLER_BEST;
    const struct CMUnitTest tests[] = {
        {"idle_connections (poll)", idle_connections, set_up, tear_down, &by_poll},
        {"idle_connections (best)", idle_connections, set_up, tear_down, &by_best},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
