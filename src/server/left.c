/* Runners whose callbacks do not return, when all has been ended: the server goes on without them.
 * Such a runner keeps its connection's session, for the callback may still use it; what the MTA
 * sees is a connection that was closed. If the callback returns after all, its thread gives the
 * filter the abort and close that it is owed, and ends. */
#include <stdio.h>
#include <sys/socket.h>

#include "server/server.h"
#include "server/turn.h"

enum { LINE_MS = 1000 }; /* a line for the log may take so long at the end */

/* Parts with a runner if it is in a call still. Returns whether it was. */
static bool leave(struct mkit_server *server, struct runner *runner, int64_t now)
{
    struct conn *conn = NULL;
    turn_unload(runner);
    pthread_mutex_lock(&runner->lock);
    const int step = atomic_load(&runner->step);
    const bool in_call = atomic_load(&runner->call) % 2 == 1 &&
                         (step != NO_CALLBACK || now - runner->look.began >= LINE_MS);
    const bool alone = runner->calling ? runner->count == 1 : runner->count == 0;
    if (in_call && alone) {
        conn = runner->calling ? runner->batch[0] : NULL;
        atomic_store(&runner->left, true);
        runner->told = !conn && step == NO_CALLBACK; /* there is nobody to tell of */
    }
    pthread_mutex_unlock(&runner->lock);
    if (!in_call || !alone)
        return false;
    runner->left_step = step;
    if (conn) {
        server_remove_conn(server, conn);
        (void)shutdown(conn->fd,
                       SHUT_RDWR); /* the descriptor is closed by the thread that uses it */
    }
    return true;
}

/* Takes a runner out of the server's books. */
static void forget(struct mkit_server *server, struct runner **at)
{
    struct runner *runner = *at;
    *at = runner->next;
    if (atomic_load(&runner->aside))
        server->aside--;
    server->active--;
    server->threads--;
    server->stats.left++;
    (void)pthread_detach(runner->thread);
    if (runner->told)
        return;
    runner->next_left = server->untold;
    server->untold = runner;
}

void left_behind(struct mkit_server *server, int64_t now)
{
    struct runner **at = &server->runners;
    while (*at) {
        struct runner *runner = *at;
        if (!runner->active || runner->ended || !leave(server, runner, now)) {
            at = &runner->next;
            continue;
        }
        runner->left_after = now - runner->look.began;
        forget(server, at);
    }
    runners_for_work(server); /* somebody has to tell, and to end the others */
    if (server->untold && server->polling)
        poller_wake(server->poller);
}

/* The line about a runner that was left behind. */
static void tell(const struct runner *runner)
{
    const struct mkit_server *server = runner->server;
    const struct mkit_filter *filter = server->filter;
    const struct mkit_session *session = runner->count ? runner->batch[0]->session : NULL;
    const char *what = runner->left_step == NO_CALLBACK
                           ? "a line for the log"
                           : mkit_step_name((enum mkit_step)runner->left_step);
    char where[128] = "";
    if (filter->where)
        filter->where(filter->data, session, where, sizeof where);
    server_log(
        server, session, MKIT_LOG_ERROR,
        "%s: it has not returned for %lld s: its thread is left behind, its connection closed"
        "%s%s",
        what, (long long)(runner->left_after / 1000), *where ? ": it is at " : "", where);
}

bool left_tell(struct runner *by)
{
    struct mkit_server *server = by->server;
    struct runner *runner = server->untold;
    if (!runner)
        return false;
    server->untold = runner->next_left;
    pthread_mutex_unlock(&server->lock);
    turn_enter_call(by); /* the log may block: then this one is left behind as well */
    tell(runner);
    turn_leave_call(by);
    pthread_mutex_lock(&server->lock);
    if (!atomic_load(&by->left))
        turn_come_back(by);
    runner->told = true;
    pthread_cond_signal(&runner->wake);
    server_wake_watcher(server);
    return true;
}

void left_end(struct runner *runner)
{
    struct mkit_server *server = runner->server;
    pthread_mutex_lock(&server->lock);
    while (!runner->told) /* who tells it looks at the session */
        pthread_cond_wait(&runner->wake, &server->lock);
    server->stats.left--;
    pthread_mutex_unlock(&server->lock);
    if (runner->count)
        server_close_conn(runner->batch[0]);
    runner_free(runner);
}
