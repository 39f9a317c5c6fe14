/* A filter of the soak test on milterkit.h. What it does is said in plan.py. Usage: filter SPEC */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "milterkit.h"

enum { BIG_BLOCK = 64 * 1024, BIG_BLOCKS = 800 };

static const uint32_t no_reply_without = MKIT_QUARANTINE;
static char block[BIG_BLOCK];

/* What is kept for a connection. */
struct kept {
    char step[16];
    char word[16];
    unsigned us; /* of a wait */
    size_t octets;
    uint32_t low; /* the two halves of the sum */
    uint32_t high;
};

static void begin(struct kept *kept)
{
    kept->octets = 0;
    kept->low = 1;
    kept->high = 0;
}

static void see(struct kept *kept, struct mkit_text text)
{
    enum { MODULUS = 65521, AT_ONCE = 5552 }; /* so many cannot overflow */
    kept->octets += text.len;
    for (size_t done = 0; done < text.len;) {
        const size_t end = text.len - done < AT_ONCE ? text.len : done + AT_ONCE;
        for (; done < end; done++) {
            kept->low += (uint8_t)text.at[done];
            kept->high += kept->low;
        }
        kept->low %= MODULUS;
        kept->high %= MODULUS;
    }
}

static void read_plan(struct kept *kept, struct mkit_text text)
{
    static const char mark[] = "soak-";
    const char *found = memmem(text.at, text.len, mark, strlen(mark));
    kept->step[0] = kept->word[0] = '\0';
    kept->us = 0;
    if (!found ||
        sscanf(found + strlen(mark), "%15[a-z]-%15[a-z]%6u", kept->step, kept->word, &kept->us) < 2)
        kept->step[0] = '\0';
}

/* --------------------------------------------------------------------------------------- words */

static int reply(struct mkit_session *session)
{
    static const char *const lines[] = {"as planned", "really"};
    const int error = mkit_setreply(session, "554", "5.7.1", lines, 2);
    return error ? error : MKIT_REJECT;
}

static int fail(struct mkit_session *session)
{
    (void)session;
    return MKIT_EINVAL;
}

static int wait_a_little(struct mkit_session *session)
{
    const struct kept *kept = mkit_private(session);
    const struct timespec time = {.tv_nsec = (long)kept->us * 1000};
    (void)nanosleep(&time, NULL);
    return MKIT_CONTINUE;
}

static int progress(struct mkit_session *session)
{
    int error = 0;
    for (int i = 0; i < 3 && !error; i++)
        error = mkit_progress(session);
    return error;
}

static int change(struct mkit_session *session)
{
    int error = mkit_addheader(session, "X-Folded", "one\n two");
    error = error ? error : mkit_insheader(session, 1, "X-First", "yes");
    error = error ? error : mkit_chgheader(session, "Subject", 1, "changed");
    error = error ? error : mkit_chgfrom(session, "<changed@soak.test>", NULL);
    error = error ? error : mkit_addrcpt(session, "<added@soak.test>");
    error = error ? error : mkit_delrcpt(session, "<rcpt@soak.test>");
    error = error ? error : mkit_replacebody(session, "replaced\r\n", 10);
    return error ? error : mkit_quarantine(session, "as planned");
}

static int replace_by_much(struct mkit_session *session)
{
    int error = 0;
    for (int i = 0; i < BIG_BLOCKS && !error; i++)
        error = mkit_replacebody(session, block, sizeof block);
    return error;
}

static const struct {
    const char *word;
    int verdict;
    int (*run)(struct mkit_session *session);
} words[] = {
    {"accept", MKIT_ACCEPT, NULL},
    {"reject", MKIT_REJECT, NULL},
    {"tempfail", MKIT_TEMPFAIL, NULL},
    {"discard", MKIT_DISCARD, NULL},
    {"skip", MKIT_SKIP, NULL},
    {"reply", 0, reply},
    {"raise", 0, fail},
    {"wait", 0, wait_a_little},
    {"progress", 0, progress},
    {"changes", 0, change},
    {"big", 0, replace_by_much},
};

/* Does what the plan says for a step. */
static int act(struct mkit_session *session, enum mkit_step step, const char *name)
{
    struct kept *kept = mkit_private(session);
    if (step == MKIT_EOM) {
        char told[64];
        (void)snprintf(told, sizeof told, "%zu %04x%04x", kept->octets, (unsigned)kept->high,
                       (unsigned)kept->low);
        const int error = mkit_addheader(session, "X-Soak", told);
        if (error)
            return error;
    }
    if (strcmp(kept->step, name) != 0)
        return MKIT_CONTINUE;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(kept->word, words[i].word) == 0)
            return words[i].run ? words[i].run(session) : words[i].verdict;
    return MKIT_EINVAL;
}

/* --------------------------------------------------------------------------------------- steps */

static int on_negotiate(struct mkit_session *session, const struct mkit_event *event)
{
    struct mkit_options *options = event->of.options;
    (void)session;
    options->protocol = options->offered_protocol & MKIT_SKIPPING;
    if (!(options->offered_actions & no_reply_without))
        options->protocol |= options->offered_protocol & MKIT_NR_BITS;
    return MKIT_CONTINUE;
}

static struct kept *kept_of(struct mkit_session *session)
{
    struct kept *kept = mkit_private(session);
    if (!kept) {
        kept = calloc(1, sizeof *kept);
        mkit_set_private(session, kept);
    }
    return kept;
}

static int on_step(struct mkit_session *session, const struct mkit_event *event)
{
    static const char *const names[MKIT_STEPS] = {"connect", "helo",    "mail",  "rcpt",
                                                  "data",    "header",  "eoh",   "body",
                                                  "eom",     "unknown", "abort", "close"};
    struct kept *kept = kept_of(session);
    if (!kept)
        return MKIT_ENOMEM;
    switch (event->step) {
    case MKIT_CONNECT: read_plan(kept, event->of.connect.host); break;
    case MKIT_HELO: read_plan(kept, event->of.text); break;
    case MKIT_MAIL:
        begin(kept);
        read_plan(kept, event->of.args.all);
        break;
    case MKIT_HEADER:
        see(kept, event->of.header.name);
        see(kept, event->of.header.value);
        break;
    case MKIT_BODY: see(kept, event->of.body); break;
    case MKIT_ABORT: begin(kept); break;
    case MKIT_CLOSE:
        free(kept);
        mkit_set_private(session, NULL);
        return MKIT_CONTINUE;
    default: break;
    }
    return act(session, event->step, names[event->step]);
}

static int poke_fd;

static void on_signal(int number)
{
    (void)number;
    (void)!write(poke_fd, "", 1);
}

static int stop(void *server)
{
    mkit_server_stop(server);
    return 0;
}

int main(int argc, char **argv)
{
    struct mkit_filter filter = {.name = "filter", .on_failure = MKIT_FAIL_TEMPFAIL};
    if (argc != 2)
        return 2;
    for (int step = 0; step < MKIT_NEGOTIATE; step++)
        filter.on[step] = on_step;
    filter.on[MKIT_NEGOTIATE] = on_negotiate;
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (char)i;
    struct mkit_server *server = mkit_server_new(&filter, NULL);
    if (!server || mkit_server_listen(server, argv[1], NULL)) {
        (void)fprintf(stderr, "filter: %s\n", server ? mkit_server_why(server) : "no memory");
        return 1;
    }
    poke_fd = mkit_server_poke_fd(server);
    (void)signal(SIGTERM, on_signal);
    const int error = mkit_server_run(server, stop, server);
    mkit_server_free(server);
    return error != 0;
}
