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

/* Lets go of the packet that was served last. */
static void retire_packet(struct mkit_session *session)
{
    struct bytes *partial = &session->partial;
    if (session->packet.data && session->packet_split) {
        size_t used = MKIT_HEADER_LEN + session->packet.len;
        partial->len -= used;
        memmove(partial->at, partial->at + used, partial->len);
    }
    session->packet.data = NULL;
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
    if (!mkit_reserve(partial, len + session->in_len))
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
    struct bytes *partial = &session->partial;
    retire_packet(session);
    for (;;) {
        const bool split = partial->len > 0;
        const uint8_t *at = split ? partial->at : session->in;
        size_t need = 0;
        ssize_t used = mkit_frame_read(at, split ? partial->len : session->in_len,
                                       session->limits.packet, &session->packet, &need);
        if (used < 0)
            return bad_frame(session, (int)used, &session->packet);
        if (used > 0) {
            if (!split) {
                session->in += used;
                session->in_len -= (size_t)used;
            }
            session->packet_split = split;
            return 1;
        }
        /* Not whole: take what it needs, no more, out of the borrowed bytes. */
        size_t take = split ? need - partial->len : session->in_len;
        if (take > session->in_len)
            take = session->in_len;
        if (take == 0)
            return 0;
        if (!mkit_append(partial, session->in, take))
            return mkit_fail(session, MKIT_ENOMEM, "no memory for a packet of %zu bytes", need);
        session->in += take;
        session->in_len -= take;
    }
}
