/* Output: packets for the MTA, and when they must leave before the end of the turn. */
#include "session/session.h"

int mkit_send(struct mkit_session *session, struct bytes *to, uint8_t command,
              const struct mkit_field *fields, size_t count)
{
    size_t free_space = to->size - to->len;
    uint8_t *at = to->at ? to->at + to->len : NULL;
    size_t len = mkit_encode(MKIT_TO_MTA, command, fields, count, at, free_space);
    if (len - MKIT_HEADER_LEN > MKIT_MAX_SEND)
        return mkit_fail(session, MKIT_ETOOBIG, "a reply packet is larger than %d bytes",
                         MKIT_MAX_SEND);
    if (len > free_space) {
        if (!mkit_reserve(to, len))
            return mkit_fail(session, MKIT_ENOMEM, "no memory for %zu bytes of reply", len);
        (void)mkit_encode(MKIT_TO_MTA, command, fields, count, to->at + to->len, len);
    }
    to->len += len;
    return 0;
}

size_t mkit_output_waits(const struct mkit_session *session)
{
    return session->out.len - session->out_sent;
}

size_t mkit_session_output(const struct mkit_session *session, const uint8_t **data)
{
    *data = session->out.at ? session->out.at + session->out_sent : NULL;
    return mkit_output_waits(session);
}

void mkit_session_sent(struct mkit_session *session, size_t len)
{
    session->out_sent += len;
    if (session->out_sent >= session->out.len) {
        session->out_sent = 0;
        session->out.len = 0;
        session->out_step = 0;
    }
}

void mkit_session_on_flush(struct mkit_session *session,
                           int (*flush)(struct mkit_session *, void *), void *arg)
{
    session->flush = flush;
    session->flush_arg = arg;
}

bool mkit_session_may_progress(const struct mkit_session *session)
{
    return session->asked == MKIT_EOM && !session->ending && !session->replacing &&
           session->out.len == session->out_sent;
}

bool mkit_session_will_flush(const struct mkit_session *session, size_t len)
{
    const size_t headers = (len / MKIT_CHUNK + 1) * MKIT_HEADER_LEN;
    return session->flush && mkit_output_waits(session) + len + headers > session->limits.output;
}

int mkit_flush_over(struct mkit_session *session, size_t bound)
{
    if (!session->flush || mkit_output_waits(session) <= bound)
        return 0;
    int error = session->flush(session, session->flush_arg);
    if (!error)
        return 0;
    (void)mkit_fail(session, error, "%s", mkit_error_text(error));
    return mkit_end_with(session, error);
}
