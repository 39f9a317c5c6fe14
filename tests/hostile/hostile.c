/* Hostile peers by the million: recorded sessions, mutated, against sessions in this process, then
 * over sockets against a server in another one, with honest connections in between.
 *
 * Usage: hostile SESSIONS CONNECTIONS SEED FILE... The files hold what an MTA sends, as it is on
 * the wire. Fails if a session does not end with its close, if an honest connection is not served,
 * or if memory or descriptors are not given back.
 * hostile at PATH CONNECTIONS SEED FILE... connects to another program's filter on a unix socket,
 * which must answer every step by CONTINUE, and add one header at the end of a message. */
#include <dirent.h>
#include <errno.h>
#ifdef HAVE_MALLINFO2
#include <malloc.h>
#endif
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "milterkit.h"
#include "wire/bytes.h"

enum {
    ROOM = 1 << 17,      /* bytes of one mutated session, at most */
    WAVE = 64,           /* hostile connections at once, and then one honest one */
    DEADLINE_MS = 30000, /* of one answer to an honest connection */
#ifdef HAVE_MALLINFO2
    CACHES = 64 << 10, /* bytes; the allocator counts what it keeps for the next one as used */
#else
    CACHES = 4 << 20, /* and what it keeps in pages that are in use */
#endif
    MAY_GROW_KB = 24 << 10 /* of the process that serves; its threads' buffers among it */
};

#define FAIL(...)                                                                                  \
    do {                                                                                           \
        (void)fprintf(stderr, "hostile: " __VA_ARGS__);                                            \
        (void)fputc('\n', stderr);                                                                 \
        exit(1);                                                                                   \
    } while (0)

/* ------------------------------------------------------------------------------------- choices */

static uint64_t seed;

static size_t any(size_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return below ? (size_t)(seed >> 11) % below : 0;
}

/* ------------------------------------------------------------------------------------ mutations */

/* What was recorded. */
static struct recording {
    uint8_t *at;
    size_t len;
} recordings[4096];
static size_t recordings_count;

static void read_recording(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct recording *recording = &recordings[recordings_count];
    if (!file)
        FAIL("%s: %s", path, strerror(errno));
    static uint8_t bytes[ROOM / 2]; /* mutations may double it */
    recording->len = fread(bytes, 1, sizeof bytes, file);
    (void)fclose(file);
    recording->at = malloc(recording->len + 1);
    if (!recording->at)
        FAIL("no memory for %s", path);
    memcpy(recording->at, bytes, recording->len);
    /* What begins with another byte is for the fuzzer: decisions come before the packets. */
    if (recording->len && recording->at[0] == 0 &&
        recordings_count + 1 < sizeof recordings / sizeof *recordings)
        recordings_count++;
    else
        free(recording->at);
}

/* Takes a part out, puts it in twice, or puts a part of another recording in. */
static size_t move_part(uint8_t *at, size_t len)
{
    const struct recording *other = &recordings[any(recordings_count)];
    const size_t from = any(len);
    size_t part = any(any(4) ? 16 : len - from);
    switch (any(3)) {
    case 0: /* out */
        part = part < len - from ? part : len - from;
        memmove(at + from, at + from + part, len - from - part);
        return len - part;
    case 1: /* twice */
        part = part < len - from ? part : len - from;
        part = part < ROOM - len ? part : ROOM - len;
        memmove(at + from + part, at + from, len - from);
        return len + part;
    default: /* another's end */
        part = any(other->len);
        part = part < ROOM - from ? part : ROOM - from;
        memcpy(at + from, other->at + other->len - part, part);
        return from + part;
    }
}

static void spoil_bytes(uint8_t *at, size_t len)
{
    static const uint8_t bytes[] = "\0\1\4\377\177\200 ABCDEHKLMNOQRTUZ";
    static const uint32_t lengths[] = {0,          1,          2,          5,         65535,
                                       65536,      65537,      0x100000,   0x100001,  0x100002,
                                       0x7fffffff, 0x80000000, 0x80000001, 0xffffffff};
    switch (any(4)) {
    case 0: at[any(len)] ^= (uint8_t)(1U << any(8)); break;
    case 1: at[any(len)] = bytes[any(sizeof bytes)]; break;
    case 2: at[any(len)] = (uint8_t)any(256); break;
    default: /* the length of some packet */
        for (size_t next = 0, packets = any(8); next + 4 <= len; packets--) {
            if (packets == 0) {
                put_u32(at + next, lengths[any(sizeof lengths / sizeof *lengths)]);
                break;
            }
            next += 4 + (size_t)get_u32(at + next);
        }
    }
}

/* Makes what one hostile peer sends. Returns its length. */
static size_t make_hostile(uint8_t *to)
{
    if (any(50) == 0) { /* noise from the first byte on */
        const size_t len = any(2000);
        for (size_t i = 0; i < len; i++)
            to[i] = (uint8_t)any(256);
        return len;
    }
    const struct recording *recording = &recordings[any(recordings_count)];
    size_t len = recording->len;
    memcpy(to, recording->at, len);
    for (size_t changes = any(6); changes && len; changes--)
        if (any(3) == 0)
            len = move_part(to, len);
        else
            spoil_bytes(to, len);
    return any(8) ? len : any(len);
}

/* -------------------------------------------------------------------------------------- filter */

static unsigned closes;

/* Answers at random, and tries a change or two. */
static int on_step(struct mkit_session *session, const struct mkit_event *event)
{
    static const int verdicts[] = {MKIT_REJECT, MKIT_TEMPFAIL, MKIT_ACCEPT, MKIT_DISCARD,
                                   MKIT_SKIP,   MKIT_NOREPLY,  -1,          99};
    static const char *const lines[] = {"no", "and no"};
    closes += event->step == MKIT_CLOSE;
    if (event->step == MKIT_EOM) {
        (void)mkit_addheader(session, "X", "a\n b");
        (void)mkit_replacebody(session, "text", 4);
    }
    (void)mkit_getsymval(session, "{client_addr}");
    (void)mkit_setreply(session, "550", "5.7.1", lines, any(3));
    return any(12) ? MKIT_CONTINUE : verdicts[any(8)];
}

/* The server's filter: the same answer to all, and private memory to be given back. */
static int on_step_of_server(struct mkit_session *session, const struct mkit_event *event)
{
    if (event->step == MKIT_CONNECT && !mkit_private(session))
        mkit_set_private(session, malloc(100));
    if (event->step == MKIT_EOM)
        (void)mkit_addheader(session, "X", "a\n b");
    if (event->step == MKIT_CLOSE) {
        free(mkit_private(session));
        mkit_set_private(session, NULL);
    }
    return MKIT_CONTINUE;
}

static struct mkit_filter make_filter(mkit_callback *callback)
{
    struct mkit_filter filter = {.actions = MKIT_ALL_ACTIONS};
    for (int step = 0; step < MKIT_NEGOTIATE; step++)
        filter.on[step] = callback;
    return filter;
}

/* ------------------------------------------------------------------------------------ sessions */

static int serve(struct mkit_session *session)
{
    struct mkit_event event;
    int result;
    const uint8_t *out;
    while ((result = mkit_session_next(session, &event)) == MKIT_EVENT)
        (void)mkit_session_answer(session, on_step(session, &event));
    mkit_session_sent(session, mkit_session_output(session, &out));
    return result;
}

static void one_session(const struct mkit_filter *filter, const uint8_t *data, size_t len)
{
    struct mkit_session *session = mkit_session_new(filter);
    if (!session)
        FAIL("no memory");
    const size_t most = any(2) ? len : 1 + any(200);
    int result = MKIT_NEED_INPUT;
    closes = 0;
    for (size_t done = 0; done < len && result == MKIT_NEED_INPUT;) {
        const size_t part = most < len - done ? most : len - done;
        if (mkit_session_feed(session, data + done, part) < 0)
            FAIL("bytes were refused: %s", mkit_session_why(session));
        result = serve(session);
        done += part;
    }
    mkit_session_eof(session);
    result = serve(session);
    if (result != MKIT_CLOSED && result >= 0)
        FAIL("a session did not end: %d", result);
    if (closes == 0)
        FAIL("a session ended without its close: %s", mkit_session_why(session));
    mkit_session_free(session);
}

/* Written by the kernel. */
static unsigned long resident_kb(pid_t pid)
{
    char path[64];
    unsigned long total = 0;
    unsigned long resident = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%lu %lu", &total, &resident) != 2)
        FAIL("%s: %s", path, strerror(errno));
    (void)fclose(file);
    return resident * (unsigned long)sysconf(_SC_PAGESIZE) / 1024;
}

/* What this process has from malloc, or, where that does not tell, all its memory; in bytes. */
static size_t allocated(void)
{
#ifdef HAVE_MALLINFO2
    return mallinfo2().uordblks;
#else
    return resident_kb(getpid()) << 10;
#endif
}

static void run_sessions(unsigned long count)
{
    static uint8_t data[ROOM];
    struct mkit_filter filters[] = {make_filter(on_step), make_filter(on_step)};
    filters[1].degree = MKIT_COMPATIBLE;
    const size_t before = allocated();
    for (unsigned long i = 0; i < count; i++) {
        const size_t len = make_hostile(data);
        one_session(&filters[any(2)], data, len);
    }
    const size_t after = allocated();
    printf("%lu sessions: all ended with their close; %zu KiB were allocated before, %zu after\n",
           count, before >> 10, after >> 10);
    if (after > before + CACHES)
        FAIL("sessions left memory behind");
}

/* -------------------------------------------------------------------------------------- server */

static int stop(void *arg)
{
    mkit_server_stop(arg);
    return 0;
}

/* Serves in a process of its own, until the pokes that both share say that it is enough. */
static pid_t start(struct mkit_server *server)
{
    (void)fflush(stdout);
    const pid_t pid = fork();
    if (pid < 0)
        FAIL("no process: %s", strerror(errno));
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(mkit_server_run(server, stop, server) != 0);
    }
    return pid;
}

static void end(struct mkit_server *server, pid_t pid)
{
    int status = -1;
    if (write(mkit_server_poke_fd(server), "", 1) != 1 || waitpid(pid, &status, 0) != pid || status)
        FAIL("the server ended with status %d", status);
}

static unsigned descriptors(pid_t pid)
{
    char path[64];
    unsigned count = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *folder = opendir(path);
    if (!folder)
        FAIL("the server is gone");
    while (readdir(folder))
        count++;
    (void)closedir(folder);
    return count;
}

/* ------------------------------------------------------------------------------------- clients */

static int connect_to(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    (void)snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&un, sizeof un) < 0)
        FAIL("cannot connect: %s", strerror(errno));
    return fd;
}

static void read_exactly(int fd, uint8_t *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        struct pollfd readable = {.fd = fd, .events = POLLIN};
        const int ready = poll(&readable, 1, DEADLINE_MS);
        const ssize_t got = ready == 1 ? recv(fd, to + done, len - done, 0) : -1;
        if (got <= 0)
            FAIL("an honest connection was not served: %s", ready ? "it was closed" : "no answer");
        done += (size_t)got;
    }
}

/* A whole session on a new connection, which it returns; every answer must come. */
static int be_honest(const char *path)
{
    static const uint8_t session[] = "\0\0\0\x0dO\0\0\0\6\0\0\1\xff\0\x1f\xff\xff"
                                     "\0\0\0\x0e"
                                     "Ch\0004\0\x19"
                                     "1.2.3.4\0"
                                     "\0\0\0\4Hme\0\0\0\0\5M<a>\0\0\0\0\5R<b>\0\0\0\0\1T"
                                     "\0\0\0\5LX\0v\0\0\0\0\1N\0\0\0\3Bxy\0\0\0\1E";
    const int fd = connect_to(path);
    if (send(fd, session, sizeof session - 1, MSG_NOSIGNAL) != sizeof session - 1)
        FAIL("an honest connection was not read");
    for (const char *reply = "Occcccccchc"; *reply; reply++) {
        uint8_t packet[64];
        read_exactly(fd, packet, 5);
        if (packet[4] != (uint8_t)*reply || get_u32(packet) > sizeof packet)
            FAIL("an honest connection was answered %c, not %c", packet[4], *reply);
        read_exactly(fd, packet, get_u32(packet) - 1);
    }
    return fd;
}

/* Sends what it can, and leaves in some way. Returns a descriptor that stays open, or -1. */
static int be_hostile(const char *path, const uint8_t *data, size_t len)
{
    const int fd = connect_to(path);
    const struct linger reset = {.l_onoff = 1};
    for (size_t done = 0; done < len;) {
        const size_t part = any(4) ? len - done : 1 + any(len - done);
        const ssize_t sent = send(fd, data + done, part, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0)
            break;
        done += (size_t)sent;
    }
    switch (any(4)) {
    case 0: return fd; /* says no more and reads nothing */
    case 1: (void)shutdown(fd, SHUT_WR); return fd;
    case 2: (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset); break;
    default: break;
    }
    (void)close(fd);
    return -1;
}

static void run_waves(const char *path, unsigned long count)
{
    static uint8_t data[ROOM];
    for (unsigned long done = 0; done < count; done += WAVE) {
        int open[WAVE];
        for (int i = 0; i < WAVE; i++)
            open[i] = be_hostile(path, data, make_hostile(data));
        (void)close(be_honest(path));
        for (int i = 0; i < WAVE; i++)
            if (open[i] >= 0)
                (void)close(open[i]);
    }
}

/* Waits until the server has as many descriptors as it had: it has then forgotten everybody. */
static void await_descriptors(pid_t pid, unsigned wanted)
{
    unsigned now = 0;
    for (int tries = 0; tries < DEADLINE_MS / 10; tries++) {
        now = descriptors(pid);
        if (now <= wanted)
            return;
        (void)poll(NULL, 0, 10);
    }
    FAIL("the server had %u descriptors, and has %u", wanted, now);
}

static void run_connections(unsigned long count)
{
    static struct mkit_filter filter;
    filter = make_filter(on_step_of_server);
    char folder[] = "/tmp/mkit-XXXXXX";
    char spec[64];
    if (!mkdtemp(folder))
        FAIL("%s: %s", folder, strerror(errno));
    (void)snprintf(spec, sizeof spec, "unix:%s/socket", folder);
    const char *path = spec + strlen("unix:");
    const struct mkit_server_options options = {.drain = 1};
    struct mkit_server *server = mkit_server_new(&filter, &options);
    if (!server || mkit_server_listen(server, spec, NULL) < 0)
        FAIL("no server: %s", server ? mkit_server_why(server) : "no memory");
    const pid_t pid = start(server);

    const int first = be_honest(path); /* stays, so that its descriptor counts before and after */
    const unsigned had = descriptors(pid);
    run_waves(path, WAVE * 16UL); /* now it has the threads and buffers that it needs */
    const unsigned long before = resident_kb(pid);
    run_waves(path, count);
    await_descriptors(pid, had);
    const unsigned long after = resident_kb(pid);
    printf("%lu connections: %lu honest ones among them, all served; the server had %lu KiB and "
           "%u descriptors, and has %lu and %u\n",
           count, count / WAVE, before, had, after, descriptors(pid));
    if (after > before + MAY_GROW_KB)
        FAIL("the server grew from %lu to %lu KiB", before, after);
    (void)close(first);
    end(server, pid);
    mkit_server_free(server);
    (void)rmdir(folder);
}

int main(int argc, char **argv)
{
    const bool elsewhere = argc > 1 && strcmp(argv[1], "at") == 0;
    if (argc < 5 + elsewhere)
        FAIL("usage: hostile SESSIONS CONNECTIONS SEED FILE...\n"
             "       hostile at PATH CONNECTIONS SEED FILE...");
    argv += elsewhere;
    argc -= elsewhere;
    const unsigned long sessions = strtoul(argv[1], NULL, 10);
    const unsigned long connections = strtoul(argv[2], NULL, 10);
    seed = strtoull(argv[3], NULL, 10) * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (int i = 4; i < argc; i++)
        read_recording(argv[i]);
    if (recordings_count == 0)
        FAIL("none of the files is a recorded session");
    if (elsewhere) {
        run_waves(argv[1], connections);
        return 0;
    }
    run_connections(connections);
    run_sessions(sessions);
    return 0;
}
