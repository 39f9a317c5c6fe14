/* A turn of a runner's batch. */
#ifndef MKIT_SERVER_TURN_H
#define MKIT_SERVER_TURN_H

#include "server/server.h"

/* Takes ready connections, of which there is one at least. With the server's lock held. */
void turn_take(struct runner *runner);

/* Serves what was taken, from reading to giving back. Without the lock. Returns false if the server
 * has gone on without this runner meanwhile. */
bool turn_serve(struct runner *runner);

/* Logs a line that concerns no connection, as a call. Without the lock. Returns as turn_serve. */
bool turn_tell(struct runner *runner, const char *line);

/* Brackets what may block without end, the program's own functions for example: the watcher then
 * sees to it that others are served meanwhile. By the runner itself. */
void turn_enter_call(struct runner *runner);
void turn_leave_call(struct runner *runner);

/* Takes what a runner has not called yet, and what it is done with. With the server's lock held. */
void turn_unload(struct runner *runner);

/* Counts a runner as one that waits in a call, and back. With the server's lock held. */
void turn_set_aside(struct runner *runner);
void turn_come_back(struct runner *runner);

#endif
