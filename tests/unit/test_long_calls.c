/* Callbacks that run long, on a server: progress that is sent for them and where, an MTA that hangs
 * up meanwhile, and output that a slow MTA makes wait. A callback that is held does what the test
 * tells it, in its own thread. Nothing waits for time to pass: where something must not be sent,
 * progress of another connection, which the same watcher sends in the same rounds, shows that it
 * would have been. The linker puts this file's send and poll in the place of the system's. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "rig.h"
#include "wire/bytes.h"
#include "wire/protocol.h"

enum {
    DEADLINE_S = 30,  /* only what hangs reaches it */
    INTERVAL_MS = 10, /* of progress */
    CALLS = 24,
    ROUNDS = 3 /* of progress to another connection, in which nothing may be sent to the first */
};

/* ------------------------------------------------------------------------------------- calls */

typedef int order(struct mkit_session *session);

/* One connection and the callback of it that is held. */
struct call {
    int fd; /* the client's end; -1: closed */
    enum mkit_step hold;
    order *order; /* to be done by the callback; NULL: none */
    int result;   /* of the last one */
    bool inside;
    bool leave;
    bool left;
    bool closed; /* its close callback was called */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct call calls[CALLS];
} world = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* What was seen and is to be done at the system calls of the server. */
static struct {
    atomic_size_t most;     /* bytes that were to be written at once */
    atomic_uint unable;     /* writes that found the socket full */
    atomic_int split;       /* progress to this descriptor leaves in two parts ... */
    atomic_int full;        /* ... and this one takes nothing */
    atomic_uint naps;       /* of the watcher */
    atomic_int watched;     /* progress to this descriptor is counted */
    atomic_uint progressed; /* so often */
} sys;

ssize_t __real_send(int fd, const void *data, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t len, int flags);
int __real_poll(struct pollfd *fds, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout);

ssize_t __wrap_send(int fd, const void *data, size_t len, int flags)
{
    const uint8_t *bytes = data;
    if (!(flags & MSG_DONTWAIT)) /* a client's */
        return __real_send(fd, data, len, flags);
    size_t most = atomic_load(&sys.most);
    while (len > most && !atomic_compare_exchange_weak(&sys.most, &most, len))
        ;
    const bool progress = len == 5 && bytes[4] == MKIT_R_PROGRESS;
    if (progress && fd == atomic_load(&sys.watched))
        (void)atomic_fetch_add(&sys.progressed, 1);
    ssize_t sent = -1;
    errno = EAGAIN;
    if (progress && fd == atomic_load(&sys.split)) {
        atomic_store(&sys.full, fd);
        atomic_store(&sys.split, -1);
        sent = __real_send(fd, data, 2, flags);
    } else if (fd != atomic_load(&sys.full)) {
        sent = __real_send(fd, data, len, flags);
    }
    if (sent < 0 && errno == EAGAIN)
        (void)atomic_fetch_add(&sys.unable, 1);
    return sent;
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout)
{
    if (count == 1 && fds->events == POLLIN) /* the watcher's pipe */
        (void)atomic_fetch_add(&sys.naps, 1);
    return __real_poll(fds, count, timeout);
}

/* Waits until something has changed. With the lock held; false at the deadline. */
static bool wait_for_change(void)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += DEADLINE_S;
    return pthread_cond_timedwait(&world.changed, &world.lock, &until) == 0;
}

/* Does orders, until there is none and it may leave. With the lock held. */
static void obey(struct call *call, struct mkit_session *session)
{
    call->inside = true;
    (void)pthread_cond_broadcast(&world.changed);
    while (call->order || !call->leave) {
        order *what = call->order;
        if (!what) {
            if (!wait_for_change())
                break;
            continue;
        }
        (void)pthread_mutex_unlock(&world.lock);
        const int result = what(session);
        (void)pthread_mutex_lock(&world.lock);
        call->result = result;
        call->order = NULL;
        (void)pthread_cond_broadcast(&world.changed);
    }
    call->inside = false;
    call->left = true;
}

/* Every step. MAIL names the call: "<a>" is the first. */
static int on_step(struct mkit_session *session, const struct mkit_event *event)
{
    if (event->step == MKIT_MAIL)
        mkit_set_private(session, &world.calls[event->of.args.all.at[1] - 'a']);
    struct call *call = mkit_private(session);
    if (!call)
        return MKIT_CONTINUE;
    (void)pthread_mutex_lock(&world.lock);
    if (event->step == call->hold)
        obey(call, session);
    if (event->step == MKIT_CLOSE)
        call->closed = true;
    (void)pthread_cond_broadcast(&world.changed);
    (void)pthread_mutex_unlock(&world.lock);
    return MKIT_CONTINUE;
}

static const struct mkit_filter filter = {
    .actions = MKIT_ALL_ACTIONS,
    .on = {on_step, NULL, on_step, on_step, NULL, NULL, NULL, NULL, on_step, NULL, on_step,
           on_step},
};

/* Tells a callback to do something, and does not wait. */
static void post(struct call *call, order *what)
{
    (void)pthread_mutex_lock(&world.lock);
    call->order = what;
    (void)pthread_cond_broadcast(&world.changed);
    (void)pthread_mutex_unlock(&world.lock);
}

/* Waits until it is done. Returns its result. */
static int await(struct call *call)
{
    bool in_time = true;
    (void)pthread_mutex_lock(&world.lock);
    while (call->order && in_time)
        in_time = wait_for_change();
    (void)pthread_mutex_unlock(&world.lock);
    assert_true(in_time);
    return call->result;
}

static int tell(struct call *call, order *what)
{
    post(call, what);
    return await(call);
}

static void release(struct call *call)
{
    (void)pthread_mutex_lock(&world.lock);
    call->leave = true;
    (void)pthread_cond_broadcast(&world.changed);
    (void)pthread_mutex_unlock(&world.lock);
}

/* Waits until a flag of a call is set. */
static void await_flag(const bool *flag)
{
    bool in_time = true;
    (void)pthread_mutex_lock(&world.lock);
    while (!*flag && in_time)
        in_time = wait_for_change();
    (void)pthread_mutex_unlock(&world.lock);
    assert_true(in_time);
}

/* ------------------------------------------------------------------------------------- server */

struct bench {
    struct mkit_server *server;
    pthread_t thread;
    int ends[CALLS]; /* the server's */
};

static void *run_server(void *arg)
{
    struct bench *bench = arg;
    return mkit_server_run(bench->server, NULL, NULL) ? arg : NULL;
}

static void serve(struct bench *bench, struct mkit_server_options options)
{
    bench->server = mkit_server_new(&filter, &options);
    assert_non_null(bench->server);
    for (int i = 0; i < CALLS; i++) {
        int ends[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        world.calls[i] = (struct call){.fd = ends[0], .hold = MKIT_EOM};
        bench->ends[i] = ends[1];
        assert_int_equal(mkit_server_adopt(bench->server, ends[1]), 0);
    }
    assert_int_equal(pthread_create(&bench->thread, NULL, run_server, bench), 0);
}

static int set_up(void **state)
{
    *state = calloc(1, sizeof(struct bench));
    for (int i = 0; i < CALLS; i++)
        world.calls[i].fd = -1;
    atomic_store(&sys.most, 0);
    atomic_store(&sys.unable, 0);
    atomic_store(&sys.split, -1);
    atomic_store(&sys.full, -1);
    atomic_store(&sys.watched, -1);
    return *state ? 0 : -1;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    atomic_store(&sys.full, -1);
    for (int i = 0; i < CALLS; i++) {
        release(&world.calls[i]);
        (void)close(world.calls[i].fd);
    }
    if (bench->server) {
        mkit_server_abort(bench->server);
        (void)pthread_join(bench->thread, NULL);
        mkit_server_free(bench->server);
    }
    free(bench);
    return 0;
}

/* ------------------------------------------------------------------------------------- client */

static void say(const struct call *call, const char *notation)
{
    static const struct rig none;
    uint8_t bytes[1 << 12];
    const size_t len = rig_bytes(&none, notation, false, bytes, sizeof bytes);
    assert_int_equal(send(call->fd, bytes, len, MSG_NOSIGNAL), len);
}

static bool readable(const struct call *call, int timeout)
{
    struct pollfd fd = {.fd = call->fd, .events = POLLIN};
    return poll(&fd, 1, timeout) == 1;
}

static void read_all(const struct call *call, uint8_t *to, size_t len)
{
    while (len) {
        assert_true(readable(call, DEADLINE_S * 1000));
        const ssize_t got = recv(call->fd, to, len, 0);
        assert_int_in_range(got, 1, len);
        to += got;
        len -= (size_t)got;
    }
}

/* Reads a packet. Returns its letter; `data`, if any, gets what it holds, *len how much. */
static char hear(const struct call *call, uint8_t *data, size_t *len)
{
    static uint8_t any[MKIT_CHUNK];
    uint8_t head[5];
    read_all(call, head, sizeof head);
    const size_t size = get_u32(head) - 1;
    assert_int_in_range(size, 0, sizeof any);
    read_all(call, data ? data : any, size);
    if (len)
        *len = size;
    return (char)head[4];
}

static void hears(const struct call *call, const char *letters)
{
    for (; *letters; letters++)
        assert_int_equal(hear(call, NULL, NULL), *letters);
}

/* Reads progress, however much there is of it, and then these packets. */
static void hears_at_last(const struct call *call, const char *letters)
{
    char letter;
    do
        letter = hear(call, NULL, NULL);
    while (letter == MKIT_R_PROGRESS);
    assert_int_equal(letter, *letters);
    hears(call, letters + 1);
}

/* Says where a call is to be held. */
static void set_hold(struct call *call, enum mkit_step step)
{
    (void)pthread_mutex_lock(&world.lock);
    call->hold = step;
    call->leave = false;
    (void)pthread_mutex_unlock(&world.lock);
}

static void greet(int i)
{
    say(&world.calls[i], "O C");
    hears(&world.calls[i], "Oc");
}

/* Begins a message, without waiting for the reply. */
static void begin(int i)
{
    char mail[] = "5:M<?>\\0";
    *strchr(mail, '?') = (char)('a' + i);
    say(&world.calls[i], mail);
}

/* Brings a connection to where its callback is held: its EOM, or RCPT. */
static struct call *hold(int i, enum mkit_step step)
{
    struct call *call = &world.calls[i];
    set_hold(call, step);
    greet(i);
    begin(i);
    hears(call, "c");
    say(call, "R");
    if (step == MKIT_EOM) {
        hears(call, "c");
        say(call, "E");
    }
    await_flag(&call->inside);
    return call;
}

/* -------------------------------------------------------------------------------------- tests */

static int add_header(struct mkit_session *session)
{
    return mkit_addheader(session, "X-Test", "value");
}

static int say_progress(struct mkit_session *session)
{
    return mkit_progress(session);
}

static int ask(struct mkit_session *session)
{
    return mkit_mta_gone(session);
}

static int replace_little(struct mkit_session *session)
{
    return mkit_replacebody(session, "new", 3);
}

enum { BODY = 50 << 20 };
static uint8_t *body; /* of BODY bytes, no two parts of it alike */

static int replace_much(struct mkit_session *session)
{
    return mkit_replacebody(session, body, BODY);
}

/* More than may wait: the first chunks leave, the last one stays. */
static int replace_some(struct mkit_session *session)
{
    return mkit_replacebody(session, body, (1 << 18) + 2 * MKIT_CHUNK + MKIT_CHUNK / 2);
}

static void one_after_the_other(void **state)
{
    serve(*state, (struct mkit_server_options){.progress = INTERVAL_MS});
    struct call *call = hold(0, MKIT_EOM);
    hears(call, "ppppp");
    release(call);
    hears_at_last(call, "c");
    say(call, "5:M<b>\\0 R"); /* the connection goes on */
    hears(call, "cc");
}

/* The watcher sleeps from one to the next. */
static void no_wake_ups_in_between(void **state)
{
    enum { MOST = 6, LONG_MS = 300, TRIES = 20 };
    serve(*state, (struct mkit_server_options){.progress = LONG_MS});
    const struct call *call = hold(0, MKIT_EOM);
    unsigned naps = UINT_MAX;
    for (int i = 0; i < TRIES && naps > MOST; i++) { /* it first has to see that all is calm */
        const unsigned before = atomic_load(&sys.naps);
        hears(call, "p");
        naps = atomic_load(&sys.naps) - before;
    }
    assert_int_in_range(naps, 1, MOST);
}

/* What the callback has queued stays behind progress. */
static void ahead_of_what_waits(void **state)
{
    serve(*state, (struct mkit_server_options){.progress = INTERVAL_MS});
    struct call *call = hold(0, MKIT_EOM);
    assert_int_equal(tell(call, add_header), 0);
    assert_int_equal(tell(call, replace_little), 0);
    hears(call, "ppppp");
    release(call);
    hears_at_last(call, "hbc");
}

/* Progress of the filter's own takes what waits along; the server's goes on after it. */
static void beside_the_filters_own(void **state)
{
    serve(*state, (struct mkit_server_options){.progress = INTERVAL_MS});
    struct call *call = hold(0, MKIT_EOM);
    assert_int_equal(tell(call, add_header), 0);
    assert_int_equal(tell(call, say_progress), 0);
    hears_at_last(call, "hppp");
    for (int i = 0; i < 200; i++)
        assert_int_equal(tell(call, say_progress), 0);
    release(call);
    hears_at_last(call, "c");
}

/* Whether the server says nothing on a connection while it sends progress on another one. */
static void stays_silent(const struct call *call, const struct call *other)
{
    while (readable(other, 0)) /* what was sent before now does not count */
        hears(other, "p");
    for (int i = 0; i < ROUNDS; i++)
        hears(other, "p");
    assert_false(readable(call, 0));
}

static void never_between_chunks(void **state)
{
    serve(*state, (struct mkit_server_options){.progress = INTERVAL_MS});
    struct call *call = hold(0, MKIT_EOM);
    struct call *other = hold(1, MKIT_EOM);
    post(call, replace_some);
    hears_at_last(call, "bbbb"); /* the call waits for room meanwhile */
    assert_int_equal(await(call), 0);
    while (readable(call, 0))
        hears(call, "b");
    stays_silent(call, other);
    assert_int_equal(tell(call, say_progress), 0); /* it sends the chunk that waits */
    while (readable(call, 0))
        hears(call, "b");
    stays_silent(call, other);
    assert_int_equal(tell(call, add_header), 0); /* it comes after the body */
    stays_silent(call, other);
    release(call);
    hears(call, "hc");
}

static void not_at_other_steps(void **state)
{
    serve(*state, (struct mkit_server_options){.progress = INTERVAL_MS});
    struct call *call = hold(0, MKIT_RCPT);
    const struct call *other = hold(1, MKIT_EOM);
    stays_silent(call, other);
    release(call);
    hears(call, "c");
}

static void not_after_waiting_replies(void **state)
{
    serve(*state, (struct mkit_server_options){.progress = INTERVAL_MS});
    struct call *call = &world.calls[0];
    const struct call *other = hold(1, MKIT_EOM);
    say(call, "O C 5:M<a>\\0 R E"); /* does not wait for its replies, so they wait for it */
    await_flag(&call->inside);
    stays_silent(call, other);
    release(call);
    hears(call, "Occcc");
}

static void none_if_it_is_off(void **state)
{
    enum { LOOKS = 10 };
    serve(*state, (struct mkit_server_options){.progress = -1});
    struct call *call = hold(0, MKIT_EOM);
    const unsigned before = atomic_load(&sys.naps);
    while (atomic_load(&sys.naps) - before < LOOKS)
        assert_false(readable(call, 1));
    release(call);
    hears(call, "c");
}

/* A progress packet of which a part has left is finished before anything else is sent: by the
 * watcher, at the call's end, or by what the callback sends. */
static struct call *split(struct bench *bench)
{
    serve(bench, (struct mkit_server_options){.progress = INTERVAL_MS});
    atomic_store(&sys.split, bench->ends[0]);
    struct call *call = hold(0, MKIT_EOM);
    uint8_t part[2];
    read_all(call, part, sizeof part);
    while (atomic_load(&sys.unable) == 0) /* the watcher has tried to send the rest */
        assert_false(readable(call, 1));
    return call;
}

static void hears_rest(const struct call *call)
{
    static const uint8_t rest[] = {0, 1, MKIT_R_PROGRESS};
    uint8_t part[sizeof rest];
    atomic_store(&sys.full, -1);
    read_all(call, part, sizeof part);
    assert_memory_equal(part, rest, sizeof rest);
}

static void split_and_finished_by_the_watcher(void **state)
{
    const struct call *call = split(*state);
    hears_rest(call);
    hears(call, "ppp");
}

static void split_and_finished_by_the_reply(void **state)
{
    struct call *call = split(*state);
    assert_int_equal(tell(call, add_header), 0);
    release(call);
    await_flag(&call->left);
    hears_rest(call);
    hears_at_last(call, "hc");
}

static void split_and_finished_by_a_flush(void **state)
{
    struct call *call = split(*state);
    assert_int_equal(tell(call, add_header), 0);
    const unsigned before = atomic_load(&sys.unable);
    post(call, say_progress);
    while (atomic_load(&sys.unable) == before)
        assert_false(readable(call, 1));
    hears_rest(call);
    assert_int_equal(await(call), 0);
    hears_at_last(call, "hp");
}

/* -------------------------------------------------------------------- connections beside the call
 */

/* Replies that share a batch with a callback that blocks leave before it returns. */
static void replies_of_others_leave(void **state)
{
    enum { BATCHES = 5 };
    serve(*state, (struct mkit_server_options){.runners = 1});
    struct call *call = &world.calls[0];
    for (int i = 0; i < CALLS; i++)
        greet(i);
    for (int batch = 0; batch < BATCHES; batch++) { /* which ones share one is up to chance */
        set_hold(call, MKIT_RCPT);
        begin(0);
        hears(call, "c");
        (void)pthread_mutex_lock(&world.lock); /* callbacks wait, so that the others pile up */
        for (int i = 1; i < CALLS; i++) {
            begin(i);
            if (i == CALLS / 2)
                say(call, "R");
        }
        (void)pthread_mutex_unlock(&world.lock);
        for (int i = 1; i < CALLS; i++)
            hears(&world.calls[i], "c");
        release(call);
        hears(call, "c");
        for (int i = 0; i < CALLS; i++)
            say(&world.calls[i], "A");
    }
}

/* ------------------------------------------------------------------------ an MTA that hangs up */

static void told_that_it_is_gone(struct bench *bench, enum mkit_step step)
{
    serve(bench, (struct mkit_server_options){.progress = INTERVAL_MS});
    struct call *call = hold(0, step);
    const struct call *other = hold(1, MKIT_EOM);
    assert_false(tell(call, ask));
    assert_int_equal(shutdown(call->fd, SHUT_RDWR), 0);
    assert_true(tell(call, ask));
    atomic_store(&sys.watched, bench->ends[0]);
    hears(other, "p"); /* what was under way is over */
    const unsigned before = atomic_load(&sys.progressed);
    for (int i = 0; i < ROUNDS; i++)
        hears(other, "p");
    assert_int_equal(atomic_load(&sys.progressed), before);
    assert_true(call->inside);
    if (step == MKIT_EOM) {
        assert_int_equal(tell(call, add_header), 0);
        assert_int_equal(tell(call, say_progress), MKIT_ECLOSED);
    }
    release(call);
    await_flag(&call->closed);
}

static void gone_at_the_end_of_a_message(void **state)
{
    told_that_it_is_gone(*state, MKIT_EOM);
}

static void gone_at_another_step(void **state)
{
    told_that_it_is_gone(*state, MKIT_RCPT);
}

/* ------------------------------------------------------------------- output that a slow MTA holds
 */

/* What waits, at most: the bound, and the chunk that passed it. */
enum { HELD = (1 << 18) + MKIT_HEADER_LEN + MKIT_CHUNK };

/* Waits until the callback has found its MTA's socket full. */
static void await_full(void)
{
    while (atomic_load(&sys.unable) == 0)
        (void)__real_poll(NULL, 0, 1);
}

static void a_large_body_for_a_slow_reader(void **state)
{
    static uint8_t data[MKIT_CHUNK];
    serve(*state, (struct mkit_server_options){.progress = INTERVAL_MS});
    struct call *call = hold(0, MKIT_EOM);
    post(call, replace_much);
    await_full();
    release(call);                          /* once it is done: the last chunks leave then */
    struct call *other = hold(1, MKIT_EOM); /* is served meanwhile */
    release(other);
    hears_at_last(other, "c");
    size_t got = 0;
    while (got < BODY) {
        size_t len;
        const char letter = hear(call, data, &len);
        if (got == 0 && letter == MKIT_R_PROGRESS)
            continue;
        assert_int_equal(letter, MKIT_R_REPLBODY);
        assert_int_in_range(len, 1, BODY - got);
        assert_memory_equal(data, body + got, len);
        got += len;
    }
    hears(call, "c");
    assert_int_in_range(atomic_load(&sys.most), 1, HELD);
}

static void a_large_body_for_nobody(void **state)
{
    struct bench *bench = *state;
    serve(bench, (struct mkit_server_options){.timeout = 1});
    struct call *call = hold(0, MKIT_EOM);
    struct call *other = hold(1, MKIT_EOM);
    post(call, replace_much);
    await_full();
    release(other);
    hears(other, "c");
    assert_int_equal(await(call), MKIT_ETIMEOUT);
    assert_int_in_range(atomic_load(&sys.most), 1, HELD);
    release(call);
    await_flag(&call->closed);
    while (recv(call->fd, (uint8_t[4096]){0}, 4096, 0) > 0) /* the connection ends */
        ;
    struct mkit_server_stats stats;
    mkit_server_get_stats(bench->server, &stats);
    assert_int_equal(stats.failures, 1);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_after_the_other),
        TEST(no_wake_ups_in_between),
        TEST(ahead_of_what_waits),
        TEST(beside_the_filters_own),
        TEST(never_between_chunks),
        TEST(not_at_other_steps),
        TEST(not_after_waiting_replies),
        TEST(none_if_it_is_off),
        TEST(split_and_finished_by_the_watcher),
        TEST(split_and_finished_by_the_reply),
        TEST(split_and_finished_by_a_flush),
        TEST(replies_of_others_leave),
        TEST(gone_at_the_end_of_a_message),
        TEST(gone_at_another_step),
        TEST(a_large_body_for_a_slow_reader),
        TEST(a_large_body_for_nobody),
    };
    body = malloc(BODY);
    if (!body)
        return 1;
    for (size_t i = 0; i + 4 <= BODY; i += 4)
        put_u32(body + i, (uint32_t)i);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(body);
    return failed;
}
