/* A child process parts with a server of its parent. Reads what other threads may have been
 * changing at the moment of the fork, so it takes no lock: server.c and listener.c change these
 * tables so that each of their states can be read. What is in none of them at that moment (a
 * connection that is just being closed) is shut down by the parent. */
#include <unistd.h>

#include "server/server.h"

static void part_with(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void mkit_server_forked(struct mkit_server *server)
{
    for (struct listener *listener = server->listeners; listener; listener = listener->next)
        part_with(&listener->fd);
    for (int fd = 0; fd < server->conns_size; fd++)
        if (server->conns[fd])
            part_with(&server->conns[fd]->fd);
    poller_close(server->poller);
    server->poller = NULL;
    for (int i = 0; i < 2; i++) {
        part_with(&server->wake[i]);
        part_with(&server->poke[i]);
    }
}
