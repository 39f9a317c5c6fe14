/* The MTA's end of a connection to a server, with blocking calls. They return whether they did what
 * they say instead of asserting it: clients run in threads of their own too. */
#ifndef CLIENT_H
#define CLIENT_H

#include <stdbool.h>

enum { DEADLINE_S = 30 }; /* only what hangs reaches it */

/* Connects to a unix socket. Returns the descriptor, or -1. */
int client_connect(const char *path);

/* Sends what a notation stands for (rig.h). */
bool say(int fd, const char *notation);

/* Reads as many packets as there are letters; whether they are these. Changes are passed over. */
bool hears(int fd, const char *letters);

/* Reads one packet of 256 bytes at most; its letter. */
bool hear(int fd, char *letter);

/* Whether the server closes the connection, without another byte. */
bool hears_end(int fd);

#endif
