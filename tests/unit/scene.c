/* A server, its filter, and the gate. */
#include "scene.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct seen seen;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    unsigned passes;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER};

/* --------------------------------------------------------------------------------------- filter */

void scene_wait(void)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += DEADLINE_S;
    (void)pthread_mutex_lock(&gate.lock);
    (void)atomic_fetch_add(&seen.inside, 1);
    int waited = 0;
    while (!gate.passes && waited != ETIMEDOUT)
        waited = pthread_cond_timedwait(&gate.opened, &gate.lock, &until);
    (void)atomic_fetch_add(&seen.hung, gate.passes == 0);
    gate.passes -= gate.passes > 0;
    (void)atomic_fetch_sub(&seen.inside, 1);
    (void)pthread_mutex_unlock(&gate.lock);
}

/* Computes, for a time by the thread's own clock. */
static void spin(void)
{
    struct timespec now;
    int64_t end = 0;
    int64_t us;
    do {
        (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
        end = end ? end : us + SPIN_US;
    } while (us < end);
}

static bool is_from(const struct mkit_event *event, const char *name)
{
    return event->step == MKIT_MAIL && strncmp(event->of.args.all.at, name, strlen(name)) == 0;
}

/* Sleeps now and then: numbers that look like chance, the same each time. */
static void nap_at_random(void)
{
    static atomic_uint calls;
    const unsigned chance = atomic_fetch_add(&calls, 1) * 2654435761U >> 8;
    if (chance % NAP_ONE_IN == 0)
        (void)usleep(chance / NAP_ONE_IN % 4 * 1000);
}

static int on_step(struct mkit_session *session, const struct mkit_event *event)
{
    (void)session;
    if (is_from(event, "<wait>"))
        scene_wait();
    else if (is_from(event, "<nap>"))
        (void)usleep(NAP_US);
    else if (is_from(event, "<spin>"))
        spin();
    else if (atomic_load(&seen.at_random))
        nap_at_random();
    else if (event->step == MKIT_EOM && atomic_load(&seen.hold_eom))
        scene_wait();
    (void)atomic_fetch_add(&seen.steps[event->step], 1);
    return MKIT_CONTINUE;
}

static void log_line(void *data, int level, const struct mkit_session *session, const char *line)
{
    (void)data;
    (void)level;
    (void)session;
    (void)pthread_mutex_lock(&gate.lock);
    const size_t len = strlen(seen.log);
    (void)snprintf(seen.log + len, sizeof seen.log - len, "%s\n", line);
    (void)pthread_mutex_unlock(&gate.lock);
    if (!atomic_exchange(&seen.hold_log, false))
        return;
    (void)atomic_fetch_add(&seen.logging, 1);
    scene_wait();
    (void)atomic_fetch_sub(&seen.logging, 1);
}

static void thread_start(void *data)
{
    (void)data;
    (void)atomic_fetch_add(&seen.started, 1);
    (void)atomic_fetch_add(&seen.threads, 1);
}

static void thread_end(void *data)
{
    (void)data;
    (void)atomic_fetch_sub(&seen.threads, 1);
}

static void nothing(void *data)
{
    (void)data;
}

#define FILTER                                                                                     \
    .on = {NULL,    on_step, on_step, on_step, on_step, on_step, on_step,                          \
           on_step, on_step, on_step, on_step, on_step, on_step},                                  \
    .thread_start = thread_start, .thread_end = thread_end, .log = log_line

static const struct mkit_filter filters[] = {
    {FILTER},
    {FILTER, .enter_batch = nothing, .leave_batch = nothing},
};

/* --------------------------------------------------------------------------------------- server */

static void *run_server(void *arg)
{
    struct scene *scene = arg;
    scene->result = mkit_server_run(scene->server, scene->poke, scene);
    return NULL;
}

void scene_make(struct scene *scene, struct mkit_server_options options, bool batches)
{
    options.poller = scene->poller;
    options.adopts = true;
    scene->server = mkit_server_new(&filters[batches], &options);
    assert_non_null(scene->server);
}

void scene_listen(const struct scene *scene, struct mkit_server *server)
{
    assert_int_equal(mkit_server_listen(server, scene->spec, NULL), 0);
}

void scene_start(struct scene *scene)
{
    assert_int_equal(pthread_create(&scene->thread, NULL, run_server, scene), 0);
    scene->running = true;
}

void scene_join(struct scene *scene)
{
    assert_int_equal(pthread_join(scene->thread, NULL), 0);
    scene->running = false;
    assert_int_equal(scene->result, 0);
    assert_int_equal(atomic_load(&seen.hung), 0);
}

int scene_set_up(void **state)
{
    struct scene *scene = calloc(1, sizeof *scene);
    if (!scene)
        return -1;
    scene->poller = *(const enum mkit_poller *)*state;
    memset(&seen, 0, sizeof seen);
    gate.passes = 0;
    (void)strcpy(scene->folder, "/tmp/scene.XXXXXX");
    if (!mkdtemp(scene->folder))
        return -1;
    (void)snprintf(scene->path, sizeof scene->path, "%s/socket", scene->folder);
    (void)snprintf(scene->spec, sizeof scene->spec, "unix:%s", scene->path);
    *state = scene;
    return 0;
}

int scene_tear_down(void **state)
{
    struct scene *scene = *state;
    scene_pass(UINT_MAX / 2);
    if (scene->running) {
        mkit_server_abort(scene->server);
        (void)pthread_join(scene->thread, NULL);
    }
    while (scene_left(scene))
        (void)usleep(1000);
    mkit_server_free(scene->server);
    for (unsigned i = 0; i < scene->clients_count; i++)
        (void)close(scene->clients[i]);
    (void)unlink(scene->path);
    (void)rmdir(scene->folder);
    free(scene);
    return 0;
}

static int keep(struct scene *scene, int fd)
{
    assert_true(fd >= 0 && scene->clients_count < SCENE_CLIENTS);
    scene->clients[scene->clients_count++] = fd;
    return fd;
}

int scene_client(struct scene *scene)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(mkit_server_adopt(scene->server, ends[1]), 0);
    return keep(scene, ends[0]);
}

int scene_connect(struct scene *scene)
{
    return keep(scene, client_connect(scene->path));
}

/* ------------------------------------------------------------------------------------- awaiting */

void scene_pass(unsigned count)
{
    (void)pthread_mutex_lock(&gate.lock);
    gate.passes += count;
    (void)pthread_cond_broadcast(&gate.opened);
    (void)pthread_mutex_unlock(&gate.lock);
}

void scene_await(atomic_uint *what, unsigned value)
{
    const time_t until = time(NULL) + DEADLINE_S;
    while (atomic_load(what) != value && time(NULL) < until)
        (void)usleep(1000);
    assert_int_equal(atomic_load(what), value);
}

void scene_await_that(unsigned (*what)(struct scene *), struct scene *scene, unsigned value)
{
    const time_t until = time(NULL) + DEADLINE_S;
    while (what(scene) != value && time(NULL) < until)
        (void)usleep(1000);
    assert_int_equal(what(scene), value);
}

unsigned scene_threads(struct scene *scene)
{
    struct mkit_server_stats stats;
    mkit_server_get_stats(scene->server, &stats);
    return stats.threads;
}

unsigned scene_left(struct scene *scene)
{
    struct mkit_server_stats stats;
    if (!scene->server)
        return 0;
    mkit_server_get_stats(scene->server, &stats);
    return stats.left;
}

unsigned scene_state(struct scene *scene)
{
    (void)pthread_mutex_lock(&scene->server->lock);
    const unsigned state = scene->server->state;
    (void)pthread_mutex_unlock(&scene->server->lock);
    return state;
}

bool scene_logged(const char *text)
{
    (void)pthread_mutex_lock(&gate.lock);
    const bool found = strstr(seen.log, text);
    (void)pthread_mutex_unlock(&gate.lock);
    return found;
}
