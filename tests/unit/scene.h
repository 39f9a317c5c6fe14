/* A server whose inside the test may look at, and a filter that does what it is told: MAIL from
 * "<wait>" waits at the gate, from "<nap>" sleeps, from "<spin>" computes; the end of a message
 * waits where `hold_eom` is set, a line for the log where `hold_log` is. */
#ifndef SCENE_H
#define SCENE_H

#include <pthread.h>
#include <stdatomic.h>

#include "client.h"
#include "milterkit.h"
#include "server/server.h"

enum { SCENE_CLIENTS = 256, NAP_US = 2000, NAP_ONE_IN = 64, SPIN_US = 6000 };

struct scene {
    enum mkit_poller poller;
    struct mkit_server *server;
    int (*poke)(void *);
    pthread_t thread;
    bool running;
    int result; /* of the run */
    int clients[SCENE_CLIENTS];
    unsigned clients_count;
    char folder[32];
    char path[64];
    char spec[72];
};

/* What the filter has seen. */
struct seen {
    atomic_uint steps[MKIT_STEPS];
    atomic_uint inside;    /* wait at the gate now */
    atomic_uint logging;   /* of them, for a line for the log */
    atomic_uint started;   /* threads, ever */
    atomic_uint threads;   /* of them, not ended */
    atomic_uint hung;      /* waits that reached their deadline */
    atomic_bool at_random; /* one callback in NAP_ONE_IN sleeps, up to 3 ms */
    atomic_bool hold_eom;
    atomic_bool hold_log; /* the next line */
    char log[1 << 13];    /* under the gate's lock */
};
extern struct seen seen;

/* For cmocka: state is an enum mkit_poller before, a struct scene after. */
int scene_set_up(void **state);
int scene_tear_down(void **state);

/* Makes the server. `batches`: its filter has enter_batch, so that one callback computes. */
void scene_make(struct scene *scene, struct mkit_server_options options, bool batches);
/* Lets a server listen at the scene's path. */
void scene_listen(const struct scene *scene, struct mkit_server *server);
void scene_start(struct scene *scene);
/* Waits for the end of the run. */
void scene_join(struct scene *scene);

/* A client's end of a new connection, closed with the scene. */
int scene_client(struct scene *scene);
/* The same, by the path. */
int scene_connect(struct scene *scene);

/* Lets so many waits at the gate return, also those to come. */
void scene_pass(unsigned count);
/* Waits at it. */
void scene_wait(void);

/* Waits until a number is so. */
void scene_await(atomic_uint *what, unsigned value);
/* The same for what a function finds. */
void scene_await_that(unsigned (*what)(struct scene *), struct scene *scene, unsigned value);
unsigned scene_threads(struct scene *scene);
unsigned scene_left(struct scene *scene);
unsigned scene_state(struct scene *scene);

bool scene_logged(const char *text);

#define SCENE_ON_BOTH(test)                                                                        \
    {#test " (poll)", test, scene_set_up, scene_tear_down, &by_poll},                              \
    {                                                                                              \
#test " (best)", test, scene_set_up, scene_tear_down, &by_best                             \
    }

#endif
