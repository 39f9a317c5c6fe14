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
#include <sys/stat.h>
#include <unistd.h>

#include "server/server.h"
#include "server/spec.h"

enum { ACCEPT_BATCH = 64 };

static int os_error(struct mkit_server *server, const char *spec, const char *doing)
{
    int error = errno;
    (void)server_fail(server, MKIT_ESOCKET, "socket %s: cannot %s: %s", spec, doing,
                      strerror(error));
    errno = error;
    return MKIT_ESOCKET;
}

/* Whether somebody answers on a unix socket. */
static bool is_answered(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return true; /* not known: leave it alone */
    bool answered = connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 ||
                    errno != ECONNREFUSED;
    close(fd);
    return answered;
}

/* Removes a socket file that a program left behind; never anything else. */
static int remove_stale(struct mkit_server *server, const char *text, const struct spec *spec)
{
    const char *path = spec->address.un.sun_path;
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : os_error(server, text, "look at the path");
    if (!S_ISSOCK(st.st_mode)) {
        errno = EEXIST;
        return server_fail(server, MKIT_ESOCKET,
                           "socket %s: the path exists and is no socket: remove it", text);
    }
    if (is_answered(&spec->address.un)) {
        errno = EADDRINUSE;
        return server_fail(server, MKIT_ESOCKET,
                           "socket %s: another program answers on it: stop it first", text);
    }
    return unlink(path) == 0 || errno == ENOENT ? 0 : os_error(server, text, "remove the old one");
}

static int open_socket(struct mkit_server *server, const char *text, const struct spec *spec,
                       const struct mkit_listen_options *options, int *fd)
{
    const int family = spec->address.sa.sa_family;
    if (family == AF_UNIX && options->remove_stale) {
        int error = remove_stale(server, text, spec);
        if (error)
            return error;
    }
    *fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0)
        return os_error(server, text, "make a socket");
    const int on = 1;
    if (family != AF_UNIX)
        (void)setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(*fd, &spec->address.sa, spec->len) < 0)
        return os_error(server, text, "bind");
    if (family != AF_UNIX)
        return 0;
    const char *path = spec->address.un.sun_path;
    int error = 0;
    if (options->set_mode && chmod(path, options->mode) < 0)
        error = os_error(server, text, "set the mode");
    else if (options->set_owner && chown(path, options->uid, options->gid) < 0)
        error = os_error(server, text, "set the owner");
    if (error) {
        int saved = errno;
        (void)unlink(path);
        errno = saved;
    }
    return error;
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

static void append_listener(struct mkit_server *server, struct listener *listener)
{
    struct listener **end = &server->listeners;
    while (*end)
        end = &(*end)->next;
    *end = listener;
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
    int fd = -1;
    const bool is_unix = spec.fd < 0 && spec.address.sa.sa_family == AF_UNIX;
    int error = spec.fd >= 0 ? take_socket(server, text, spec.fd, &fd)
                             : open_socket(server, text, &spec, options, &fd);
    if (!error && listen(fd, options->backlog > 0 ? options->backlog : SOMAXCONN) < 0)
        error = os_error(server, text, "listen");
    if (error) {
        int saved = errno;
        if (fd >= 0)
            close(fd);
        free(listener);
        errno = saved;
        return error;
    }
    listener->fd = fd;
    if (is_unix)
        note_path(listener, &spec);
    pthread_mutex_lock(&server->lock);
    append_listener(server, listener);
    pthread_mutex_unlock(&server->lock);
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
    pthread_mutex_unlock(&server->lock);
    if (!known)
        return MKIT_EINVAL;
    if (address.sa.sa_family == AF_UNIX) {
        (void)snprintf(text, size, "unix:%.*s", (int)sizeof address.un.sun_path,
                       address.un.sun_path);
        return 0;
    }
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];
    if (getnameinfo(&address.sa, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return MKIT_EINVAL;
    (void)snprintf(text, size, "%s:%s@[%s]", address.sa.sa_family == AF_INET ? "inet" : "inet6",
                   port, host);
    return 0;
}

/* ---------------------------------------------------------------------------------- accepting */

/* Listeners are known to the poller by ids without a generation: no connection has such. */
int listeners_watch(struct mkit_server *server)
{
    for (struct listener *listener = server->listeners; listener; listener = listener->next) {
        if (listener->watched)
            continue;
        if (poller_add(server->poller, listener->fd, (uint64_t)listener->fd, POLL_CONNECTIONS) < 0)
            return server_fail(server, MKIT_ESOCKET, "cannot watch a socket: %s", strerror(errno));
        listener->watched = true;
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

/* Removes the path of a listener, if it is ours. `served`: also where somebody answers. */
static void unlink_path(struct listener *listener, bool served)
{
    struct stat st;
    if (listener->unlink_at_end && lstat(listener->path.sun_path, &st) == 0 &&
        st.st_dev == listener->dev && st.st_ino == listener->ino &&
        (served || !is_answered(&listener->path)))
        (void)unlink(listener->path.sun_path);
    listener->unlink_at_end = false;
}

void listeners_close(struct mkit_server *server, bool served)
{
    struct listener *listener = server->listeners;
    server->listeners = NULL;
    while (listener) {
        struct listener *next = listener->next;
        if (listener->watched)
            poller_remove(server->poller, listener->fd);
        close(listener->fd);
        unlink_path(listener, served);
        free(listener);
        listener = next;
    }
}

void listeners_retire(struct mkit_server *server)
{
    for (struct listener *listener = server->listeners; listener; listener = listener->next)
        unlink_path(listener, true); /* from here on nobody comes to it */
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
            limits_tell(server, NOTICE_FULL,
                        "the limit of %u connections is reached: closed a new one",
                        server->options.max_connections);
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
