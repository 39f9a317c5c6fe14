/* What holds for the states of the scheduler's model, and how they are kept in few bytes. */
#include <stddef.h>
#include <string.h>

#include "model.h"

/* ---------------------------------------------------------------------------------- the rules */

/* Whether an event of a connection is in the poller, or on the way from it. */
static bool has_event(const struct model_state *state, unsigned at)
{
    unsigned events = state->conns[at].event << at;
    for (unsigned i = 0; i < RUNNERS; i++)
        events |= state->runners[i].events;
    return events & 1U << at;
}

/* What holds for a connection that nobody has: the poller reports what is to be done. */
static const char *idle_wrong(const struct model_state *state, unsigned at)
{
    const struct model_conn *conn = &state->conns[at];
    if (model_ready(conn) && !has_event(state, at))
        return conn->waits_to_write ? "nobody will write" : "nobody will read";
    if (conn->waits_to_write)
        return NULL;
    if (model_has_packet(conn))
        return "a whole packet was forgotten";
    return conn->replies ? "a reply was forgotten" : NULL;
}

/* How often a connection is in the ready queue, or in batches. */
static unsigned places(const struct model_state *state, unsigned conn, bool in_queue)
{
    unsigned count = 0;
    for (unsigned i = 0; in_queue && i < state->ready_count; i++)
        count += state->ready[i] == conn;
    for (unsigned i = 0; !in_queue && i < RUNNERS; i++)
        for (unsigned at = 0; at < state->runners[i].count; at++)
            count += state->runners[i].batch[at] == conn;
    return count;
}

/* A reply of an earlier turn does not wait for a callback, unless the MTA does not take it. */
static bool holds_old_reply(const struct model_state *state, const struct model_runner *runner)
{
    for (unsigned at = 0; runner->inside && at < runner->count; at++) {
        const struct model_conn *conn = &state->conns[runner->batch[at]];
        if (conn->old && !conn->blocked && !conn->ending)
            return true;
    }
    return false;
}

/* Nobody can do anything any more: all has been answered, or has ended. */
static const char *rest_wrong(const struct model_setting *setting, const struct model_state *state)
{
    for (unsigned i = setting->hangs ? 1 : 0; i < CONNS; i++) {
        const struct model_conn *conn = &state->conns[i];
        if (conn->status == REMOVED)
            continue;
        if (setting->aborts)
            return "a connection never ends";
        if (conn->status != IDLE || conn->unread || conn->held || conn->replies)
            return "a connection is never served";
    }
    return NULL;
}

const char *model_wrong(const struct model_setting *setting, const struct model_state *state,
                        bool at_rest)
{
    for (unsigned i = 0; i < CONNS; i++) {
        const struct model_conn *conn = &state->conns[i];
        if (places(state, i, true) != (conn->status == READY) ||
            places(state, i, false) != (conn->status == RUNNING))
            return "a connection is in two places, or in none";
        const char *wrong = conn->status == IDLE ? idle_wrong(state, i) : NULL;
        if (wrong)
            return wrong;
    }
    for (unsigned i = 0; i < RUNNERS; i++)
        if (holds_old_reply(state, &state->runners[i]))
            return "an older reply waits for a callback";
    return at_rest ? rest_wrong(setting, state) : NULL;
}

/* ------------------------------------------------------------------------------------ packing */

/* Bits that are written or read, one field after the other. */
struct bits {
    struct model_key *key;
    unsigned at;
    bool reads;
};

static void pass(struct bits *bits, unsigned *field, unsigned width)
{
    if (bits->at % 64 + width > 64)
        bits->at += 64 - bits->at % 64;
    uint64_t *word = &bits->key->words[bits->at / 64];
    const unsigned shift = bits->at % 64;
    if (bits->reads)
        *field = (unsigned)(*word >> shift) & ((1U << width) - 1);
    else
        *word |= (uint64_t)*field << shift;
    bits->at += width;
}

static void pass_conn(struct bits *bits, struct model_conn *conn)
{
    unsigned *numbers[] = {&conn->sent, &conn->unread, &conn->held};
    unsigned *small[] = {&conn->replies, &conn->room, &conn->status};
    unsigned *flags[] = {&conn->again,   &conn->more,  &conn->kept_input,
                         &conn->blocked, &conn->event, &conn->waits_to_write,
                         &conn->ending,  &conn->over,  &conn->old};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        pass(bits, numbers[i], 3);
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        pass(bits, small[i], 2);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        pass(bits, flags[i], 1);
}

static void pass_runner(struct bits *bits, struct model_runner *runner)
{
    pass(bits, &runner->phase, 4);
    for (unsigned i = 0; i < CONNS; i++)
        pass(bits, &runner->batch[i], 2);
    pass(bits, &runner->count, 2);
    pass(bits, &runner->next_item, 2);
    pass(bits, &runner->computes, 2);
    pass(bits, &runner->events, CONNS);
    pass(bits, &runner->calling, 1);
    pass(bits, &runner->inside, 1);
    pass(bits, &runner->aside, 1);
}

static void pass_state(struct bits *bits, struct model_state *state)
{
    for (unsigned i = 0; i < CONNS; i++)
        pass_conn(bits, &state->conns[i]);
    for (unsigned i = 0; i < RUNNERS; i++)
        pass_runner(bits, &state->runners[i]);
    for (unsigned i = 0; i < CONNS; i++)
        pass(bits, &state->ready[i], 2);
    pass(bits, &state->ready_count, 2);
    pass(bits, &state->round, 2);
    unsigned *flags[] = {&state->polling, &state->asked, &state->state, &state->woken,
                         &state->more_runners};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        pass(bits, flags[i], 1);
}

/* Gives the last two connections each other's numbers. */
static void swap_conns(struct model_state *state)
{
    enum { ONE = CONNS - 2, OTHER = CONNS - 1 };
    static const unsigned number[] = {0, OTHER, ONE};
    const struct model_conn conn = state->conns[ONE];
    state->conns[ONE] = state->conns[OTHER];
    state->conns[OTHER] = conn;
    for (unsigned i = 0; i < state->ready_count; i++)
        state->ready[i] = number[state->ready[i]];
    for (unsigned i = 0; i < RUNNERS; i++) {
        struct model_runner *runner = &state->runners[i];
        for (unsigned at = 0; at < runner->count; at++)
            runner->batch[at] = number[runner->batch[at]];
        runner->events =
            (runner->events & 1) | (runner->events >> 1 & 2) | (runner->events << 1 & 4);
    }
}

struct model_key model_pack(const struct model_state *state)
{
    struct model_key key = {{0}};
    struct model_state ordered = *state;
    if (memcmp(&state->conns[CONNS - 2], &state->conns[CONNS - 1], sizeof *state->conns) > 0)
        swap_conns(&ordered);
    if (memcmp(&ordered.runners[0], &ordered.runners[1], sizeof *ordered.runners) > 0) {
        const struct model_runner runner = ordered.runners[0];
        ordered.runners[0] = ordered.runners[1];
        ordered.runners[1] = runner;
    }
    pass_state(&(struct bits){.key = &key}, &ordered);
    return key;
}

void model_unpack(const struct model_key *key, struct model_state *state)
{
    struct model_key copy = *key;
    memset(state, 0, sizeof *state);
    pass_state(&(struct bits){.key = &copy, .reads = true}, state);
}
