/* What becomes of sockets: who may open one, with which mode, who closes it, and who keeps a copy.
 * The calls that set a file's mode and owner go through this file (-Wl,--wrap). */
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "client.h"
#include "milterkit.h"

static int on_step(struct mkit_session *session, const struct mkit_event *event)
{
    (void)session;
    (void)event;
    return MKIT_CONTINUE;
}

static const struct mkit_filter filter = {
    .on = {on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step,
           on_step, on_step},
};

/* --------------------------------------------------------------------------------- the bench */

struct bench {
    struct mkit_server *server;
    pthread_t thread;
    bool running;
    int result;
    char folder[32];
    char path[64];
    char spec[80];
};

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    (void)snprintf(bench->folder, sizeof bench->folder, "/tmp/mkit-XXXXXX");
    if (!bench || !mkdtemp(bench->folder))
        return -1;
    (void)snprintf(bench->path, sizeof bench->path, "%s/socket", bench->folder);
    (void)snprintf(bench->spec, sizeof bench->spec, "unix:%s", bench->path);
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
    (void)unlink(bench->path);
    (void)rmdir(bench->folder);
    free(bench);
    return 0;
}

static void make(struct bench *bench, struct mkit_server_options options)
{
    bench->server = mkit_server_new(&filter, &options);
    assert_non_null(bench->server);
}

static void *run_server(void *arg)
{
    struct bench *bench = arg;
    bench->result = mkit_server_run(bench->server, NULL, NULL);
    return NULL;
}

static void pause_for_a_moment(void)
{
    static const struct timespec moment = {.tv_nsec = 1000000};
    (void)nanosleep(&moment, NULL);
}

/* Runs the server, and waits until it does. */
static void start(struct bench *bench)
{
    assert_int_equal(pthread_create(&bench->thread, NULL, run_server, bench), 0);
    bench->running = true;
    struct mkit_server_stats stats = {0};
    for (int i = 0; i < DEADLINE_S * 1000 && !stats.threads; i++) {
        pause_for_a_moment();
        mkit_server_get_stats(bench->server, &stats);
    }
    assert_int_equal(stats.threads, 1);
}

static void stop_server(struct bench *bench)
{
    mkit_server_stop(bench->server);
    assert_int_equal(pthread_join(bench->thread, NULL), 0);
    bench->running = false;
    assert_int_equal(bench->result, 0);
}

static bool is_served(int fd)
{
    const bool served = fd >= 0 && say(fd, "G") && hears(fd, "Occ");
    (void)close(fd);
    return served;
}

/* A connection to the port of the server's only socket; -1 if nobody listens there. */
static int connect_inet(in_port_t port)
{
    const struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_port = port,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&to, sizeof to) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

static in_port_t port_of(struct mkit_server *server)
{
    char text[64];
    assert_int_equal(mkit_server_address(server, 0, text, sizeof text), 0);
    assert_memory_equal(text, "inet:", 5);
    return htons((in_port_t)strtol(text + 5, NULL, 10));
}

/* ------------------------------------------------------------------------------- what is open */

static void addresses(void **state)
{
    struct bench *bench = *state;
    char text[200];
    char spec[32];
    make(bench, (struct mkit_server_options){0});
    assert_int_equal(mkit_server_address(bench->server, 0, text, sizeof text), MKIT_EINVAL);
    assert_int_equal(mkit_server_listen(bench->server, bench->spec, NULL), 0);
    assert_int_equal(mkit_server_address(bench->server, 0, text, sizeof text), 0);
    assert_string_equal(text, bench->spec);
    assert_int_equal(mkit_server_address(bench->server, 1, text, sizeof text), MKIT_EINVAL);
    /* One of no family that a specification knows, here a name outside the file system. */
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr_un name = {.sun_family = AF_UNIX};
    assert_int_equal(bind(fd, (const struct sockaddr *)&name, sizeof(sa_family_t)), 0);
    (void)snprintf(spec, sizeof spec, "fd:%d", fd);
    assert_int_equal(mkit_server_listen(bench->server, spec, NULL), 0);
    assert_int_equal(mkit_server_address(bench->server, 1, text, sizeof text), 0);
    assert_string_equal(text, spec);
    assert_int_equal(mkit_server_address(bench->server, 2, text, sizeof text), MKIT_EINVAL);
    (void)close(fd);
}

static void same_specifications(void **state)
{
    (void)state;
    assert_true(mkit_same_spec("unix:/run/x", "local:/run/x"));
    assert_true(mkit_same_spec("/run/x", "unix:/run/x"));
    assert_true(mkit_same_spec("inet:8888@127.0.0.1", "INET:8888@[127.0.0.1]"));
    assert_true(mkit_same_spec("fd:3", "fd:3"));
    assert_false(mkit_same_spec("fd:3", "fd:4"));
    assert_false(mkit_same_spec("unix:/run/x", "unix:/run/y"));
    assert_false(mkit_same_spec("inet:8888", "inet:8889"));
    assert_false(mkit_same_spec("inet:8888", "inet6:8888"));
    assert_false(mkit_same_spec("nonsense:", "nonsense:"));
}

/* A number that does not fit is refused, also where it would be another one modulo 2^32. */
static void numbers_that_do_not_fit(void **state)
{
    struct bench *bench = *state;
    bench->server = mkit_server_new(&filter, NULL);
    assert_int_equal(mkit_server_listen(bench->server, "fd:4294967299", NULL), MKIT_ESPEC);
    assert_int_equal(mkit_server_listen(bench->server, "inet:4294967321", NULL), MKIT_ESPEC);
}

/* A run that could never do anything says so; one to which connections will be given does not. */
static void nothing_to_serve(void **state)
{
    struct bench *bench = *state;
    make(bench, (struct mkit_server_options){0});
    assert_int_equal(mkit_server_run(bench->server, NULL, NULL), MKIT_EINVAL);
    assert_non_null(strstr(mkit_server_why(bench->server), "nothing to serve"));
    assert_int_equal(mkit_server_listen(bench->server, bench->spec, NULL), 0);
    mkit_server_stop(bench->server);
    assert_int_equal(mkit_server_run(bench->server, NULL, NULL), 0);
    assert_int_equal(mkit_server_run(bench->server, NULL, NULL), MKIT_EINVAL);
    mkit_server_free(bench->server);
    make(bench, (struct mkit_server_options){.adopts = true});
    mkit_server_stop(bench->server);
    assert_int_equal(mkit_server_run(bench->server, NULL, NULL), 0);
}

static void a_socket_while_it_runs(void **state)
{
    struct bench *bench = *state;
    make(bench, (struct mkit_server_options){0});
    assert_int_equal(mkit_server_listen(bench->server, "inet:0@127.0.0.1", NULL), 0);
    start(bench);
    assert_int_equal(mkit_server_listen(bench->server, bench->spec, NULL), 0);
    assert_true(is_served(client_connect(bench->path)));
    const int open = client_connect(bench->path);
    assert_true(say(open, "G M") && hears(open, "Occc"));
    mkit_server_stop(bench->server);
    while (access(bench->path, F_OK) == 0) /* until it drains */
        pause_for_a_moment();
    assert_int_equal(mkit_server_listen(bench->server, bench->spec, NULL), MKIT_EBUSY);
    assert_int_not_equal(access(bench->path, F_OK), 0);
    (void)close(open);
    stop_server(bench);
}

/* A connection that never says anything ends also where nothing else happens. */
static void a_silent_one_that_is_adopted(void **state)
{
    struct bench *bench = *state;
    int ends[2];
    make(bench, (struct mkit_server_options){.timeout = 1, .adopts = true});
    start(bench);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(mkit_server_adopt(bench->server, ends[1]), 0);
    assert_true(hears_end(ends[0]));
    (void)close(ends[0]);
    stop_server(bench);
}

static void sockets_of_another_server(void **state)
{
    struct bench *bench = *state;
    struct mkit_server *opener = mkit_server_new(&filter, NULL);
    make(bench, (struct mkit_server_options){0});
    assert_int_equal(mkit_server_listen(opener, bench->spec, NULL), 0);
    assert_int_equal(mkit_server_hand_over(opener, bench->server), 0);
    mkit_server_free(opener);
    start(bench);
    assert_true(is_served(client_connect(bench->path)));
    struct mkit_server *other = mkit_server_new(&filter, NULL);
    assert_int_equal(mkit_server_hand_over(bench->server, other), MKIT_EBUSY);
    assert_true(is_served(client_connect(bench->path)));
    stop_server(bench);
    /* A stop comes with them. */
    assert_int_equal(mkit_server_listen(bench->server, bench->spec, NULL), 0);
    mkit_server_stop(bench->server);
    assert_int_equal(mkit_server_hand_over(bench->server, other), 0);
    assert_int_equal(mkit_server_run(other, NULL, NULL), 0);
    mkit_server_free(other);
}

/* ------------------------------------------------------------------------- modes and old files */

int __real_chmod(const char *path, mode_t mode);
int __wrap_chmod(const char *path, mode_t mode);
int __real_chown(const char *path, uid_t uid, gid_t gid);
int __wrap_chown(const char *path, uid_t uid, gid_t gid);

static mode_t before_chmod = 07777;
static mode_t before_chown = 07777;

static mode_t mode_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? st.st_mode & 07777U : 0;
}

int __wrap_chmod(const char *path, mode_t mode)
{
    before_chmod = mode_of(path);
    return __real_chmod(path, mode);
}

int __wrap_chown(const char *path, uid_t uid, gid_t gid)
{
    before_chown = mode_of(path);
    return __real_chown(path, uid, gid);
}

static void never_more_open_than_asked(void **state)
{
    struct bench *bench = *state;
    static const mode_t modes[] = {0600, 0660, 0620, 0};
    const mode_t mask = umask(0);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        struct mkit_listen_options options = {.set_mode = true, .mode = modes[i]};
        make(bench, (struct mkit_server_options){0});
        assert_int_equal(mkit_server_listen(bench->server, bench->spec, &options), 0);
        assert_int_equal(before_chmod & ~modes[i], 0);
        assert_int_equal(mode_of(bench->path), modes[i]);
        mkit_server_free(bench->server);
        options.set_owner =
            true; /* until it is another's, the group is not the one that was meant */
        options.uid = getuid();
        options.gid = getgid();
        make(bench, (struct mkit_server_options){0});
        assert_int_equal(mkit_server_listen(bench->server, bench->spec, &options), 0);
        assert_int_equal(before_chown & ~(modes[i] & 0700U), 0);
        assert_int_equal(mode_of(bench->path), modes[i]);
        mkit_server_free(bench->server);
        bench->server = NULL;
    }
    (void)umask(mask);
}

/* One of several that open the same socket at once. */
struct opener {
    const struct bench *bench;
    pthread_barrier_t *barrier;
    struct mkit_server *server;
    int result;
};

static void *open_it(void *arg)
{
    static const struct mkit_listen_options options = {.remove_stale = true};
    struct opener *opener = arg;
    (void)pthread_barrier_wait(opener->barrier);
    opener->result = mkit_server_listen(opener->server, opener->bench->spec, &options);
    return NULL;
}

static void leave_stale(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    (void)close(fd);
}

/* On an old file: one of them has it, and answers; the others are told so. */
static void several_at_once(void **state)
{
    enum { OPENERS = 4, ROUNDS = 200 };
    const struct bench *bench = *state;
    pthread_barrier_t barrier;
    assert_int_equal(pthread_barrier_init(&barrier, NULL, OPENERS), 0);
    for (int round = 0; round < ROUNDS; round++) {
        struct opener openers[OPENERS];
        pthread_t threads[OPENERS];
        int opened = 0;
        leave_stale(bench->path);
        for (int i = 0; i < OPENERS; i++) {
            openers[i] = (struct opener){bench, &barrier, mkit_server_new(&filter, NULL), 0};
            assert_int_equal(pthread_create(&threads[i], NULL, open_it, &openers[i]), 0);
        }
        for (int i = 0; i < OPENERS; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
            opened += openers[i].result == 0;
        }
        const int fd = client_connect(bench->path);
        assert_true(fd >= 0);
        (void)close(fd);
        assert_int_equal(opened, 1);
        for (int i = 0; i < OPENERS; i++)
            mkit_server_free(openers[i].server);
        assert_int_not_equal(access(bench->path, F_OK), 0);
    }
    (void)pthread_barrier_destroy(&barrier);
}

/* -------------------------------------------------------------------------------------- forks */

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder && readdir(folder))
        count++;
    (void)closedir(folder);
    return count;
}

/* Forks a child that does something, says so, and stays until end_child. */
static pid_t fork_child(void (*work)(struct mkit_server *, int), struct mkit_server *server,
                        int until[2], unsigned *said)
{
    int tell[2];
    assert_int_equal(pipe2(tell, O_CLOEXEC), 0);
    assert_int_equal(pipe2(until, O_CLOEXEC), 0);
    const pid_t child = fork();
    if (child == 0) {
        char byte;
        (void)close(until[1]);
        if (work)
            work(server, tell[1]);
        (void)!write(tell[1], &(unsigned){open_descriptors()}, sizeof(unsigned));
        _exit(read(until[0], &byte, 1) != 0);
    }
    (void)close(tell[1]);
    assert_int_equal(read(tell[0], said, sizeof *said), sizeof *said);
    (void)close(tell[0]);
    (void)close(until[0]);
    return child;
}

static void end_child(pid_t child, const int until[2])
{
    int status = -1;
    (void)close(until[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* Copies that a child has keep nothing alive. */
static void a_child_that_keeps_copies(void **state)
{
    struct bench *bench = *state;
    int until[2];
    unsigned ignored;
    make(bench, (struct mkit_server_options){0});
    assert_int_equal(mkit_server_listen(bench->server, "inet:0@127.0.0.1", NULL), 0);
    const in_port_t port = port_of(bench->server);
    start(bench);
    const int fd = connect_inet(port);
    assert_true(say(fd, "G") && hears(fd, "Occ"));
    const pid_t child = fork_child(NULL, bench->server, until, &ignored);
    assert_true(say(fd, "Q") && hears_end(fd));
    (void)close(fd);
    stop_server(bench);
    assert_int_equal(connect_inet(port), -1);
    end_child(child, until);
}

static void part(struct mkit_server *server, int tell)
{
    (void)tell;
    mkit_server_forked(server);
}

/* A child that parts has no copies, and the parent serves on. */
static void a_child_that_parts(void **state)
{
    struct bench *bench = *state;
    int until[2];
    unsigned with;
    unsigned without;
    make(bench, (struct mkit_server_options){0});
    assert_int_equal(mkit_server_listen(bench->server, bench->spec, NULL), 0);
    start(bench);
    const int fd = client_connect(bench->path);
    assert_true(say(fd, "G") && hears(fd, "Occ"));
    pid_t child = fork_child(NULL, bench->server, until, &with);
    end_child(child, until);
    child = fork_child(part, bench->server, until, &without);
    /* Two pipes, the socket, the connection, and the poller's two at least. */
    assert_int_in_range(with, without + 8, without + 9);
    assert_true(say(fd, "M R") && hears(fd, "cc"));
    assert_true(is_served(client_connect(bench->path)));
    end_child(child, until);
    assert_true(say(fd, "Q") && hears_end(fd));
    (void)close(fd);
    assert_int_equal(access(bench->path, F_OK), 0);
    stop_server(bench);
    assert_int_not_equal(access(bench->path, F_OK), 0);
}

/* What was inherited is others' as well: they accept there after our end. */
static void a_socket_that_is_shared(void **state)
{
    struct bench *bench = *state;
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t len = sizeof address;
    char spec[32];
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    make(bench, (struct mkit_server_options){0});
    (void)snprintf(spec, sizeof spec, "fd:%d", fd);
    assert_int_equal(mkit_server_listen(bench->server, spec, NULL), 0);
    start(bench);
    assert_true(is_served(connect_inet(address.sin_port)));
    stop_server(bench);
    const int peer = connect_inet(address.sin_port);
    assert_true(peer >= 0);
    (void)close(peer);
    (void)close(fd);
}

#define TEST(test)                                                                                 \
    {                                                                                              \
#test, test, set_up, tear_down, NULL                                                       \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(addresses),
        TEST(same_specifications),
        TEST(numbers_that_do_not_fit),
        TEST(nothing_to_serve),
        TEST(a_socket_while_it_runs),
        TEST(a_silent_one_that_is_adopted),
        TEST(sockets_of_another_server),
        TEST(never_more_open_than_asked),
        TEST(several_at_once),
        TEST(a_child_that_keeps_copies),
        TEST(a_child_that_parts),
        TEST(a_socket_that_is_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
