/* The engine's events as libmilter's callbacks: C strings, argv, sockaddr. */
#include <limits.h>
#include <stdlib.h>

#include "libmilter/smfi.h"

enum {
    FEW_ARGS = 32,        /* more than MTAs send at once */
    NO_VERDICT = INT_MAX, /* nothing is answered, as libmilter does with what it does not know */
};

static const struct smfiDesc *desc_of(const struct mkit_session *session)
{
    return mkit_filter_data(session);
}

/* The engine takes negative results for its own errors. */
static int verdict_of(sfsistat result)
{
    return result < 0 ? NO_VERDICT : result;
}

/* Callbacks may write to what they get: it is the session's copy, and nobody reads it again. */
static char *text_of(struct mkit_text text)
{
    return (char *)text.at;
}

static int on_connect(struct mkit_session *session, const struct mkit_event *event)
{
    struct mkit_event copy = *event;
    struct sockaddr *address = &copy.of.connect.address.sa;
    return verdict_of(
        desc_of(session)->xxfi_connect(context_of(session), text_of(event->of.connect.host),
                                       address->sa_family == AF_UNSPEC ? NULL : address));
}

static int on_helo(struct mkit_session *session, const struct mkit_event *event)
{
    return verdict_of(desc_of(session)->xxfi_helo(context_of(session), text_of(event->of.text)));
}

/* Calls an envelope's callback with the strings of the event as argv. */
static int with_args(struct mkit_session *session, const struct mkit_event *event,
                     sfsistat (*callback)(SMFICTX *, char **))
{
    char *few[FEW_ARGS + 1];
    char **argv = few;
    struct mkit_text rest = event->of.args.all;
    if (event->of.args.count > FEW_ARGS) {
        argv = malloc((event->of.args.count + 1) * sizeof *argv);
        if (!argv)
            return MKIT_ENOMEM;
    }
    size_t count = 0;
    do
        argv[count] = (char *)mkit_next_string(&rest);
    while (argv[count++]);
    const int verdict = verdict_of(callback(context_of(session), argv));
    if (argv != few)
        free(argv);
    return verdict;
}

static int on_mail(struct mkit_session *session, const struct mkit_event *event)
{
    return with_args(session, event, desc_of(session)->xxfi_envfrom);
}

static int on_rcpt(struct mkit_session *session, const struct mkit_event *event)
{
    return with_args(session, event, desc_of(session)->xxfi_envrcpt);
}

static int on_header(struct mkit_session *session, const struct mkit_event *event)
{
    return verdict_of(desc_of(session)->xxfi_header(
        context_of(session), text_of(event->of.header.name), text_of(event->of.header.value)));
}

static int on_body(struct mkit_session *session, const struct mkit_event *event)
{
    return verdict_of(desc_of(session)->xxfi_body(
        context_of(session), (unsigned char *)text_of(event->of.body), event->of.body.len));
}

static int on_unknown(struct mkit_session *session, const struct mkit_event *event)
{
    return verdict_of(desc_of(session)->xxfi_unknown(context_of(session), event->of.text.at));
}

/* Steps that come with nothing. */
#define PLAIN(name, member)                                                                        \
    static int name(struct mkit_session *session, const struct mkit_event *event)                  \
    {                                                                                              \
        (void)event;                                                                               \
        return verdict_of(desc_of(session)->member(context_of(session)));                          \
    }
PLAIN(on_data, xxfi_data)
PLAIN(on_eoh, xxfi_eoh)
PLAIN(on_eom, xxfi_eom)
PLAIN(on_abort, xxfi_abort)
PLAIN(on_close, xxfi_close)

static int on_negotiate(struct mkit_session *session, const struct mkit_event *event)
{
    struct mkit_options *options = event->of.options;
    unsigned long actions = options->actions;
    unsigned long protocol = options->protocol;
    unsigned long unused[2] = {0};
    const int verdict = verdict_of(desc_of(session)->xxfi_negotiate(
        context_of(session), options->offered_actions, options->offered_protocol, 0, 0, &actions,
        &protocol, &unused[0], &unused[1]));
    options->actions = (uint32_t)actions;
    options->protocol = (uint32_t)protocol;
    return verdict;
}

void mkit_smfi_callbacks(struct mkit_filter *filter, struct smfiDesc *desc)
{
    filter->data = desc;
    /* A program that was built for an older version has less in its struct. */
    if (desc->xxfi_version <= 2)
        desc->xxfi_unknown = NULL;
    if (desc->xxfi_version <= 3)
        desc->xxfi_data = NULL;
    if (desc->xxfi_version <= 4)
        desc->xxfi_negotiate = NULL;
#define USE(step, call, member) filter->on[step] = desc->member ? (call) : NULL
    USE(MKIT_CONNECT, on_connect, xxfi_connect);
    USE(MKIT_HELO, on_helo, xxfi_helo);
    USE(MKIT_MAIL, on_mail, xxfi_envfrom);
    USE(MKIT_RCPT, on_rcpt, xxfi_envrcpt);
    USE(MKIT_DATA, on_data, xxfi_data);
    USE(MKIT_HEADER, on_header, xxfi_header);
    USE(MKIT_EOH, on_eoh, xxfi_eoh);
    USE(MKIT_BODY, on_body, xxfi_body);
    USE(MKIT_EOM, on_eom, xxfi_eom);
    USE(MKIT_UNKNOWN, on_unknown, xxfi_unknown);
    USE(MKIT_ABORT, on_abort, xxfi_abort);
    USE(MKIT_CLOSE, on_close, xxfi_close);
    USE(MKIT_NEGOTIATE, on_negotiate, xxfi_negotiate);
#undef USE
}
