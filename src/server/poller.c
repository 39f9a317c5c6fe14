/* Chooses the kind of poller and hands each call to it. Where the program leaves the choice open,
 * the environment's MILTERKIT_POLLER=poll or =epoll makes it. */
#include "server/poller.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static enum mkit_poller wished(void)
{
    const char *name = getenv("MILTERKIT_POLLER");
    if (name && strcmp(name, "poll") == 0)
        return MKIT_POLLER_POLL;
    return name && strcmp(name, "epoll") == 0 ? MKIT_POLLER_EPOLL : MKIT_POLLER_BEST;
}

static const struct poller_kind *kind_of(enum mkit_poller kind)
{
    if (kind == MKIT_POLLER_BEST)
        kind = wished();
#ifdef MKIT_HAVE_EPOLL
    if (kind == MKIT_POLLER_EPOLL || kind == MKIT_POLLER_BEST)
        return &mkit_poller_epoll;
#endif
    return kind == MKIT_POLLER_EPOLL ? NULL : &mkit_poller_poll;
}

struct poller *poller_open(enum mkit_poller kind)
{
    const struct poller_kind *chosen = kind_of(kind);
    if (!chosen) {
        errno = ENOSYS;
        return NULL;
    }
    struct poller *poller = chosen->open();
    if (poller)
        poller->kind = chosen;
    return poller;
}

void poller_close(struct poller *poller)
{
    if (poller)
        poller->kind->close(poller);
}

int poller_add(struct poller *poller, int fd, uint64_t id, enum poll_for what)
{
    return poller->kind->set(poller, fd, id, what, true);
}

int poller_change(struct poller *poller, int fd, uint64_t id, enum poll_for what)
{
    return poller->kind->set(poller, fd, id, what, false);
}

void poller_rearm(struct poller *poller, int fd, uint64_t id)
{
    if (poller->kind->rearm)
        poller->kind->rearm(poller, fd, id);
}

void poller_remove(struct poller *poller, int fd)
{
    poller->kind->remove(poller, fd);
}

int poller_wait(struct poller *poller, struct poll_event *events, int size, bool look)
{
    return poller->kind->wait(poller, events, size, look);
}

void poller_wake(struct poller *poller)
{
    poller->kind->wake(poller);
}
