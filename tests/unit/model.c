/* The moves of the scheduler's model. Functions have the names of those in src/server that they
 * stand for; what holds a lock there is one move here. */
#include "model.h"

#include <stddef.h>
#include <string.h>

/* A move that is being made: the state is a copy. */
struct step {
    const struct model_setting *setting;
    struct model_state state;
};

static bool has(struct step *step, enum model_fault fault)
{
    return step->setting->fault == fault;
}

static bool by_epoll(struct step *step)
{
    return step->setting->poller == BY_EPOLL;
}

static struct model_conn *item(struct step *step, const struct model_runner *runner, unsigned at)
{
    return &step->state.conns[runner->batch[at]];
}

static unsigned packets_of(const struct model_setting *setting, unsigned at)
{
    return at == 0 ? setting->packets : 1;
}

void model_begin(const struct model_setting *setting, struct model_state *state)
{
    memset(state, 0, sizeof *state);
    for (unsigned i = 0; i < CONNS; i++) {
        struct model_conn *conn = &state->conns[i];
        if (i >= setting->conns) {
            conn->status = REMOVED;
            continue;
        }
        conn->event = setting->poller == BY_POLL;
        conn->room = i == 0 && setting->slow ? 0 : packets_of(setting, i);
    }
    state->runners[0].phase = LOOP;
}

/* ------------------------------------------------------------------------------------- poller */

/* epoll reports once what has happened since it was watched for; poll what is so, if it may. */
static void poller_change(struct step *step, struct model_conn *conn, bool waits_to_write)
{
    conn->waits_to_write = waits_to_write;
    conn->event = !by_epoll(step) || model_ready(conn);
}

static void poller_rearm(struct step *step, struct model_conn *conn)
{
    if (!by_epoll(step))
        conn->event = 1;
}

/* Something has arrived, or was used up. */
static void socket_changed(struct step *step, struct model_conn *conn, bool arrived)
{
    if (by_epoll(step))
        conn->event = model_ready(conn) && (arrived || conn->event);
}

/* ---------------------------------------------------------------------------------- scheduler */

static unsigned count_phase(const struct model_state *state, enum model_phase phase)
{
    unsigned count = 0;
    for (unsigned i = 0; i < RUNNERS; i++)
        count += state->runners[i].phase == phase;
    return count;
}

static unsigned working(const struct model_state *state)
{
    unsigned count = RUNNERS - count_phase(state, ASLEEP);
    for (unsigned i = 0; i < RUNNERS; i++)
        count -= state->runners[i].aside;
    return count;
}

static unsigned target(const struct model_state *state)
{
    return 1 + state->more_runners;
}

static void runners_for_work(struct model_state *state)
{
    const unsigned wanted = state->ready_count + !state->polling;
    const bool full = working(state) >= target(state);
    bool refused = false;
    while (working(state) < target(state) && count_phase(state, RISING) < wanted && !refused) {
        struct model_runner *runner = state->runners;
        while (runner < state->runners + RUNNERS && runner->phase != ASLEEP)
            runner++;
        refused = runner == state->runners + RUNNERS;
        if (!refused)
            runner->phase = RISING;
    }
    if (state->ready_count && state->polling && (full || refused))
        state->woken = 1;
}

static void server_make_ready(struct model_state *state, struct model_conn *conn)
{
    if (conn->status != IDLE) {
        conn->again = 1;
        return;
    }
    conn->status = READY;
    state->ready[state->ready_count++] = (unsigned)(conn - state->conns);
}

/* What leaves a batch: its replies are of an earlier turn now. */
static void leave_batch(struct model_conn *conn)
{
    conn->status = IDLE;
    conn->old = conn->replies > 0;
}

static void unload_done(struct step *step, struct model_runner *runner)
{
    const unsigned done = runner->calling ? runner->next_item - 1 : 0;
    for (unsigned i = 0; i < done; i++) {
        struct model_conn *conn = item(step, runner, i);
        conn->blocked = conn->blocked || !has(step, BLOCKED_NOT_SET);
        leave_batch(conn);
        server_make_ready(&step->state, conn);
    }
    runner->count -= done;
    runner->next_item -= done;
    memmove(runner->batch, runner->batch + done, runner->count * sizeof *runner->batch);
}

static void turn_unload(struct step *step, struct model_runner *runner)
{
    unload_done(step, runner);
    while (runner->count > runner->next_item) {
        struct model_conn *conn = item(step, runner, --runner->count);
        conn->kept_input = conn->kept_input || !has(step, KEPT_NOT_SET);
        leave_batch(conn);
        server_make_ready(&step->state, conn);
    }
}

static void turn_set_aside(struct step *step, struct model_runner *runner)
{
    runner->aside = 1;
    turn_unload(step, runner);
    runners_for_work(&step->state);
}

/* --------------------------------------------------------------------------------------- turn */

/* The first of them, as many as are wanted. */
static void turn_take(struct model_state *state, struct model_runner *runner, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct model_conn *conn = &state->conns[state->ready[i]];
        conn->status = RUNNING;
        conn->again = conn->more = 0;
        runner->batch[i] = state->ready[i];
    }
    state->ready_count -= count;
    state->round -= state->round < count ? state->round : count;
    memmove(state->ready, state->ready + count, state->ready_count * sizeof *state->ready);
    runner->count = runner->next_item = count;
    runner->phase = TOOK;
    runners_for_work(state);
}

static void output_write(struct step *step, struct model_conn *conn)
{
    const unsigned count = conn->replies < conn->room ? conn->replies : conn->room;
    conn->replies -= count;
    conn->room -= count;
    conn->blocked = conn->replies && !conn->over;
    conn->old = conn->old && conn->replies;
    socket_changed(step, conn, false);
}

static bool read_input(struct step *step, struct model_conn *conn)
{
    const unsigned got = conn->unread < READ_MOST ? conn->unread : READ_MOST;
    conn->unread -= got;
    conn->held += got;
    conn->more = got == READ_MOST;
    socket_changed(step, conn, false);
    return conn->kept_input || (got && model_has_packet(conn));
}

static void read_batch(struct step *step, struct model_runner *runner)
{
    unsigned used = 0;
    bool any = false;
    for (unsigned i = 0; i < runner->count; i++) {
        struct model_conn *conn = item(step, runner, i);
        if (conn->blocked)
            output_write(step, conn);
        if (conn->ending || step->state.asked) {
            conn->blocked = 0;
            conn->ending = 1; /* stands for mkit_session_end too */
            any = true;
        } else if (conn->blocked || conn->over) {
            conn->more = !has(step, BLOCKED_NOT_READ);
        } else if (used == ARENA_ROOM) {
            conn->more = !has(step, MORE_CLEARED);
        } else {
            used += conn->unread > 0;
            any = read_input(step, conn) || any;
        }
    }
    runner->phase = any ? CALLING : CALLED;
    if (any)
        runner->next_item = 0;
}

/* Begins a callback if there is a packet; returns whether it did. */
static bool begin_call(struct model_runner *runner, struct model_conn *conn)
{
    conn->over = conn->over || conn->ending;
    runner->inside = !conn->over && model_has_packet(conn);
    return runner->inside;
}

static void next_item(struct step *step, struct model_runner *runner)
{
    runner->calling = runner->next_item < runner->count;
    if (!runner->calling) {
        runner->phase = CALLED;
        return;
    }
    struct model_conn *conn = item(step, runner, runner->next_item++);
    if (conn->blocked || conn->over)
        return;
    if (!has(step, KEPT_CLEARED_EARLY))
        conn->kept_input = 0;
    (void)begin_call(runner, conn);
}

/* A callback returns. */
static void come_back(struct step *step, struct model_runner *runner)
{
    struct model_conn *conn = item(step, runner, runner->next_item - 1);
    conn->held -= PIECES;
    conn->replies++;
    runner->aside = 0;
    runner->computes = runner->computes ? 2 : 0;
    (void)begin_call(runner, conn);
}

static void write_batch(struct step *step, struct model_runner *runner)
{
    for (unsigned i = 0; i < runner->count; i++) {
        struct model_conn *conn = item(step, runner, i);
        output_write(step, conn);
        if (has(step, KEPT_CLEARED_EARLY))
            conn->kept_input = 0;
    }
    runner->phase = WRITTEN;
}

static void give_back(struct step *step, struct model_conn *conn)
{
    if (conn->over) {
        *conn = (struct model_conn){.status = REMOVED};
        return;
    }
    leave_batch(conn);
    conn->ending = conn->ending || step->state.state;
    if (conn->blocked && !conn->ending) {
        poller_change(step, conn, true);
        return;
    }
    if (conn->waits_to_write)
        poller_change(step, conn, false);
    if ((conn->again && !has(step, AGAIN_IGNORED)) || conn->more || conn->ending)
        server_make_ready(&step->state, conn);
    else
        poller_rearm(step, conn);
}

static void give_batch_back(struct step *step, struct model_runner *runner)
{
    for (unsigned i = 0; i < runner->count; i++)
        give_back(step, item(step, runner, i));
    runner->count = runner->next_item = 0;
    runner->phase = LOOP;
}

/* -------------------------------------------------------------------------------------- moves */

/* Where moves are told, and where they begin. */
struct teller {
    const struct model_setting *setting;
    const struct model_state *from;
    model_found *found;
    void *arg;
};

static struct step begin(const struct teller *teller)
{
    return (struct step){teller->setting, *teller->from};
}

/* Clears what nobody looks at before it is set again, so that it makes no other state. */
static void clear_unused(struct model_state *state)
{
    for (unsigned i = 0; i < CONNS; i++)
        if (state->conns[i].status != RUNNING)
            state->conns[i].again = state->conns[i].more = 0;
    for (unsigned i = 0; i < RUNNERS; i++) {
        struct model_runner *runner = &state->runners[i];
        for (unsigned at = runner->count; at < CONNS; at++)
            runner->batch[at] = 0;
        if (runner->phase != CALLING)
            runner->next_item = runner->calling = 0;
    }
    for (unsigned at = state->ready_count; at < CONNS; at++)
        state->ready[at] = 0;
}

static void tell(const struct teller *teller, struct model_state *state, const char *move)
{
    clear_unused(state);
    if (memcmp(state, teller->from, sizeof *state) != 0)
        teller->found(teller->arg, state, move);
}

/* The MTA of a connection sends a piece, or makes room for a reply. */
static void move_mta(const struct teller *teller, unsigned at)
{
    const struct model_conn *conn = &teller->from->conns[at];
    const unsigned packets = packets_of(teller->setting, at);
    if (conn->status == REMOVED || conn->over)
        return;
    if (conn->sent < packets * PIECES) {
        struct step step = begin(teller);
        step.state.conns[at].sent++;
        step.state.conns[at].unread++;
        socket_changed(&step, &step.state.conns[at], !conn->waits_to_write);
        tell(teller, &step.state, "mta sends");
    }
    const unsigned written = (conn->sent - conn->unread - conn->held) / PIECES - conn->replies;
    if (conn->room + written < packets) {
        struct step step = begin(teller);
        step.state.conns[at].room++;
        socket_changed(&step, &step.state.conns[at], conn->waits_to_write);
        tell(teller, &step.state, "mta takes");
    }
}

static void poller_wait(const struct teller *teller, unsigned at)
{
    struct step step = begin(teller);
    struct model_state *state = &step.state;
    struct model_runner *runner = &state->runners[at];
    for (unsigned i = 0; i < CONNS; i++)
        if (state->conns[i].event && model_ready(&state->conns[i])) {
            runner->events |= 1U << i;
            state->conns[i].event = 0;
        }
    if (!runner->events && !state->woken && runner->phase == WAITING)
        return;
    state->woken = 0;
    runner->phase = FOUND;
    tell(teller, state, "poller_wait");
}

static void take_events(const struct teller *teller, unsigned at)
{
    struct step step = begin(teller);
    struct model_state *state = &step.state;
    struct model_runner *runner = &state->runners[at];
    state->polling = 0;
    for (unsigned i = 0; i < CONNS; i++)
        if (runner->events & 1U << i && state->conns[i].status != REMOVED)
            server_make_ready(state, &state->conns[i]);
    state->round = state->ready_count;
    runner->events = 0;
    runner->phase = LOOP;
    tell(teller, state, "take_events");
}

/* The top of a runner's loop. */
static void run(const struct teller *teller, unsigned at)
{
    struct step step = begin(teller);
    struct model_state *state = &step.state;
    struct model_runner *runner = &state->runners[at];
    runner->phase = LOOP;
    const bool surplus = working(state) > target(state);
    if (state->ready_count && !surplus && (state->round || state->polling)) {
        for (unsigned count = 1; count <= state->ready_count; count++) {
            struct model_state taken = *state;
            turn_take(&taken, &taken.runners[at], count);
            tell(teller, &taken, "turn_take");
        }
    } else if (!state->polling && !surplus) {
        state->polling = 1;
        runner->phase = state->ready_count ? LOOKING : WAITING;
        tell(teller, state, "find_events");
    } else {
        if (surplus)
            runners_for_work(state);
        runner->phase = ASLEEP;
        tell(teller, state, "wait_for_work");
    }
}

/* One move of a runner that has a batch. After those that begin a callback it may step aside. */
static void serve(const struct teller *teller, unsigned at)
{
    struct step step = begin(teller);
    struct model_runner *runner = &step.state.runners[at];
    const char *move = "next_item";
    if (runner->phase == TOOK) {
        read_batch(&step, runner);
        move = "read_batch";
    } else if (runner->phase == CALLED) {
        write_batch(&step, runner);
        move = "write_batch";
    } else if (runner->phase == WRITTEN) {
        give_batch_back(&step, runner);
        move = "give_batch_back";
    } else if (!runner->inside) {
        next_item(&step, runner);
    } else if (teller->setting->hangs && runner->batch[runner->next_item - 1] == 0) {
        return;
    } else {
        come_back(&step, runner);
        move = "come_back";
    }
    tell(teller, &step.state, move);
    if (runner->inside) {
        turn_set_aside(&step, runner);
        tell(teller, &step.state, "step_aside");
    }
}

static void move_runner(const struct teller *teller, unsigned at)
{
    switch ((enum model_phase)teller->from->runners[at].phase) {
    case ASLEEP: return;
    case RISING:
    case LOOP: run(teller, at); return;
    case LOOKING:
    case WAITING: poller_wait(teller, at); return;
    case FOUND: take_events(teller, at); return;
    default: serve(teller, at);
    }
}

/* Looks at the runners, and lets the number of those that work follow. */
static void adapt(struct model_state *state)
{
    state->more_runners = 0;
    for (unsigned i = 0; i < RUNNERS; i++) {
        struct model_runner *runner = &state->runners[i];
        runner->computes = runner->computes == 1;
        state->more_runners = state->more_runners || runner->computes;
    }
    runners_for_work(state);
}

/* What the watcher may do about a runner. */
static void move_watcher(const struct teller *teller, unsigned at)
{
    const struct model_runner *from = &teller->from->runners[at];
    if (from->phase != CALLING)
        return;
    struct step unloaded = begin(teller);
    turn_unload(&unloaded, &unloaded.state.runners[at]);
    adapt(&unloaded.state);
    tell(teller, &unloaded.state, "turn_unload");
    if (!from->inside || from->aside || from->computes == 1)
        return;
    struct step aside = begin(teller);
    turn_set_aside(&aside, &aside.state.runners[at]);
    adapt(&aside.state);
    tell(teller, &aside.state, "turn_set_aside");
    unloaded.state.runners[at].computes = 1;
    adapt(&unloaded.state);
    tell(teller, &unloaded.state, "find_long_call");
}

/* What else happens to the server. */
static void move_server(const struct teller *teller)
{
    struct step adapted = begin(teller);
    adapt(&adapted.state);
    tell(teller, &adapted.state, "adapt");
    struct step step = begin(teller);
    struct model_state *state = &step.state;
    if (!teller->setting->aborts)
        return;
    if (!state->asked) {
        state->asked = 1;
        tell(teller, state, "mkit_server_abort");
    } else if (!state->state) {
        state->state = 1;
        for (unsigned i = 0; i < CONNS; i++)
            if (state->conns[i].status == IDLE) {
                state->conns[i].ending = 1;
                server_make_ready(state, &state->conns[i]);
            }
        runners_for_work(state);
        tell(teller, state, "change_state");
    }
}

void model_moves(const struct model_setting *setting, const struct model_state *state,
                 model_found *found, void *arg)
{
    const struct teller teller = {setting, state, found, arg};
    for (unsigned i = 0; i < CONNS; i++)
        move_mta(&teller, i);
    for (unsigned i = 0; i < RUNNERS; i++) {
        move_runner(&teller, i);
        move_watcher(&teller, i);
    }
    move_server(&teller);
}
