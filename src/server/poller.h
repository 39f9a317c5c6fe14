/* Waiting for many descriptors at once, by whatever the system has for it. Every source is known
 * by an id of the caller's; a source that was reported is not reported again before new bytes
 * come (epoll) or poller_rearm is called (poll): callers call it always. One thread waits at a
 * time; the other functions may be called from any thread meanwhile. */
#ifndef MKIT_SERVER_POLLER_H
#define MKIT_SERVER_POLLER_H

#include <stdbool.h>
#include <stdint.h>

#include "milterkit.h"

struct poller;

enum poll_for {
    POLL_READ,       /* bytes to read, once for each arrival */
    POLL_WRITE,      /* room to write; replaces POLL_READ until it is set again */
    POLL_CONNECTIONS /* connections to accept, as long as there are any */
};

struct poll_event {
    uint64_t id;
    bool hangup; /* the peer has closed or reset: read until the end */
};

/* Makes one. NULL with errno if the system refuses or the kind does not exist here. */
struct poller *poller_open(enum mkit_poller kind);
void poller_close(struct poller *poller);

/* Watches a descriptor, or changes what is watched. Returns 0 or -1 with errno. */
int poller_add(struct poller *poller, int fd, uint64_t id, enum poll_for what);
int poller_change(struct poller *poller, int fd, uint64_t id, enum poll_for what);

/* Lets a reported source be reported again, with what it was watched for last. */
void poller_rearm(struct poller *poller, int fd, uint64_t id);

/* Forgets a descriptor; before it is closed. */
void poller_remove(struct poller *poller, int fd);

/* Waits until something happens, or poller_wake is called; or only looks what has happened. Returns
 * how many events; 0 after a wake or an interruption. */
int poller_wait(struct poller *poller, struct poll_event *events, int size, bool look);
void poller_wake(struct poller *poller);

/* What a kind of poller implements: the functions above, one by one. */
struct poller_kind {
    struct poller *(*open)(void);
    void (*close)(struct poller *);
    int (*set)(struct poller *, int fd, uint64_t id, enum poll_for what, bool is_new);
    void (*rearm)(struct poller *, int fd, uint64_t id);
    void (*remove)(struct poller *, int fd);
    int (*wait)(struct poller *, struct poll_event *, int size, bool look);
    void (*wake)(struct poller *);
};

/* Begins the struct of every kind. */
struct poller {
    const struct poller_kind *kind;
};

extern const struct poller_kind mkit_poller_poll;
#ifdef MKIT_HAVE_EPOLL
extern const struct poller_kind mkit_poller_epoll;
#endif

#endif
