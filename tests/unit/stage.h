/* A server under faults, and its filter, which keeps account of what it sees. */
#ifndef STAGE_H
#define STAGE_H

#include <pthread.h>
#include <stdint.h>

#include "client.h"
#include "faults.h"
#include "milterkit.h"

enum { MOST_DIGESTS = 4096 };

/* The filter's account. `lock` guards it. */
struct account {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned seen[MKIT_STEPS];
    unsigned wrong; /* closes without a connection, aborts without a message, and so on */
    unsigned open_messages;
    unsigned open_connections;      /* of those that had any step but close */
    uint64_t digests[MOST_DIGESTS]; /* of messages that were seen whole */
    unsigned digests_count;
    bool gate_open; /* else MAIL from "<wait>" waits */
    unsigned at_gate;
    unsigned log_helos; /* a line for the log waits until so many HELOs were seen */
    unsigned started;   /* threads of the server, ever */
    unsigned ended;     /* runs */
    char log[1 << 16];  /* one line after the other */
    size_t log_len;
};
extern struct account account;

struct stage {
    enum mkit_poller poller;
    struct mkit_server *server;
    pthread_t thread;
    bool running;
    int result; /* of the run */
    char why[256];
    char folder[32];
    char path[64];
    int clients[64]; /* closed at the end of the test */
    unsigned clients_count;
};

/* For cmocka: state is an enum mkit_poller before, a struct stage after. No faults are left. */
int stage_set_up(void **state);
int stage_tear_down(void **state);

/* Makes the server and its socket; MKIT_ENOMEM if it could not, else 0. */
int stage_make(struct stage *stage, struct mkit_server_options options);
/* Runs it in a thread of its own. Returns whether it got as far as to have a worker. */
bool stage_start(struct stage *stage);
/* Waits for the end of the run, which something has asked for. */
void stage_join(struct stage *stage);
/* Stops it and waits; asserts that the run was good, and that nothing was lost or is left. */
void stage_stop(struct stage *stage);
/* Frees it: faults_alive is 0 then. */
void stage_free(struct stage *stage);

/* A client that the test itself is. */
int stage_client(struct stage *stage);

/* Waits until something is so, or fails the test. */
void stage_await(bool (*look)(unsigned), unsigned argument);
void stage_await_seen(enum mkit_step step, unsigned times);
void stage_await_gate(unsigned callbacks);
void stage_await_told(const char *text, unsigned times);
/* Waits until the server's watcher has looked at everything since the call. */
void stage_await_watcher(struct stage *stage);

/* Reads a number of the account, while the server runs. */
unsigned stage_count(const unsigned *what);

void stage_open_gate(void);

/* How often a text was logged: by lines, and with the "(N times)" at their ends. */
unsigned stage_lines(const char *text);
unsigned stage_told(const char *text);

/* Adds a part of a message to its digest, which begins with the number; both sides do it alike. */
#define STAGE_NO_DIGEST UINT64_C(0xcbf29ce484222325)
uint64_t stage_digest(uint64_t digest, char command, const void *data, size_t len);

#endif
