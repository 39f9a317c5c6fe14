/* The filter of every_step.py in C, on milterkit.h. Usage: mkit_filter PATH every|noreply */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "milterkit.h"

/* What is kept for a connection. */
struct connection {
    char client[64];
    char helo[64];
    char sender[64];
    char queue_id[32];
    size_t octets;
    unsigned recipients;
};

static int verdict = MKIT_CONTINUE;

static void keep(char *to, size_t size, const char *text)
{
    (void)snprintf(to, size, "%s", text ? text : "");
}

static int on_negotiate(struct mkit_session *session, const struct mkit_event *event)
{
    (void)session;
    event->of.options->actions = 0;
    event->of.options->protocol =
        verdict == MKIT_NOREPLY ? event->of.options->offered_protocol & MKIT_NR_BITS : 0;
    return MKIT_CONTINUE;
}

static int on_connect(struct mkit_session *session, const struct mkit_event *event)
{
    struct connection *c = calloc(1, sizeof *c);
    if (!c)
        return MKIT_ENOMEM;
    keep(c->client, sizeof c->client, event->of.connect.host.at);
    mkit_set_private(session, c);
    return verdict;
}

static int on_helo(struct mkit_session *session, const struct mkit_event *event)
{
    struct connection *c = mkit_private(session);
    keep(c->helo, sizeof c->helo, event->of.text.at);
    return verdict;
}

static int on_mail(struct mkit_session *session, const struct mkit_event *event)
{
    struct connection *c = mkit_private(session);
    keep(c->sender, sizeof c->sender, event->of.args.all.at);
    c->recipients = 0;
    return verdict;
}

static int on_rcpt(struct mkit_session *session, const struct mkit_event *event)
{
    struct connection *c = mkit_private(session);
    c->octets += strlen(event->of.args.all.at);
    c->recipients++;
    return verdict;
}

static int on_header(struct mkit_session *session, const struct mkit_event *event)
{
    struct connection *c = mkit_private(session);
    c->octets += strlen(event->of.header.name.at) + strlen(event->of.header.value.at);
    return verdict;
}

static int on_body(struct mkit_session *session, const struct mkit_event *event)
{
    struct connection *c = mkit_private(session);
    c->octets += event->of.body.len;
    return verdict;
}

/* data, eoh, unknown: nothing to look at. */
static int on_other(struct mkit_session *session, const struct mkit_event *event)
{
    (void)session;
    (void)event;
    return verdict;
}

static int on_eom(struct mkit_session *session, const struct mkit_event *event)
{
    struct connection *c = mkit_private(session);
    (void)event;
    keep(c->queue_id, sizeof c->queue_id, mkit_getsymval(session, "i"));
    return MKIT_CONTINUE;
}

static int on_close(struct mkit_session *session, const struct mkit_event *event)
{
    (void)event;
    free(mkit_private(session));
    mkit_set_private(session, NULL);
    return MKIT_CONTINUE;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    if (strcmp(argv[2], "noreply") == 0)
        verdict = MKIT_NOREPLY;
    const struct mkit_filter filter = {
        .name = "bench",
        .on_failure = MKIT_FAIL_TEMPFAIL,
        .on = {[MKIT_NEGOTIATE] = on_negotiate,
               [MKIT_CONNECT] = on_connect,
               [MKIT_HELO] = on_helo,
               [MKIT_MAIL] = on_mail,
               [MKIT_RCPT] = on_rcpt,
               [MKIT_DATA] = on_other,
               [MKIT_HEADER] = on_header,
               [MKIT_EOH] = on_other,
               [MKIT_BODY] = on_body,
               [MKIT_EOM] = on_eom,
               [MKIT_UNKNOWN] = on_other,
               [MKIT_ABORT] = on_other,
               [MKIT_CLOSE] = on_close},
    };
    struct mkit_server *server = mkit_server_new(&filter, NULL);
    if (!server || mkit_server_listen(server, argv[1], NULL) ||
        mkit_server_run(server, NULL, NULL)) {
        (void)fprintf(stderr, "mkit_filter: %s\n", server ? mkit_server_why(server) : "no memory");
        return 1;
    }
    mkit_server_free(server);
    return 0;
}
