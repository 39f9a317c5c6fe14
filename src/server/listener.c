/* Listening sockets: opening them with their modes and stale files, accepting, and backing off
 * when the system has no descriptors or memory left. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/server.h"
#include "server/spec.h"

enum {
    ACCEPT_BATCH = 64,
    LOCK_TRIES = 400, /* two seconds in all: a start takes less than a millisecond */
    LOCK_RETRY_NS = 5000000
};

/* What is added to a path for a socket that is to replace the one at that path. */
static const char BESIDE[] = ".new";

static int os_error(struct mkit_server *server, const char *spec, const char *doing)
{
    int error = errno;
    (void)server_fail(server, MKIT_ESOCKET, "socket %s: cannot %s: %s", spec, doing,
                      strerror(error));
    errno = error;
    return MKIT_ESOCKET;
}

/* Listeners are known to the poller by ids without a generation: no connection has such. */
static int watch(struct mkit_server *server, struct listener *listener)
{
    if (poller_add(server->poller, listener->fd, (uint64_t)listener->fd, POLL_CONNECTIONS) < 0)
        return server_fail(server, MKIT_ESOCKET, "cannot watch a socket: %s", strerror(errno));
    listener->watched = true;
    return 0;
}

/* Whether somebody answers on a unix socket. */
static bool is_answered(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return true; /* not known: leave it alone */
    bool answered = connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 ||
                    (errno != ECONNREFUSED && errno != ENOENT);
    close(fd);
    return answered;
}

/* ------------------------------------------------------------------------- files of unix sockets
 */

/* Locks the folder of a unix socket against other programs of ours: between the look whether an old
 * file is answered and the moment when the new one is, nobody else may look. Returns a descriptor
 * for unlock_folder; -1 where the folder cannot be locked, or others hold it: a stranger's lock
 * must not keep a filter from starting. */
static int lock_folder(const struct sockaddr_un *address)
{
    char folder[sizeof address->sun_path];
    const char *slash = strrchr(address->sun_path, '/');
    const size_t len = slash ? (size_t)(slash - address->sun_path) + 1 : 0;
    memcpy(folder, address->sun_path, len);
    folder[len] = '\0';
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int tries = LOCK_TRIES; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0; tries--) {
        static const struct timespec moment = {.tv_nsec = LOCK_RETRY_NS};
        if (!tries || (errno != EWOULDBLOCK && errno != EINTR)) {
            close(fd);
            return -1;
        }
        (void)nanosleep(&moment, NULL);
    }
    return fd;
}

static void unlock_folder(int fd)
{
    if (fd < 0)
        return;
    (void)flock(fd, LOCK_UN); /* a process that was forked meanwhile has it too */
    close(fd);
}

/* Whether there is a socket at a path. Returns MKIT_ESOCKET if there is something else. */
static int look_at_path(struct mkit_server *server, const char *text, const char *path, bool *there)
{
    struct stat st;
    *there = lstat(path, &st) == 0;
    if (!*there)
        return errno == ENOENT ? 0 : os_error(server, text, "look at the path");
    if (S_ISSOCK(st.st_mode))
        return 0;
    errno = EEXIST;
    return server_fail(server, MKIT_ESOCKET,
                       "socket %s: the path exists and is not a socket: remove it", text);
}

/* Removes a socket file that a program left behind; never anything else. */
static int remove_stale(struct mkit_server *server, const char *text, const struct spec *spec)
{
    const char *path = spec->address.un.sun_path;
    bool there;
    int error = look_at_path(server, text, path, &there);
    if (error || !there)
        return error;
    if (is_answered(&spec->address.un)) {
        errno = EADDRINUSE;
        return server_fail(server, MKIT_ESOCKET,
                           "socket %s: another program answers on it: stop it first", text);
    }
    return unlink(path) == 0 || errno == ENOENT ? 0 : os_error(server, text, "remove the old one");
}

/* Notes which file a unix socket is, so that only that one is removed later. */
static void note_path(struct listener *listener, const struct spec *spec)
{
    struct stat st;
    listener->path = spec->address.un;
    if (lstat(listener->path.sun_path, &st) == 0) {
        listener->unlink_at_end = true;
        listener->dev = st.st_dev;
        listener->ino = st.st_ino;
    }
}

/* Removes the file of a socket, if it is still that one. */
static void remove_path(const struct listener *listener)
{
    struct stat st;
    if (listener->unlink_at_end && lstat(listener->path.sun_path, &st) == 0 &&
        st.st_dev == listener->dev && st.st_ino == listener->ino)
        (void)unlink(listener->path.sun_path);
}

/* ------------------------------------------------------------------------------------ opening */

static int start_listening(struct mkit_server *server, const char *text, int fd, int backlog)
{
    return listen(fd, backlog > 0 ? backlog : SOMAXCONN) < 0 ? os_error(server, text, "listen") : 0;
}

/* The mode and the owner that were asked for, in an order in which the file is never open to more
 * than these. */
static int set_access(struct mkit_server *server, const char *text, const char *path,
                      const struct mkit_listen_options *options)
{
    if (options->set_owner && chown(path, options->uid, options->gid) < 0)
        return os_error(server, text, "set the owner");
    if (options->set_mode && chmod(path, options->mode) < 0)
        return os_error(server, text, "set the mode");
    return 0;
}

/* Binds at a path where nothing is, and listens. With the folder locked. */
static int bind_unix(struct mkit_server *server, const char *text, const struct spec *spec,
                     const struct mkit_listen_options *options, struct listener *listener)
{
    /* Linux gives the file no more than the socket's own mode; who the owner is comes later. */
    if (options->set_mode)
        (void)fchmod(listener->fd, options->set_owner ? options->mode & S_IRWXU : options->mode);
    if (bind(listener->fd, &spec->address.sa, spec->len) < 0)
        return os_error(server, text, "bind");
    note_path(listener, spec);
    int error = set_access(server, text, spec->address.un.sun_path, options);
    return error ? error : start_listening(server, text, listener->fd, options->backlog);
}

/* Takes a path over from whoever answers there: listens under a name beside it, then renames that
 * file over the old one, so that at each moment somebody answers. With the folder locked. */
static int replace_unix(struct mkit_server *server, const char *text, const struct spec *spec,
                        const struct mkit_listen_options *options, struct listener *listener)
{
    const char *path = spec->address.un.sun_path;
    struct spec beside = *spec;
    char *name = beside.address.un.sun_path;
    const size_t len = strlen(path);
    bool there;
    if (len + sizeof BESIDE > sizeof spec->address.un.sun_path)
        return server_fail(server, MKIT_ESOCKET,
                           "socket %s: the path is too long to be replaced: make it %zu bytes at "
                           "most",
                           text, sizeof spec->address.un.sun_path - sizeof BESIDE);
    memcpy(name + len, BESIDE, sizeof BESIDE);
    beside.len = (socklen_t)sizeof beside.address.un;
    int error = look_at_path(server, text, path, &there);
    if (!error)
        error = remove_stale(server, text, &beside);
    if (!error)
        error = bind_unix(server, text, &beside, options, listener);
    if (error)
        return error;
    if (rename(name, path) < 0)
        return os_error(server, text, "replace the file");
    listener->path = spec->address.un;
    return 0;
}

static int open_unix(struct mkit_server *server, const char *text, const struct spec *spec,
                     const struct mkit_listen_options *options, struct listener *listener)
{
    int folder = lock_folder(&spec->address.un);
    int error = options->remove_stale && !options->replace ? remove_stale(server, text, spec) : 0;
    if (!error)
        error =
            (options->replace ? replace_unix : bind_unix)(server, text, spec, options, listener);
    if (error) {
        int saved = errno;
        remove_path(listener);
        errno = saved;
    }
    unlock_folder(folder);
    return error;
}

static int open_inet(struct mkit_server *server, const char *text, const struct spec *spec,
                     const struct mkit_listen_options *options, const struct listener *listener)
{
    const int on = 1;
    (void)setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener->fd, &spec->address.sa, spec->len) < 0)
        return os_error(server, text, "bind");
    return start_listening(server, text, listener->fd, options->backlog);
}

/* Takes over a descriptor that was inherited, for example by socket activation. */
static int take_socket(struct mkit_server *server, const char *text, int inherited, int *fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    if (getsockname(inherited, (struct sockaddr *)&address, &len) < 0)
        return os_error(server, text, "use the descriptor");
    *fd = fcntl(inherited, F_DUPFD_CLOEXEC, 0);
    if (*fd < 0)
        return os_error(server, text, "use the descriptor");
    int flags = fcntl(*fd, F_GETFL);
    if (flags < 0 || fcntl(*fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return os_error(server, text, "use the descriptor");
    return 0;
}

static int open_listener(struct mkit_server *server, const char *text, const struct spec *spec,
                         const struct mkit_listen_options *options, struct listener *listener)
{
    listener->inherited = spec->fd;
    if (options->replace && (spec->fd >= 0 || spec->address.sa.sa_family != AF_UNIX)) {
        errno = EINVAL;
        return server_fail(server, MKIT_ESOCKET,
                           "socket %s: only the path of a unix socket can be replaced: let both "
                           "servers share one open socket as fd:N",
                           text);
    }
    if (spec->fd >= 0) {
        int error = take_socket(server, text, spec->fd, &listener->fd);
        return error ? error : start_listening(server, text, listener->fd, options->backlog);
    }
    const int family = spec->address.sa.sa_family;
    listener->opener = getpid();
    listener->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->fd < 0)
        return os_error(server, text, "make a socket");
    return (family == AF_UNIX ? open_unix(server, text, spec, options, listener)
                              : open_inet(server, text, spec, options, listener));
}

/* Closes a socket for all processes that have a copy of it, if it is this one's to close: one that
 * was inherited is shared with others by design, and so is one that a parent has opened. */
static void close_listener(struct listener *listener)
{
    if (listener->opener == getpid())
        (void)shutdown(listener->fd, SHUT_RDWR);
    close(listener->fd);
    free(listener);
}

/* With the lock held. */
static void append(struct mkit_server *server, struct listener *listener)
{
    struct listener **end = &server->listeners;
    while (*end)
        end = &(*end)->next;
    *end = listener;
}

/* Readies an open socket for the server, which may run. With the lock held. */
static int join_server(struct mkit_server *server, struct listener *listener)
{
    if (server->state > SERVER_RUNNING)
        return server_fail(server, MKIT_EBUSY, "the server is ending");
    const bool now =
        server->poller && !server->accept_after; /* else it is watched with the others */
    return now ? watch(server, listener) : 0;
}

int mkit_server_listen(struct mkit_server *server, const char *text,
                       const struct mkit_listen_options *options)
{
    static const struct mkit_listen_options defaults = {0};
    struct spec spec;
    const char *why;
    if (!options)
        options = &defaults;
    if (spec_parse(text, &spec, &why) < 0)
        return server_fail(server, MKIT_ESPEC, "socket specification \"%s\": %s", text ? text : "",
                           why);
    struct listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return server_fail(server, MKIT_ENOMEM, "no memory for a socket");
    listener->fd = -1;
    int error = open_listener(server, text, &spec, options, listener);
    if (!error) {
        pthread_mutex_lock(&server->lock);
        error = join_server(server, listener);
        if (!error)
            append(server, listener);
        pthread_mutex_unlock(&server->lock);
    }
    if (error) {
        int saved = errno;
        remove_path(listener);
        if (listener->fd >= 0)
            close(listener->fd);
        free(listener);
        errno = saved;
    }
    return error;
}

/* Takes all sockets out of a server that does not run. Returns whether it could. */
static bool take_listeners(struct mkit_server *server, struct listener **listeners)
{
    pthread_mutex_lock(&server->lock);
    const bool idle = server->state == SERVER_STOPPED;
    if (idle) {
        *listeners = server->listeners;
        server->listeners = NULL;
    }
    pthread_mutex_unlock(&server->lock);
    return idle;
}

int mkit_server_hand_over(struct mkit_server *from, struct mkit_server *to)
{
    struct listener *listener;
    if (!take_listeners(from, &listener))
        return server_fail(from, MKIT_EBUSY, "the server runs already");
    pthread_mutex_lock(&to->lock);
    append(to, listener);
    pthread_mutex_unlock(&to->lock);
    if (atomic_load(&from->asked))
        mkit_server_stop(to);
    return 0;
}

/* Writes the specification of an address; what has none but its descriptor is fd:N. */
static int write_address(const struct sockaddr *address, socklen_t len, int descriptor, char *text,
                         size_t size)
{
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];
    const char *path = ((const struct sockaddr_un *)(const void *)address)->sun_path;
    switch (address->sa_family) {
    case AF_UNIX:
        if (!*path) /* it has no name, or one outside the file system */
            break;
        (void)snprintf(text, size, "unix:%.*s", (int)sizeof(struct sockaddr_un), path);
        return 0;
    case AF_INET:
    case AF_INET6:
        if (getnameinfo(address, len, host, sizeof host, port, sizeof port,
                        NI_NUMERICHOST | NI_NUMERICSERV) != 0)
            return MKIT_EINVAL;
        (void)snprintf(text, size, "%s:%s@[%s]", address->sa_family == AF_INET ? "inet" : "inet6",
                       port, host);
        return 0;
    }
    (void)snprintf(text, size, "fd:%d", descriptor);
    return 0;
}

int mkit_server_address(struct mkit_server *server, size_t index, char *text, size_t size)
{
    union {
        struct sockaddr sa;
        struct sockaddr_un un;
        struct sockaddr_storage storage;
    } address = {0};
    socklen_t len = sizeof address;
    pthread_mutex_lock(&server->lock);
    const struct listener *listener = server->listeners;
    while (listener && index--)
        listener = listener->next;
    bool known = listener && getsockname(listener->fd, &address.sa, &len) == 0;
    if (known && listener->unlink_at_end) /* it may have been renamed since it was bound */
        address.un = listener->path;
    const int descriptor = !known                    ? -1
                           : listener->inherited < 0 ? listener->fd
                                                     : listener->inherited;
    pthread_mutex_unlock(&server->lock);
    if (!known)
        return MKIT_EINVAL;
    return write_address(&address.sa, len, descriptor, text, size);
}

/* ---------------------------------------------------------------------------------- accepting */

int listeners_watch(struct mkit_server *server)
{
    for (struct listener *listener = server->listeners; listener; listener = listener->next) {
        int error = listener->watched ? 0 : watch(server, listener);
        if (error)
            return error;
    }
    server->accept_after = 0;
    return 0;
}

void listeners_pause(struct mkit_server *server)
{
    for (struct listener *listener = server->listeners; listener; listener = listener->next) {
        if (listener->watched)
            poller_remove(server->poller, listener->fd);
        listener->watched = false;
    }
    server->accept_after = limits_retry_at();
}

/* Closes a socket that has not been served. Its file stays where somebody still answers, a child of
 * this process for example that has taken over. */
static void leave_listener(struct listener *listener)
{
    int folder = listener->unlink_at_end ? lock_folder(&listener->path) : -1;
    close(listener->fd);
    if (listener->unlink_at_end && !is_answered(&listener->path))
        remove_path(listener);
    unlock_folder(folder);
    free(listener);
}

void listeners_close(struct mkit_server *server, bool served)
{
    struct listener *listener = server->listeners;
    server->listeners = NULL;
    while (listener) {
        struct listener *next = listener->next;
        if (listener->watched)
            poller_remove(server->poller, listener->fd);
        if (served) {
            remove_path(listener); /* while it is open: nobody takes the file for an old one */
            close_listener(listener);
        } else {
            leave_listener(listener);
        }
        listener = next;
    }
}

void listeners_retire(struct mkit_server *server)
{
    for (struct listener *listener = server->listeners; listener; listener = listener->next)
        remove_path(listener); /* from here on nobody comes to it */
    for (struct listener *listener = server->listeners; listener; listener = listener->next)
        while (listener_accept(server, listener))
            ;
    listeners_close(server, true);
}

static void set_options(int fd)
{
    const int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* fails on unix: no matter */
}

bool listener_accept(struct mkit_server *server, struct listener *listener)
{
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK)
                return false;
            limits_tell(server, NOTICE_ACCEPT, "cannot accept connections, trying again: %s",
                        strerror(errno));
            listeners_pause(server);
            server_wake_watcher(server);
            return false;
        }
        server->stats.accepted++;
        if (limits_full(server)) {
            close(fd);
            server->stats.refused++;
            limits_tell(
                server, NOTICE_FULL, "the limit of %u connection%s is reached: closed a new one",
                server->options.max_connections, server->options.max_connections == 1 ? "" : "s");
            continue;
        }
        set_options(fd);
        int error = server_add_conn(server, fd);
        if (error) {
            limits_tell(server, NOTICE_MEMORY, "cannot serve a connection: closed it: %s",
                        error == MKIT_ENOMEM ? "no memory" : strerror(errno));
            close(fd);
        }
    }
    return true;
}
