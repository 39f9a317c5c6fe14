/* Steps that are not answered in time: the connection goes on without the callback, whose thread
 * counts until it returns. */
#include "server/server.h"
#include "server/turn.h"

/* Parts a connection from the callback that a runner is in. With the server's lock held. Returns
 * the connection; NULL if it cannot be done now. */
static struct conn *part(struct runner *runner)
{
    struct conn *conn = NULL;
    turn_unload(runner);
    pthread_mutex_lock(&runner->lock);
    const int step = atomic_load(&runner->step);
    const bool alone = runner->calling && runner->count == 1;
    struct mkit_session *before = alone ? runner->batch[0]->session : NULL;
    struct mkit_session *after = alone && step != NO_CALLBACK ? mkit_session_part(before) : NULL;
    if (after) {
        conn = runner->batch[0];
        conn->session = after;
        conn->expired = (uint8_t)step;
        conn->kept_input = true;
        runner->parted = before;
        runner->count = runner->next_item = 0;
        runner->calling = runner->between = false;
    }
    pthread_mutex_unlock(&runner->lock);
    return conn;
}

int64_t deadline_look(struct runner *runner, int64_t now)
{
    struct mkit_server *server = runner->server;
    const struct long_call *look = &runner->look;
    if (server->options.deadline <= 0 || atomic_load(&runner->call) != look->call ||
        look->call % 2 == 0 || !runner->count)
        return INT64_MAX;
    const int64_t at = look->began + server->options.deadline;
    if (now < at)
        return at;
    struct conn *conn = part(runner);
    if (!conn)
        return now + TICK_MS;
    mkit_session_on_flush(conn->session, output_flush, conn);
    mkit_session_on_gone(conn->session, output_gone, conn);
    conn->status = CONN_IDLE;
    server_make_ready(server, conn);
    if (!atomic_load(&runner->aside))
        turn_set_aside(runner);
    runners_for_work(server);
    return INT64_MAX;
}

void deadline_answer(const struct mkit_server *server, struct conn *conn)
{
    const struct mkit_filter *filter = server->filter;
    const enum mkit_step step = (enum mkit_step)conn->expired;
    int verdict = MKIT_ETIMEOUT;
    conn->expired = NOT_EXPIRED;
    if (filter->expired)
        verdict = filter->expired(conn->session, step);
    else
        server_log(server, conn->session, MKIT_LOG_ERROR,
                   "%s: the callback has not returned for %d ms: answered without it",
                   mkit_step_name(step), server->options.deadline);
    (void)mkit_session_answer(conn->session, verdict);
}

void deadline_late(struct runner *runner, const char *step)
{
    struct mkit_server *server = runner->server;
    struct mkit_session *session = runner->parted;
    runner->parted = NULL;
    mkit_set_private(session, NULL);
    server_log(server, session, MKIT_LOG_WARNING,
               "%s: the callback returned after its deadline: its result is dropped", step);
    mkit_session_free(session);
}
