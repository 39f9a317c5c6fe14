/* The poller on poll(2), which every system has. It builds the array of descriptors anew for each
 * wait: for few connections, or where nothing better exists. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "server/poller.h"

enum { RETRY_MS = 200 }; /* what there was no memory to wait for is tried again */

/* What is known of the descriptor that is the entry's index. */
struct entry {
    uint64_t id;
    short events; /* 0: not watched */
    bool armed;
    bool stays; /* reported as long as it is ready */
};

struct poll_poller {
    struct poller base;
    pthread_mutex_t lock;
    struct entry *entries;
    int size;
    struct pollfd *fds; /* of the thread that waits */
    int fds_size;
    int last; /* the descriptor that was reported last: the next report begins behind it */
    bool waiting;
    int wake[2];
};

static void close_poll(struct poller *poller)
{
    struct poll_poller *self = (struct poll_poller *)poller;
    close(self->wake[0]);
    close(self->wake[1]);
    pthread_mutex_destroy(&self->lock);
    free(self->entries);
    free(self->fds);
    free(self);
}

static struct poller *open_poll(void)
{
    struct poll_poller *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->fds = calloc(1, sizeof *self->fds); /* at the least for the pipe */
    self->fds_size = 1;
    if (!self->fds || pipe2(self->wake, O_CLOEXEC | O_NONBLOCK) < 0) {
        free(self->fds);
        free(self);
        return NULL;
    }
    pthread_mutex_init(&self->lock, NULL);
    return &self->base;
}

static void wake_poll(struct poller *poller)
{
    (void)!write(((struct poll_poller *)poller)->wake[1], "", 1);
}

/* Lets the thread that waits see a change. Called with the lock held. */
static void changed(struct poll_poller *self)
{
    if (self->waiting)
        wake_poll(&self->base);
}

static bool make_room(struct poll_poller *self, int fd)
{
    if (fd < self->size)
        return true;
    int size = self->size ? self->size : 64;
    while (size <= fd)
        size *= 2;
    struct entry *entries = realloc(self->entries, (size_t)size * sizeof *entries);
    if (!entries)
        return false;
    for (int i = self->size; i < size; i++)
        entries[i] = (struct entry){0};
    self->entries = entries;
    self->size = size;
    return true;
}

static int set_poll(struct poller *poller, int fd, uint64_t id, enum poll_for what, bool is_new)
{
    struct poll_poller *self = (struct poll_poller *)poller;
    (void)is_new;
    pthread_mutex_lock(&self->lock);
    bool room = make_room(self, fd);
    if (room) {
        self->entries[fd] = (struct entry){
            .id = id,
            .events = what == POLL_WRITE ? POLLOUT : POLLIN,
            .armed = true,
            .stays = what == POLL_CONNECTIONS,
        };
        changed(self);
    }
    pthread_mutex_unlock(&self->lock);
    if (!room)
        errno = ENOMEM;
    return room ? 0 : -1;
}

static void rearm_poll(struct poller *poller, int fd, uint64_t id)
{
    struct poll_poller *self = (struct poll_poller *)poller;
    pthread_mutex_lock(&self->lock);
    if (self->entries[fd].id == id && !self->entries[fd].armed) {
        self->entries[fd].armed = true;
        changed(self);
    }
    pthread_mutex_unlock(&self->lock);
}

static void remove_poll(struct poller *poller, int fd)
{
    struct poll_poller *self = (struct poll_poller *)poller;
    pthread_mutex_lock(&self->lock);
    self->entries[fd] = (struct entry){0};
    changed(self);
    pthread_mutex_unlock(&self->lock);
}

/* Puts the armed entries into `fds`: all of them, or without memory as many as there is room for.
 * Returns how many. */
static int collect(struct poll_poller *self)
{
    if (self->fds_size < self->size + 1) {
        struct pollfd *fds = realloc(self->fds, (size_t)(self->size + 1) * sizeof *fds);
        if (fds) {
            self->fds = fds;
            self->fds_size = self->size + 1;
        }
    }
    int count = 0;
    self->fds[count++] = (struct pollfd){.fd = self->wake[0], .events = POLLIN};
    for (int fd = 0; fd < self->size && count < self->fds_size; fd++)
        if (self->entries[fd].armed)
            self->fds[count++] = (struct pollfd){.fd = fd, .events = self->entries[fd].events};
    return count;
}

static int wait_poll(struct poller *poller, struct poll_event *events, int size, bool look)
{
    struct poll_poller *self = (struct poll_poller *)poller;
    pthread_mutex_lock(&self->lock);
    int watched = collect(self);
    const bool all = self->fds_size > self->size;
    self->waiting = true;
    pthread_mutex_unlock(&self->lock);

    int found = poll(self->fds, (nfds_t)watched, look ? 0 : all ? -1 : RETRY_MS);

    pthread_mutex_lock(&self->lock);
    self->waiting = false;
    char drained[64];
    while (read(self->wake[0], drained, sizeof drained) == sizeof drained)
        ;
    int count = 0;
    int at = 1;
    while (at < watched && self->fds[at].fd <= self->last)
        at++;
    for (int left = found > 0 ? watched - 1 : 0; left && count < size; left--, at++) {
        const struct pollfd *ready = &self->fds[at < watched ? at : at - watched + 1];
        struct entry *entry = &self->entries[ready->fd];
        if (!ready->revents || !entry->armed) /* it may have changed meanwhile */
            continue;
        entry->armed = entry->stays;
        self->last = ready->fd;
        events[count].id = entry->id;
        events[count].hangup = ready->revents & (POLLHUP | POLLERR | POLLNVAL);
        count++;
    }
    pthread_mutex_unlock(&self->lock);
    return count;
}

const struct poller_kind mkit_poller_poll = {
    .open = open_poll,
    .close = close_poll,
    .set = set_poll,
    .rearm = rearm_poll,
    .remove = remove_poll,
    .wait = wait_poll,
    .wake = wake_poll,
};
