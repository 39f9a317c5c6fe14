/* The poller on Linux's epoll. Connections are edge-triggered: no call is needed to take a
 * connection out of the set while it is served, nor to put it back. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "server/poller.h"

enum { BATCH = 256 };

static const uint64_t wake_id = UINT64_MAX;

struct epoll_poller {
    struct poller base;
    int epoll;
    int wake;
    struct epoll_event events[BATCH];
};

static void close_epoll(struct poller *poller)
{
    struct epoll_poller *self = (struct epoll_poller *)poller;
    if (self->epoll >= 0)
        close(self->epoll);
    if (self->wake >= 0)
        close(self->wake);
    free(self);
}

static struct poller *open_epoll(void)
{
    struct epoll_poller *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->epoll = epoll_create1(EPOLL_CLOEXEC);
    self->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = wake_id};
    if (self->epoll < 0 || self->wake < 0 ||
        epoll_ctl(self->epoll, EPOLL_CTL_ADD, self->wake, &event) < 0) {
        int error = errno;
        close_epoll(&self->base);
        errno = error;
        return NULL;
    }
    return &self->base;
}

static int set_epoll(struct poller *poller, int fd, uint64_t id, enum poll_for what, bool is_new)
{
    static const uint32_t masks[] = {
        [POLL_READ] = EPOLLIN | EPOLLRDHUP | EPOLLET,
        [POLL_WRITE] = EPOLLOUT | EPOLLET,
        [POLL_CONNECTIONS] = EPOLLIN,
    };
    struct epoll_event event = {.events = masks[what], .data.u64 = id};
    int op = is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    return epoll_ctl(((struct epoll_poller *)poller)->epoll, op, fd, &event);
}

static void remove_epoll(struct poller *poller, int fd)
{
    (void)epoll_ctl(((struct epoll_poller *)poller)->epoll, EPOLL_CTL_DEL, fd, NULL);
}

static int wait_epoll(struct poller *poller, struct poll_event *events, int size, bool look)
{
    struct epoll_poller *self = (struct epoll_poller *)poller;
    int found = epoll_wait(self->epoll, self->events, size < BATCH ? size : BATCH, look ? 0 : -1);
    int count = 0;
    for (int i = 0; i < found; i++) {
        const struct epoll_event *event = &self->events[i];
        if (event->data.u64 == wake_id) {
            uint64_t drained;
            (void)!read(self->wake, &drained, sizeof drained);
            continue;
        }
        events[count].id = event->data.u64;
        events[count].hangup = event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
        count++;
    }
    return count;
}

static void wake_epoll(struct poller *poller)
{
    const uint64_t one = 1;
    (void)!write(((struct epoll_poller *)poller)->wake, &one, sizeof one);
}

const struct poller_kind mkit_poller_epoll = {
    .open = open_epoll,
    .close = close_epoll,
    .set = set_epoll,
    .remove = remove_epoll,
    .wait = wait_epoll,
    .wake = wake_epoll,
};
