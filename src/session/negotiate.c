/* Negotiation: what the MTA offers, what the filter asks for, and the answer (sheet 2.4 to 2.6). */
#include <stdlib.h>
#include <string.h>

#include "session/session.h"

/* Bits that are never the filter's business: data sizes and reserved. */
#define INTERNAL_BITS UINT32_C(0x70000000)

/* Bits that are left out of the answer, without a fault, when the MTA does not know them. */
#define DROPPABLE (MKIT_NODATA | MKIT_NOUNKNOWN | MKIT_NR_BITS)

/* The NO* bits of the steps that have no callback. */
static uint32_t missing_steps(const struct mkit_filter *filter)
{
    uint32_t bits = 0;
    for (unsigned state = 0; state < S_STATES; state++)
        if (mkit_states[state].step != NO_STEP && !filter->on[mkit_states[state].step])
            bits |= mkit_states[state].omit;
    return bits;
}

int mkit_negotiate_begin(struct mkit_session *session, const struct mkit_field *fields)
{
    struct mkit_options *options = &session->options;
    uint32_t version = fields[0].number;
    if (version < MKIT_VERSION_MIN)
        return mkit_fail(session, MKIT_EPROTOCOL,
                         "packet OPTNEG (O): protocol version %u, at least %d is needed",
                         (unsigned)version, MKIT_VERSION_MIN);
    uint32_t actions = fields[1].number ? fields[1].number : MKIT_V1_ACTIONS;
    uint32_t protocol = fields[2].number ? fields[2].number : MKIT_V1_PROTOCOL;
    protocol &= ~INTERNAL_BITS;
    *options = (struct mkit_options){
        .version = version,
        .offered_actions = actions,
        .offered_protocol = protocol | MKIT_NR_BITS,
        .actions = actions,
        .protocol = missing_steps(session->filter) | (protocol & MKIT_SKIPPING),
    };
    session->version = version < MKIT_VERSION_MAX ? version : MKIT_VERSION_MAX;
    session->emulated = MKIT_NR_BITS & ~protocol;
    return 0;
}

/* Writes the first set bit of `bits` for a log line. */
static const char *first_name(uint32_t bits, const char *(*name)(uint32_t))
{
    const char *found = name(bits & (~bits + 1));
    return found ? found : "a reserved bit";
}

static int send_answer(struct mkit_session *session, uint32_t protocol)
{
    struct mkit_field fields[3 + 2 * MKIT_STAGES] = {
        mkit_number(session->version),
        mkit_number(session->actions),
        mkit_number(protocol),
    };
    size_t count = 3;
    for (uint32_t stage = 0; stage < MKIT_STAGES; stage++) {
        if (!session->symlists[stage])
            continue;
        fields[count++] = mkit_number(stage);
        fields[count++] = mkit_bytes(session->symlists[stage], strlen(session->symlists[stage]));
    }
    return mkit_send(session, &session->out, MKIT_R_OPTNEG, fields, count);
}

int mkit_negotiate_end(struct mkit_session *session, int verdict)
{
    const struct mkit_options *options = &session->options;
    uint32_t offered = options->offered_protocol & ~session->emulated;
    uint32_t missing = missing_steps(session->filter);
    uint32_t actions;
    uint32_t protocol;
    if (!session->filter->on[MKIT_NEGOTIATE]) {
        actions = session->filter->actions;
        protocol = missing;
    } else if (verdict == MKIT_ALL_OPTS) {
        actions = options->offered_actions;
        protocol = missing | (offered & MKIT_SKIPPING);
    } else if (verdict == MKIT_CONTINUE) {
        actions = options->actions;
        protocol = options->protocol;
    } else if (verdict < 0) { /* whoever called it has told why */
        return mkit_fail(session, MKIT_EINVAL,
                         "the negotiate callback failed: the connection is closed");
    } else {
        const char *name = mkit_verdict_name(verdict);
        return mkit_fail(session, MKIT_EINVAL,
                         "the negotiate callback returned %s (%d): it must be CONTINUE or ALL_OPTS",
                         name ? name : "no verdict", verdict);
    }
    uint32_t excess = actions & ~options->offered_actions;
    if (excess && session->filter->degree == MKIT_STRICT && !session->filter->on[MKIT_NEGOTIATE]) {
        /* The default set is a wish: what this MTA lacks fails when it is used, not here. */
        actions &= options->offered_actions;
        excess = 0;
    }
    if (excess)
        return mkit_fail(session, MKIT_EACTION,
                         "the filter needs action %s, which the MTA does not offer (0x%x)",
                         first_name(excess, mkit_action_name), (unsigned)options->offered_actions);
    excess = protocol & ~offered & ~(uint32_t)DROPPABLE;
    if (excess)
        return mkit_fail(session, MKIT_EINVAL,
                         "the filter needs option %s, which the MTA does not offer (0x%x)",
                         first_name(excess, mkit_protocol_name), (unsigned)offered);
    /* What the MTA knows and this protocol does not is nothing to agree on. */
    session->actions = actions & MKIT_ALL_ACTIONS;
    session->protocol = protocol & MKIT_ALL_PROTOCOL;
    return send_answer(session, session->protocol & offered);
}

static int set_symlist(struct mkit_session *session, int stage, const char *names)
{
    const bool strict = session->filter->degree == MKIT_STRICT;
    if (strict && session->asked != MKIT_NEGOTIATE)
        return mkit_fail(session, MKIT_ESTEP,
                         "setsymlist: only the negotiate callback may call it");
    if (stage < 0 || stage >= MKIT_STAGES)
        return mkit_fail(session, MKIT_EINVAL, "setsymlist: there is no stage %d", stage);
    if (!names)
        return mkit_fail(session, MKIT_EINVAL, "setsymlist: names are missing");
    if (session->symlists[stage])
        return mkit_fail(session, MKIT_EINVAL, "setsymlist: stage %d has its list already", stage);
    if (strict) {
        if (!(session->options.offered_actions & MKIT_SETSYMLIST))
            return mkit_fail(session, MKIT_EACTION,
                             "setsymlist: the MTA does not offer SETSYMLIST");
        size_t count = 0;
        for (const char *at = names; *at;) {
            at += strspn(at, " ,");
            size_t len = strcspn(at, " ,");
            at += len;
            count += len > 0;
        }
        if (count > 50)
            return mkit_fail(session, MKIT_EINVAL,
                             "setsymlist: %zu macros, MTAs take 50 for a stage", count);
    }
    char *copy = strdup(names);
    if (!copy)
        return mkit_fail(session, MKIT_ENOMEM, "setsymlist: no memory");
    session->symlists[stage] = copy;
    return 0;
}

int mkit_setsymlist(struct mkit_session *session, int stage, const char *names)
{
    return CALLED(session, set_symlist(session, stage, names));
}
