/* The floor: the least that any filter must do. One thread, one epoll, packets found and answered
 * by CONTINUE; no states, no checks, nothing looked at. Usage: floor PATH every|noreply */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "wire/protocol.h"

enum { EVENTS = 64, READ = 1 << 17, ANSWERS = 1 << 16 };

/* A connection: its descriptor, and the start of a packet that is not whole yet. */
struct peer {
    int fd;
    size_t len;
    size_t size;
    uint8_t *partial;
};

static bool no_reply;

_Noreturn static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void forget(struct peer *peer)
{
    (void)close(peer->fd);
    free(peer->partial);
    free(peer);
}

/* Answers a packet: returns how many bytes were put at `out`. */
static size_t answer(const struct mkit_packet *packet, uint8_t *out)
{
    static const uint8_t go_on[] = {0, 0, 0, 1, MKIT_R_CONTINUE};
    if (packet->command == MKIT_C_OPTNEG) {
        const struct mkit_field fields[] = {
            {.number = MKIT_VERSION_MAX}, {.number = 0}, {.number = no_reply ? MKIT_NR_BITS : 0}};
        return mkit_encode(MKIT_TO_MTA, MKIT_R_OPTNEG, fields, 3, out, ANSWERS);
    }
    if (packet->command == MKIT_C_MACRO || packet->command == MKIT_C_ABORT ||
        (no_reply && packet->command != MKIT_C_BODYEOB))
        return 0;
    (void)memcpy(out, go_on, sizeof go_on);
    return sizeof go_on;
}

/* Keeps what is left of the input for the next turn. */
static void keep(struct peer *peer, const uint8_t *rest, size_t len)
{
    if (len > peer->size) {
        uint8_t *partial = malloc(len);
        if (!partial)
            die("malloc");
        (void)memcpy(partial, rest, len);
        free(peer->partial);
        peer->partial = partial;
        peer->size = len;
    } else if (len) {
        (void)memmove(peer->partial, rest, len);
    }
    peer->len = len;
}

/* One turn: one read, answers to all that is whole, one write. Returns whether it goes on. */
static bool serve(struct peer *peer)
{
    static uint8_t in[READ + MKIT_HEADER_LEN + MKIT_CHUNK];
    static uint8_t out[ANSWERS];
    if (peer->len)
        (void)memcpy(in, peer->partial, peer->len);
    const ssize_t got = recv(peer->fd, in + peer->len, READ, 0);
    if (got <= 0)
        return got < 0 && errno == EINTR;
    const size_t len = peer->len + (size_t)got;
    size_t used = 0, answers = 0;
    for (;;) {
        struct mkit_packet packet;
        const ssize_t whole = mkit_frame_read(in + used, len - used, MKIT_CHUNK, &packet, NULL);
        if (whole < 0 || (whole > 0 && packet.command == MKIT_C_QUIT))
            return false;
        if (whole == 0)
            break;
        used += (size_t)whole;
        answers += answer(&packet, out + answers);
        if (answers > sizeof out / 2)
            return false; /* more than any MTA asks at once */
    }
    keep(peer, in + used, len - used);
    return answers == 0 || send(peer->fd, out, answers, MSG_NOSIGNAL) == (ssize_t)answers;
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || strlen(path) >= sizeof address.sun_path)
        die(path);
    (void)memcpy(address.sun_path, path, strlen(path) + 1);
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) || listen(fd, SOMAXCONN))
        die(path);
    return fd;
}

static bool watch(int epoll, int fd, struct peer *peer)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

static void take_in(int epoll, int listener)
{
    const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    struct peer *peer = fd >= 0 ? calloc(1, sizeof *peer) : NULL;
    if (!peer)
        die("accept4");
    peer->fd = fd;
    if (!watch(epoll, fd, peer)) {
        free(peer);
        die("epoll_ctl");
    }
} /* NOLINT(clang-analyzer-unix.Malloc): epoll has the pointer now */

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    no_reply = strcmp(argv[2], "noreply") == 0;
    const int listener = listen_at(argv[1]);
    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!watch(epoll, listener, NULL))
        die("epoll_ctl");
    for (;;) {
        struct epoll_event events[EVENTS];
        const int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct peer *peer = events[i].data.ptr;
            if (!peer)
                take_in(epoll, listener);
            else if (!serve(peer))
                forget(peer);
        }
    }
}
