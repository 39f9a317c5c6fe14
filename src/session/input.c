/* Input: bytes from the MTA, borrowed where possible, and the packets in them. */
#include <string.h>

#include "session/session.h"

int mkit_session_feed(struct mkit_session *session, const void *data, size_t len)
{
    if (session->error)
        return session->error;
    if (session->in_len || session->asked != NO_STEP)
        return mkit_fail(session, MKIT_EBUSY, "feed: earlier bytes are not used up");
    session->in = data;
    session->in_len = session->ending ? 0 : len;
    return 0;
}

static int bad_frame(struct mkit_session *session, int error, const struct mkit_packet *packet)
{
    const struct mkit_packet_kind *kind = mkit_packet_kind(MKIT_TO_FILTER, packet->command);
    if (error == MKIT_EPROTOCOL)
        return mkit_fail(session, error,
                         "a packet of length 0: the MTA does not speak the protocol");
    if (kind)
        return mkit_fail(session, error, "packet %s (%c): %zu bytes, the limit is %zu", kind->name,
                         kind->command, packet->len, session->limits.packet);
    return mkit_fail(session, error,
                     "a packet of %zu bytes: the peer does not speak the milter protocol (HTTP or "
                     "TLS?)",
                     packet->len + 1);
}

/* Lets go of the packet that was served last. What follows it in `partial` stays where it is: to
 * move it for each packet would cost its square when much was kept. */
static void retire_packet(struct mkit_session *session)
{
    if (session->packet.data && session->packet_split) {
        session->partial_from += MKIT_HEADER_LEN + session->packet.len;
        if (session->partial_from == session->partial.len)
            session->partial_from = session->partial.len = 0;
    }
    session->packet.data = NULL;
}

/* Makes room for more bytes in `partial`, over what has been served. Moves it. */
static bool reserve(struct mkit_session *session, size_t more)
{
    struct bytes *partial = &session->partial;
    if (session->partial_from) {
        partial->len -= session->partial_from;
        memmove(partial->at, partial->at + session->partial_from, partial->len);
        session->partial_from = 0;
    }
    return mkit_reserve(partial, more);
}

/* Looks for a packet at the start of what has come. Returns as mkit_frame_read. */
static ssize_t read_frame(const struct mkit_session *session, struct mkit_packet *packet,
                          size_t *need)
{
    const struct bytes *partial = &session->partial;
    if (partial->len)
        return mkit_frame_read(partial->at + session->partial_from,
                               partial->len - session->partial_from, session->limits.packet, packet,
                               need);
    return mkit_frame_read(session->in, session->in_len, session->limits.packet, packet, need);
}

/* Takes from the borrowed bytes what the packet in `partial` still lacks of `need`, no more.
 * Returns how many bytes, or an error. */
static ssize_t take_in(struct mkit_session *session, size_t need)
{
    const size_t have = session->partial.len - session->partial_from;
    const size_t take = need - have < session->in_len ? need - have : session->in_len;
    if (take == 0)
        return 0;
    if (!reserve(session, take))
        return mkit_fail(session, MKIT_ENOMEM, "no memory for a packet of %zu bytes", need);
    (void)mkit_append(&session->partial, session->in, take);
    session->in += take;
    session->in_len -= take;
    return (ssize_t)take;
}

size_t mkit_session_room(struct mkit_session *session, uint8_t **at)
{
    struct mkit_packet packet;
    size_t need = 0;
    *at = NULL;
    if (session->error || session->ending || session->asked != NO_STEP || session->todo_len)
        return 0;
    retire_packet(session);
    if (session->partial.len == 0 && session->in_len == 0)
        return 0;
    ssize_t taken = 0;
    do
        taken = read_frame(session, &packet, &need) == 0 ? take_in(session, need) : -1;
    while (taken > 0);
    if (taken < 0) /* it is whole, or wrong */
        return 0;
    /* Claims are cheap: no peer gets much more room than it has sent. */
    size_t missing = need - (session->partial.len - session->partial_from);
    if (missing > MKIT_CHUNK)
        missing = MKIT_CHUNK;
    if (!reserve(session, missing))
        return 0;
    *at = session->partial.at + session->partial.len;
    return missing;
}

void mkit_session_filled(struct mkit_session *session, size_t len)
{
    session->partial.len += len;
}

int mkit_session_keep_input(struct mkit_session *session)
{
    if (session->asked != NO_STEP)
        return mkit_fail(session, MKIT_EBUSY, "keep_input: the last event is not answered");
    struct bytes *partial = &session->partial;
    struct mkit_packet *packet = &session->packet;
    if (session->todo_len == 0)
        retire_packet(session);
    /* A packet that still has steps to come stays as well. */
    const bool copy = packet->data && !session->packet_split;
    const size_t len = copy ? MKIT_HEADER_LEN + packet->len : 0;
    if (!reserve(session, len + session->in_len))
        return mkit_fail(session, MKIT_ENOMEM, "no memory for %zu bytes of input", session->in_len);
    if (copy)
        (void)mkit_append(partial, packet->data - MKIT_HEADER_LEN, len);
    (void)mkit_append(partial, session->in, session->in_len);
    session->packet_split = session->packet_split || copy;
    if (packet->data)
        packet->data = partial->at + MKIT_HEADER_LEN;
    session->in_len = 0;
    return 0;
}

/* A packet lies whole in `in`, or it is put together in `partial`. */
int mkit_next_packet(struct mkit_session *session)
{
    retire_packet(session);
    for (;;) {
        size_t need = 0;
        const ssize_t used = read_frame(session, &session->packet, &need);
        if (used < 0)
            return bad_frame(session, (int)used, &session->packet);
        if (used > 0) {
            session->packet_split = session->partial.len > 0;
            if (!session->packet_split) {
                session->in += used;
                session->in_len -= (size_t)used;
            }
            return 1;
        }
        const ssize_t taken = take_in(session, need);
        if (taken <= 0)
            return (int)taken;
    }
}
