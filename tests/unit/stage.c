/* A server under faults, and its filter, which keeps account of what it sees. */
#include "stage.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct account account = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* Connections are noted here and not in memory that might not be had. */
enum { MOST_NOTES = 256 };
static struct note {
    bool used;
    bool connected;
    bool open; /* a message */
    uint64_t digest;
} notes[MOST_NOTES];

uint64_t stage_digest(uint64_t digest, char command, const void *data, size_t len)
{
    const uint8_t *bytes = data;
    digest = (digest ^ (uint8_t)command) * 0x100000001b3U;
    for (size_t i = 0; i < len; i++)
        digest = (digest ^ bytes[i]) * 0x100000001b3U;
    return digest;
}

static struct timespec deadline(void)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += DEADLINE_S;
    return at;
}

/* ------------------------------------------------------------------------------------- filter */

/* Waits while `look` says no. With the lock held. Returns whether it was worth it. */
static bool wait_until(bool (*look)(unsigned), unsigned argument)
{
    faults_here(NOT_ITS); /* the real clock */
    const struct timespec until = deadline();
    faults_here(ITS_WORKER);
    int error = 0;
    while (!look(argument) && !error)
        error = pthread_cond_timedwait(&account.changed, &account.lock, &until);
    return !error;
}

static bool is_gate_open(unsigned argument)
{
    (void)argument;
    return account.gate_open;
}

static bool has_helos(unsigned count)
{
    return account.seen[MKIT_HELO] >= count;
}

static struct note *note_of(struct mkit_session *session)
{
    struct note *note = mkit_private(session);
    for (int i = 0; !note && i < MOST_NOTES; i++)
        if (!notes[i].used)
            note = &notes[i];
    if (!note)
        return NULL;
    if (!note->used) {
        *note = (struct note){.used = true};
        account.open_connections++;
        mkit_set_private(session, note);
    }
    return note;
}

static void end_message(struct note *note)
{
    account.wrong += !note->open;
    account.open_messages -= note->open;
    note->open = false;
}

static void begin_message(struct note *note)
{
    account.wrong += note->open || !note->connected;
    account.open_messages++;
    note->open = true;
    note->digest = STAGE_NO_DIGEST;
}

static void end_connection(struct mkit_session *session, struct note *note)
{
    account.wrong += note->open;
    account.open_connections--;
    *note = (struct note){0};
    mkit_set_private(session, NULL);
}

/* What an event adds to the digest of its message: a command and a text. */
static void digest_event(struct note *note, const struct mkit_event *event)
{
    switch (event->step) {
    case MKIT_MAIL:
    case MKIT_RCPT: {
        const struct mkit_text *all = &event->of.args.all;
        note->digest = stage_digest(note->digest, event->step == MKIT_MAIL ? 'M' : 'R', all->at,
                                    strlen(all->at));
        break;
    }
    case MKIT_HEADER:
        note->digest =
            stage_digest(note->digest, 'L', event->of.header.name.at, event->of.header.name.len);
        note->digest =
            stage_digest(note->digest, 'l', event->of.header.value.at, event->of.header.value.len);
        break;
    case MKIT_BODY:
        note->digest = stage_digest(note->digest, 'B', event->of.body.at, event->of.body.len);
        break;
    default: break;
    }
}

static void take_account(struct mkit_session *session, const struct mkit_event *event)
{
    struct note *note = note_of(session);
    account.seen[event->step]++;
    if (!note) {
        account.wrong++;
        return;
    }
    if (event->step == MKIT_CONNECT) {
        account.wrong += note->connected;
        note->connected = true;
    } else if (event->step == MKIT_MAIL) {
        begin_message(note);
    }
    digest_event(note, event);
    if (event->step == MKIT_EOM) {
        end_message(note);
        account.digests[account.digests_count++ % MOST_DIGESTS] = note->digest;
    } else if (event->step == MKIT_ABORT) {
        end_message(note);
    } else if (event->step == MKIT_CLOSE) {
        end_connection(session, note);
    }
}

/* Every step: MAIL from "<wait>" blocks until the gate opens; a message with the macro {big} gets a
 * body that no socket takes at once. */
static int on_step(struct mkit_session *session, const struct mkit_event *event)
{
    (void)pthread_mutex_lock(&account.lock);
    take_account(session, event);
    (void)pthread_cond_broadcast(&account.changed);
    if (event->step == MKIT_MAIL && strcmp(event->of.args.all.at, "<wait>") == 0) {
        account.at_gate++;
        account.wrong += !wait_until(is_gate_open, 0);
    }
    (void)pthread_mutex_unlock(&account.lock);
    if (event->step == MKIT_EOM && mkit_getsymval(session, "{big}")) {
        static const char part[1 << 16];
        for (int i = 0; i < 64; i++)
            if (mkit_replacebody(session, part, sizeof part) < 0)
                break;
    }
    return event->step == MKIT_EOM && mkit_addheader(session, "X-Seen", "whole") < 0
               ? MKIT_TEMPFAIL
               : MKIT_CONTINUE;
}

static void count(unsigned *what)
{
    (void)pthread_mutex_lock(&account.lock);
    ++*what;
    (void)pthread_mutex_unlock(&account.lock);
}

static void thread_start(void *data)
{
    (void)data;
    faults_here(ITS_WORKER);
    count(&account.started);
}

static void on_log(void *data, int level, const struct mkit_session *session, const char *line)
{
    (void)data;
    (void)level;
    (void)session;
    (void)pthread_mutex_lock(&account.lock);
    const int len =
        snprintf(account.log + account.log_len, sizeof account.log - account.log_len, "%s\n", line);
    account.log_len += (size_t)len;
    if (account.log_len >= sizeof account.log)
        account.log_len = sizeof account.log - 1;
    (void)pthread_cond_broadcast(&account.changed);
    account.wrong += !wait_until(has_helos, account.log_helos);
    (void)pthread_mutex_unlock(&account.lock);
}

static const struct mkit_filter filter = {
    .actions = MKIT_ADDHDRS | MKIT_CHGBODY,
    .on = {on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step,
           on_step, on_step},
    .thread_start = thread_start,
    .log = on_log,
};

/* ------------------------------------------------------------------------------------- account */

static void wait_a_moment(void)
{
    static const struct timespec moment = {.tv_nsec = 1000000};
    (void)nanosleep(&moment, NULL);
}

void stage_await(bool (*look)(unsigned), unsigned argument)
{
    for (int i = 0; i < DEADLINE_S * 1000 && !look(argument); i++)
        wait_a_moment();
    assert_true(look(argument));
}

unsigned stage_count(const unsigned *what)
{
    (void)pthread_mutex_lock(&account.lock);
    const unsigned value = *what;
    (void)pthread_mutex_unlock(&account.lock);
    return value;
}

/* What is waited for. */
static const unsigned *awaited;
static const char *awaited_text;

static bool is_reached(unsigned times)
{
    return stage_count(awaited) >= times;
}

static bool is_told(unsigned times)
{
    return stage_told(awaited_text) >= times;
}

void stage_await_seen(enum mkit_step step, unsigned times)
{
    awaited = &account.seen[step];
    stage_await(is_reached, times);
}

void stage_await_gate(unsigned callbacks)
{
    awaited = &account.at_gate;
    stage_await(is_reached, callbacks);
}

void stage_await_told(const char *text, unsigned times)
{
    awaited_text = text;
    stage_await(is_told, times);
}

void stage_open_gate(void)
{
    (void)pthread_mutex_lock(&account.lock);
    account.gate_open = true;
    (void)pthread_cond_broadcast(&account.changed);
    (void)pthread_mutex_unlock(&account.lock);
}

/* Adds up lines that begin with a text: 1 each, or what stands in "(N times)". */
static unsigned count_lines(const char *text, bool each)
{
    unsigned count = 0;
    (void)pthread_mutex_lock(&account.lock);
    const char *end;
    for (const char *line = account.log; (end = strchr(line, '\n')); line = end + 1) {
        if (strncmp(line, text, strlen(text)) != 0)
            continue;
        const char *times = strstr(line, " (");
        unsigned n = 1;
        if (!each && times && times < end)
            (void)sscanf(times, " (%u times)", &n);
        count += n;
    }
    (void)pthread_mutex_unlock(&account.lock);
    return count;
}

unsigned stage_lines(const char *text)
{
    return count_lines(text, true);
}

unsigned stage_told(const char *text)
{
    return count_lines(text, false);
}

/* -------------------------------------------------------------------------------------- server */

int stage_set_up(void **state)
{
    struct stage *stage = calloc(1, sizeof *stage);
    stage->poller = *(const enum mkit_poller *)*state;
    (void)snprintf(stage->folder, sizeof stage->folder, "/tmp/mkit-XXXXXX");
    if (!mkdtemp(stage->folder))
        return -1;
    (void)snprintf(stage->path, sizeof stage->path, "%s/socket", stage->folder);
    memset(account.seen, 0, sizeof account.seen);
    memset(account.log, 0, sizeof account.log);
    account.log_len = 0;
    account.wrong = account.open_messages = account.open_connections = account.digests_count = 0;
    account.at_gate = account.log_helos = account.started = account.ended = 0;
    account.gate_open = false;
    memset(notes, 0, sizeof notes);
    faults_reset();
    *state = stage;
    return 0;
}

void stage_free(struct stage *stage)
{
    mkit_server_free(stage->server);
    stage->server = NULL;
}

int stage_tear_down(void **state)
{
    struct stage *stage = *state;
    stage_open_gate();
    faults_hold_poller(false);
    if (stage->running) {
        mkit_server_abort(stage->server);
        (void)pthread_join(stage->thread, NULL);
    }
    stage_free(stage);
    for (unsigned i = 0; i < stage->clients_count; i++)
        (void)close(stage->clients[i]);
    (void)unlink(stage->path);
    (void)rmdir(stage->folder);
    free(stage);
    return 0;
}

int stage_make(struct stage *stage, struct mkit_server_options options)
{
    static const struct mkit_listen_options listening = {.remove_stale = true};
    char spec[80];
    (void)snprintf(spec, sizeof spec, "unix:%s", stage->path);
    options.poller = stage->poller;
    faults_here(ITS_CALLER);
    stage->server = mkit_server_new(&filter, &options);
    int error = stage->server ? mkit_server_listen(stage->server, spec, &listening) : MKIT_ENOMEM;
    faults_here(NOT_ITS);
    return error;
}

static void *run_server(void *arg)
{
    struct stage *stage = arg;
    faults_here(ITS_CALLER);
    stage->result = mkit_server_run(stage->server, NULL, NULL);
    (void)snprintf(stage->why, sizeof stage->why, "%s", mkit_server_why(stage->server));
    count(&account.ended);
    return NULL;
}

static bool has_begun(unsigned events)
{
    return stage_count(&account.started) + stage_count(&account.ended) > events;
}

bool stage_start(struct stage *stage)
{
    const unsigned ended = account.ended;
    const unsigned events = account.started + ended;
    assert_int_equal(pthread_create(&stage->thread, NULL, run_server, stage), 0);
    stage->running = true;
    stage_await(has_begun, events);
    return stage_count(&account.ended) == ended;
}

void stage_join(struct stage *stage)
{
    assert_int_equal(pthread_join(stage->thread, NULL), 0);
    stage->running = false;
}

void stage_stop(struct stage *stage)
{
    mkit_server_stop(stage->server);
    stage_join(stage);
    assert_int_equal(stage->result, 0);
    struct mkit_server_stats stats;
    mkit_server_get_stats(stage->server, &stats);
    assert_int_equal(stats.open, 0);
    assert_int_equal(stats.threads, 0);
    assert_int_equal(account.wrong, 0);
    assert_int_equal(account.open_messages, 0);
    assert_int_equal(account.open_connections, 0);
}

int stage_client(struct stage *stage)
{
    const int fd = client_connect(stage->path);
    assert_true(fd >= 0);
    stage->clients[stage->clients_count++] = fd;
    return fd;
}

void stage_await_watcher(struct stage *stage)
{
    /* It reads the clock twice each time round: at four more one round has begun and ended. */
    const unsigned before = faults_clock_reads();
    for (int i = 0; i < DEADLINE_S * 1000 && faults_clock_reads() - before < 5; i++) {
        assert_int_equal(write(mkit_server_poke_fd(stage->server), "", 1), 1);
        wait_a_moment();
    }
    assert_int_in_range(faults_clock_reads() - before, 5, UINT_MAX);
}
