/* A filter in C on the engine's own API: it notes a body's size in the message, and refuses what is
 * too big. Usage: filter SOCKET BYTES, for example: filter inet:8894@localhost 1000000
 * To build it: cc -o filter filter.c $(pkg-config --cflags --libs milterkit) */
#include <milterkit.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static size_t most; /* bytes of a body */

/* A connection's pointer is free for use: here it is a number, the bytes seen so far. */
static size_t seen(const struct mkit_session *session)
{
    return (uintptr_t)mkit_private(session);
}

static int on_mail(struct mkit_session *session, const struct mkit_event *event)
{
    (void)event;
    mkit_set_private(session, NULL);
    return MKIT_CONTINUE;
}

static int on_body(struct mkit_session *session, const struct mkit_event *event)
{
    const char *const text[] = {"it is too big"};
    const size_t bytes = seen(session) + event->of.body.len;
    mkit_set_private(session, (void *)(uintptr_t)bytes);
    if (bytes <= most)
        return MKIT_CONTINUE;
    const int error = mkit_setreply(session, "552", "5.3.4", text, 1);
    return error ? error : MKIT_REJECT;
}

static int on_eom(struct mkit_session *session, const struct mkit_event *event)
{
    char value[32];
    (void)event;
    (void)snprintf(value, sizeof value, "%zu bytes", seen(session));
    const int error = mkit_addheader(session, "X-Body", value);
    return error ? error : MKIT_CONTINUE;
}

int main(int argc, char **argv)
{
    const struct mkit_filter filter = {
        .name = "filter",
        .actions = MKIT_ADDHDRS,
        .on = {[MKIT_MAIL] = on_mail, [MKIT_BODY] = on_body, [MKIT_EOM] = on_eom},
    };
    if (argc != 3)
        return 2;
    most = strtoul(argv[2], NULL, 10);
    struct mkit_server *server = mkit_server_new(&filter, NULL);
    if (!server || mkit_server_listen(server, argv[1], NULL) || mkit_server_run(server, NULL, NULL))
        (void)fprintf(stderr, "filter: %s\n", server ? mkit_server_why(server) : "no memory");
    mkit_server_free(server);
    return 1; /* it serves until a signal ends it */
}
