/* What a server does at its limits, its own and the system's: how long it waits before it tries
 * again, and how it tells its owner without filling the log. */
#include <stdarg.h>
#include <stdio.h>

#include "server/server.h"

enum { RETRY_MS = 200, LINE_MS = 1000 };

int64_t limits_retry_at(void)
{
    return server_now() + RETRY_MS;
}

bool limits_full(const struct mkit_server *server)
{
    const unsigned most = server->options.max_connections;
    return most && server->stats.open >= most;
}

static void make_due(struct mkit_server *server, struct notice *notice, int64_t now)
{
    notice->due = true;
    notice->after = now + LINE_MS;
    server->notices_due++;
    if (server->polling) /* else a runner is at work, and comes by */
        poller_wake(server->poller);
}

void limits_tell(struct mkit_server *server, enum notice_kind kind, const char *format, ...)
{
    struct notice *notice = &server->notices[kind];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(notice->text, sizeof notice->text, format, args);
    va_end(args);
    notice->times++;
    if (notice->due)
        return;
    const int64_t now = server_now();
    if (now >= notice->after)
        make_due(server, notice, now);
    else if (notice->times == 1)
        server_wake_watcher(server); /* it sees to the line when the second has passed */
}

void limits_check(struct mkit_server *server, int64_t now, bool all)
{
    for (int kind = 0; kind < NOTICES; kind++) {
        struct notice *notice = &server->notices[kind];
        if (notice->times && !notice->due && (all || now >= notice->after))
            make_due(server, notice, now);
    }
}

int64_t limits_next(const struct mkit_server *server)
{
    int64_t next = INT64_MAX;
    for (int kind = 0; kind < NOTICES; kind++) {
        const struct notice *notice = &server->notices[kind];
        if (notice->times && !notice->due && notice->after < next)
            next = notice->after;
    }
    return next;
}

bool limits_take_line(struct mkit_server *server, char *line, size_t size)
{
    for (int kind = 0; server->notices_due && kind < NOTICES; kind++) {
        struct notice *notice = &server->notices[kind];
        if (!notice->due)
            continue;
        if (notice->times == 1)
            (void)snprintf(line, size, "%s", notice->text);
        else
            (void)snprintf(line, size, "%s (%u times since the last such line)", notice->text,
                           notice->times);
        notice->due = false;
        notice->times = 0;
        server->notices_due--;
        return true;
    }
    return false;
}
