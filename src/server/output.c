/* What leaves for the MTA: at the end of a turn, from within a call, and progress for a call that
 * runs long. A connection's runner writes; the watcher does, five bytes, while the runner's
 * callback of an end of message is under way and leaves the output alone (`between`, under the
 * runner's lock). What the callback queues meanwhile stays in the session: only a flush takes it to
 * the wire, and that ends `between` first. */
#include <errno.h>
#include <poll.h>

#include "server/server.h"
#include "wire/protocol.h"

enum {
    WRITE_CHECK_MS = 100, /* a write that waits looks so often whether all is to end */
    LOOK_MS = 1000        /* so often the MTA of a call that runs long is looked at */
};

static const uint8_t progress[] = {0, 0, 0, 1, MKIT_R_PROGRESS};

static ssize_t write_bytes(const struct conn *conn, const uint8_t *data, size_t len)
{
    ssize_t sent;
    do
        sent = send(conn->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent;
}

static bool would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK;
}

/* Writes what is owed of a progress packet. Returns how many bytes, or -1 with errno. */
static ssize_t write_progress(struct conn *conn)
{
    const ssize_t sent = write_bytes(conn, progress + sizeof progress - conn->owed, conn->owed);
    if (sent > 0)
        conn->owed = (uint8_t)(conn->owed - sent);
    return sent;
}

/* Writes some of what waits. Returns how many bytes, 0 if none wait, or -1 with errno. */
static ssize_t write_some(struct conn *conn)
{
    if (conn->owed)
        return write_progress(conn);
    const uint8_t *data;
    const size_t len = mkit_session_output(conn->session, &data);
    if (len == 0)
        return 0;
    const ssize_t sent = write_bytes(conn, data, len);
    if (sent > 0)
        mkit_session_sent(conn->session, (size_t)sent);
    return sent;
}

void output_write(struct conn *conn, int64_t now)
{
    ssize_t sent;
    conn->blocked = false;
    while ((sent = write_some(conn)) > 0)
        conn->last_active = now;
    if (sent == 0)
        return;
    if (would_block()) {
        conn->blocked = !conn->over; /* at its end nobody waits for the last bytes */
        return;
    }
    if (errno != EPIPE && errno != ECONNRESET)
        conn->ending = END_BROKEN; /* the MTA is there, and would wait for the reply */
    const uint8_t *data;           /* nobody reads it: the end will be read soon */
    mkit_session_sent(conn->session, mkit_session_output(conn->session, &data));
    conn->owed = 0;
    conn->more = conn->read_to_end = true;
}

/* Writes all that waits, and waits for the MTA to take it. */
static int write_all(struct conn *conn)
{
    struct mkit_server *server = conn->server;
    const int64_t timeout = (int64_t)server->options.timeout * 1000;
    int64_t deadline = server_now() + timeout;
    ssize_t sent;
    while ((sent = write_some(conn)) != 0) {
        if (sent > 0) {
            deadline = server_now() + timeout;
            continue;
        }
        if (!would_block())
            return MKIT_ECLOSED;
        if (server_now() >= deadline)
            return MKIT_ETIMEOUT;
        if (atomic_load(&server->asked) >= SERVER_ABORTING)
            return MKIT_ECLOSED;
        struct pollfd wait = {.fd = conn->fd, .events = POLLOUT};
        (void)poll(&wait, 1, WRITE_CHECK_MS);
    }
    return 0;
}

/* ----------------------------------------------------------------------------- calls that run long
 */

static void set_between(struct runner *runner, bool between, int64_t written)
{
    pthread_mutex_lock(&runner->lock);
    runner->between = between;
    runner->written = written;
    pthread_mutex_unlock(&runner->lock);
}

void output_begin_call(struct runner *runner, const struct conn *conn)
{
    set_between(runner, mkit_session_may_progress(conn->session), 0);
}

void output_end_call(struct runner *runner)
{
    set_between(runner, false, 0);
}

int output_flush(struct mkit_session *session, void *arg)
{
    struct conn *conn = arg;
    set_between(conn->runner, false, 0);
    const int error = write_all(conn);
    set_between(conn->runner, !error && mkit_session_may_progress(session), server_now());
    return error;
}

/* Looks whether the MTA has hung up, and notes it. */
static bool look_if_gone(struct conn *conn)
{
    if (atomic_load_explicit(&conn->gone, memory_order_relaxed))
        return true;
#ifdef POLLRDHUP
    struct pollfd end = {.fd = conn->fd, .events = POLLRDHUP};
    const bool gone = poll(&end, 1, 0) == 1;
#else
    char byte;
    const ssize_t got = recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    const bool gone = got == 0 || (got < 0 && !would_block() && errno != EINTR);
#endif
    if (gone)
        atomic_store_explicit(&conn->gone, true, memory_order_relaxed);
    return gone;
}

bool output_gone(const struct mkit_session *session, void *arg)
{
    (void)session;
    return look_if_gone(arg);
}

/* Sends progress if it may be sent now. */
static void send_progress(struct runner *runner, struct conn *conn, int64_t now)
{
    struct long_call *look = &runner->look;
    pthread_mutex_lock(&runner->lock);
    if (runner->written > look->since)
        look->since = runner->written;
    /* The call may be over, and another one have begun. */
    if (now >= look->since + runner->server->options.progress && runner->between &&
        look->call == atomic_load_explicit(&runner->call, memory_order_relaxed)) {
        if (!conn->owed)
            conn->owed = sizeof progress;
        if (write_progress(conn) < 0 && conn->owed == sizeof progress)
            conn->owed = 0; /* nothing of it has left: it is dropped */
        look->since = now;
    }
    pthread_mutex_unlock(&runner->lock);
}

/* The connection that a runner serves. It stays so while the server's lock is held. */
static struct conn *current(struct runner *runner)
{
    pthread_mutex_lock(&runner->lock);
    struct conn *conn = runner->calling ? runner->batch[runner->next_item - 1] : NULL;
    pthread_mutex_unlock(&runner->lock);
    return conn;
}

/* Looks after one runner. Returns when to look again. */
static int64_t look_after(struct runner *runner, int64_t now)
{
    struct long_call *look = &runner->look;
    const int interval = runner->server->options.progress;
    const unsigned call = atomic_load_explicit(&runner->call, memory_order_relaxed);
    if (call % 2 == 0)
        return now + LOOK_MS;
    if (call != look->call)
        *look = (struct long_call){.call = call, .began = now, .since = now, .at = now};
    const bool due = interval >= 0 && now >= look->since + interval;
    if (due || now >= look->at + LOOK_MS) {
        struct conn *conn = current(runner);
        look->at = now;
        if (conn && !look_if_gone(conn) && due)
            send_progress(runner, conn, now);
    }
    const int64_t next = look->at + LOOK_MS;
    const int64_t next_due = look->since + interval;
    return interval >= 0 && now < next_due && next_due < next ? next_due : next;
}

int64_t output_look(struct mkit_server *server, int64_t now)
{
    int64_t next = INT64_MAX;
    for (struct runner *runner = server->runners; runner; runner = runner->next) {
        const bool in_call = atomic_load_explicit(&runner->call, memory_order_relaxed) % 2 == 1;
        if (!runner->active || (!runner->count && !in_call))
            continue;
        const int64_t at = look_after(runner, now);
        const int64_t deadline = deadline_look(runner, now);
        next = at < next ? at : next;
        next = deadline < next ? deadline : next;
    }
    return next;
}
