/* A session whose callback does not answer in time goes on without it. The callback keeps the old
 * session, where whatever it still calls fails; a new one takes over the connection. */
#include <stdlib.h>
#include <string.h>

#include "session/session.h"

enum { FREE, IN_CALL, PARTED }; /* session->calls */

bool mkit_enter_call(struct mkit_session *session)
{
    int expected = FREE;
    if (atomic_compare_exchange_strong(&session->calls, &expected, IN_CALL))
        return true;
    if (expected == PARTED)
        (void)mkit_fail(session, MKIT_ECLOSED,
                        "the deadline of this step is over: it was answered without this callback");
    return expected != PARTED; /* a call within a call, by a flush for example */
}

int mkit_leave_call(struct mkit_session *session, int result)
{
    int expected = IN_CALL;
    (void)atomic_compare_exchange_strong(&session->calls, &expected, FREE);
    return result;
}

bool mkit_is_parted(const struct mkit_session *session)
{
    return atomic_load(&session->calls) == PARTED;
}

/* Copies what came behind the packet that is being served. */
static bool copy_input(struct mkit_session *to, const struct mkit_session *from)
{
    const struct bytes *partial = &from->partial;
    size_t at = from->partial_from;
    if (from->packet.data && from->packet_split)
        at += MKIT_HEADER_LEN + from->packet.len;
    const bool rest = !partial->len || at >= partial->len ||
                      mkit_append(&to->partial, partial->at + at, partial->len - at);
    return rest && mkit_append(&to->partial, from->in, from->in_len);
}

static bool copy_macros(struct mkit_session *to, const struct mkit_session *from)
{
    for (int slot = 0; slot < MACRO_SLOTS; slot++) {
        const struct macro_slot *macros = &from->macros[slot];
        if (!macros->strings)
            continue;
        char *strings = malloc(macros->len + 1);
        if (!strings)
            return false;
        memcpy(strings, macros->strings, macros->len);
        strings[macros->len] = '\0';
        to->macros[slot] = (struct macro_slot){strings, macros->len};
    }
    return true;
}

/* Copies what the connection needs to go on, without what the callback has begun to say. */
static bool copy_state(struct mkit_session *to, const struct mkit_session *from)
{
    to->private = from->private;
    to->limits = from->limits;
    to->eof = from->eof;
    to->state = from->state;
    to->before_unknown = from->before_unknown;
    to->version = from->version;
    to->actions = from->actions;
    to->protocol = from->protocol;
    to->emulated = from->emulated;
    to->packet = from->packet;
    to->packet.data = NULL; /* the steps that are left for it need no more than its command */
    memcpy(to->todo, from->todo, sizeof to->todo);
    to->todo_len = from->todo_len;
    to->asked = from->asked;
    to->held = from->held;
    to->held_always = from->held_always;
    to->close_owed = from->close_owed;
    to->recipients = from->recipients;
    to->header_bytes = from->header_bytes;
    const size_t waiting = from->out_step > from->out_sent ? from->out_step - from->out_sent : 0;
    return copy_input(to, from) && copy_macros(to, from) &&
           mkit_append(&to->out, from->out.at ? from->out.at + from->out_sent : NULL, waiting);
}

struct mkit_session *mkit_session_part(struct mkit_session *session)
{
    int expected = FREE;
    if (!atomic_compare_exchange_strong(&session->calls, &expected, PARTED))
        return NULL;
    const bool answerable = session->asked < MKIT_ABORT && !session->ending && !session->error;
    struct mkit_session *to = answerable ? mkit_session_new(session->filter) : NULL;
    if (to && copy_state(to, session))
        return to;
    mkit_session_free(to);
    atomic_store(&session->calls, FREE);
    return NULL;
}
