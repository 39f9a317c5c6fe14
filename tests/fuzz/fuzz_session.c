/* A session on the milter's side: any bytes in any cuts, with a filter that answers at random.
 * Invariants, by the model (model.h) and by decoding the output as an MTA does:
 * - the events are the ones that the protocol makes of these bytes, with texts that lie in memory;
 * - every command that awaits a reply gets exactly one final reply, the right one, others none
 *   (compatible: at most one, as libmilter);
 * - changes to the message go out at its end only, before that reply, each with its action
 *   negotiated; options that the MTA did not offer are not asked for;
 * - close comes once for each connection; a message has an eom or an abort, never both;
 * - memory is bounded by the limits of the filter, and all of it comes back. */
#include "fuzz.h"

#include <malloc.h>

#include "model.h"
#include "wire/protocol.h"

enum { FILTER_ROOM = 16 * 1024 }; /* what the filter adds to the output in one callback, at most */

/* ------------------------------------------------------------------------------------- memory */

/* The linker's names for allocations. */
void *__real_calloc(size_t count, size_t size);
void *__real_malloc(size_t size);
void *__real_realloc(void *at, size_t size);
char *__real_strdup(const char *text);
void __real_free(void *at);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_realloc(void *at, size_t size);
char *__wrap_strdup(const char *text);
void __wrap_free(void *at);

static size_t in_use;    /* bytes that are allocated */
static size_t allowance; /* of them, the bench's own */

static void *made(void *at)
{
    in_use += at ? malloc_usable_size(at) : 0;
    return at;
}

void *__wrap_calloc(size_t count, size_t size)
{
    return made(__real_calloc(count, size));
}

void *__wrap_malloc(size_t size)
{
    return made(__real_malloc(size));
}

void *__wrap_realloc(void *at, size_t size)
{
    in_use -= at ? malloc_usable_size(at) : 0;
    return made(__real_realloc(at, size));
}

char *__wrap_strdup(const char *text)
{
    return made(__real_strdup(text));
}

void __wrap_free(void *at)
{
    in_use -= at ? malloc_usable_size(at) : 0;
    __real_free(at);
}

/* -------------------------------------------------------------------------------------- bench */

/* One run: session, filter, model, and what came out. */
struct bench {
    struct dice dice;
    struct mkit_filter filter;
    struct mkit_session *session;
    struct model model;
    size_t fed_most; /* bytes given at once */

    uint8_t out[1 << 20]; /* output that is not yet a whole packet */
    size_t out_len;
    char finals[MODEL_FINALS]; /* final replies since the last check, by letter */
    size_t finals_count;
    bool at_end;    /* of a message, until its final reply */
    bool body_open; /* the latest change is a piece of a body */
    bool body_done; /* a body came and something else after it */
    size_t symlists;

    bool all_steps; /* the filter has every callback */
    bool message;   /* a step of a message was seen, and not yet its end */
    bool closed;    /* close was seen, and no step since */
    unsigned seen[MKIT_STEPS];
};

static struct bench bench;

/* ------------------------------------------------------------------------------------- output */

/* What a change to the message must have negotiated; 0: it is none. */
static uint32_t action_of(uint8_t reply)
{
    switch (reply) {
    case MKIT_R_ADDHEADER:
    case MKIT_R_INSHEADER: return MKIT_ADDHDRS;
    case MKIT_R_CHGHEADER: return MKIT_CHGHDRS;
    case MKIT_R_REPLBODY: return MKIT_CHGBODY;
    case MKIT_R_ADDRCPT: return MKIT_ADDRCPT;
    case MKIT_R_ADDRCPT_PAR: return MKIT_ADDRCPT_PAR;
    case MKIT_R_DELRCPT: return MKIT_DELRCPT;
    case MKIT_R_CHGFROM: return MKIT_CHGFROM;
    case MKIT_R_QUARANTINE: return MKIT_QUARANTINE;
    default: return 0;
    }
}

/* A header's value as an MTA puts it into the message must not begin another header. */
static void check_value(const char *value)
{
    for (const char *at = value; *at; at++) {
        CHECK(*at != '\r');
        CHECK(*at != '\n' || !strchr("\n", at[1 + strspn(at + 1, " \t")]));
    }
}

static void check_change(const struct mkit_packet *packet, const struct mkit_field *fields,
                         uint32_t action)
{
    const bool body = packet->command == MKIT_R_REPLBODY;
    CHECK(bench.model.actions & action);
    CHECK(bench.at_end);
    if (!bench.model.strict)
        return;
    CHECK(!(body && bench.body_done)); /* its pieces follow each other */
    bench.body_done = bench.body_done || (bench.body_open && !body);
    bench.body_open = body;
    if (action == MKIT_ADDHDRS || action == MKIT_CHGHDRS) {
        const struct mkit_field *name = &fields[packet->command != MKIT_R_ADDHEADER];
        CHECK(name[0].text.len && !strpbrk(name[0].text.at, "\r\n: "));
        check_value(name[1].text.at);
    } else if (!body) {
        CHECK(!strpbrk(fields[0].text.at, "\r\n"));
    }
}

static void check_negotiation(const struct mkit_field *fields, int count)
{
    const struct model *model = &bench.model;
    const uint32_t offered = model->options.offered_protocol & ~model->emulated;
    CHECK(fields[0].number == model->version && fields[0].number >= 2 && fields[0].number <= 6);
    CHECK(!(fields[1].number & ~(model->options.offered_actions & 0x1ff)));
    CHECK(!(fields[2].number & ~offered));
    CHECK((size_t)count == 3 + 2 * bench.symlists);
    for (int i = 5; i < count; i += 2)
        CHECK(fields[i].number > fields[i - 2].number);
}

/* One packet for the MTA. */
static void take_reply(const struct mkit_packet *packet)
{
    struct mkit_field fields[MKIT_MAX_FIELDS];
    const char *why = "";
    const int count = mkit_decode(MKIT_TO_MTA, packet, fields, &why);
    CHECK(count >= 0 && packet->len <= 65535);
    const uint32_t action = action_of(packet->command);
    if (action) {
        check_change(packet, fields, action);
    } else if (packet->command == MKIT_R_PROGRESS) {
        CHECK(!bench.model.strict || bench.at_end);
        CHECK(!bench.model.strict || !bench.body_open);
    } else {
        CHECK(strchr("acdrstyO", packet->command));
        CHECK(bench.finals_count < MODEL_FINALS);
        bench.finals[bench.finals_count++] = (char)packet->command;
        bench.at_end = bench.body_open = bench.body_done = false;
        if (packet->command == MKIT_R_OPTNEG)
            check_negotiation(fields, count);
    }
}

/* Takes up to `most` bytes of output, and reads what is whole. */
static void take_output(size_t most)
{
    const uint8_t *data;
    size_t len = mkit_session_output(bench.session, &data);
    len = len < most ? len : most;
    CHECK(len <= sizeof bench.out - bench.out_len);
    if (len)
        memcpy(bench.out + bench.out_len, data, len);
    bench.out_len += len;
    mkit_session_sent(bench.session, len);
    size_t done = 0;
    struct mkit_packet packet;
    ssize_t used;
    while ((used = mkit_frame_read(bench.out + done, bench.out_len - done, 65535, &packet, NULL))) {
        CHECK(used > 0);
        uint8_t *alone = exact_copy(packet.data, packet.len);
        packet.data = alone;
        take_reply(&packet);
        free(alone);
        done += (size_t)used;
    }
    bench.out_len -= done;
    memmove(bench.out, bench.out + done, bench.out_len);
}

/* Compares the final replies with those that the model expects. */
static void check_finals(void)
{
    take_output(SIZE_MAX);
    CHECK(bench.out_len == 0);
    CHECK(bench.finals_count == bench.model.finals_count);
    CHECK(memcmp(bench.finals, bench.model.finals, bench.finals_count) == 0);
    bench.finals_count = bench.model.finals_count = 0;
}

/* What the session may hold: a packet, what was kept of the input, macros, a reply's text, lists,
 * and what one callback wrote; buffers double. */
static void check_memory(void)
{
    const struct mkit_limits *limits = &bench.model.limits;
    const size_t bound = 16 * 1024 + 2 * (limits->packet + bench.fed_most) + 7 * limits->macros +
                         33 * 1000 + 4 * FILTER_ROOM + 2 * limits->output;
    CHECK(in_use - allowance <= bound);
}

static int flush(struct mkit_session *session, void *arg)
{
    (void)arg;
    CHECK(session == bench.session);
    if (roll(&bench.dice, 16) == 1) {
        model_end(&bench.model, MKIT_ECLOSED);
        return MKIT_ECLOSED;
    }
    take_output(roll(&bench.dice, 4) == 1 ? roll(&bench.dice, 100) : SIZE_MAX);
    return 0;
}

/* ------------------------------------------------------------------------------------- filter */

static int present(struct mkit_session *session, const struct mkit_event *event)
{
    (void)session;
    (void)event;
    return MKIT_CONTINUE;
}

/* Any text, now and then one that cannot be sent; NULL sometimes. */
static const char *any_text(void)
{
    static const char *const texts[] = {"x",    "<a@b>",      "X-Name",  "a b",       "",
                                        NULL,   "a\n b",      "a\r\n b", "v\nBcc: x", "v\r",
                                        "\xe9", "a\r\n\tb\n", "%",       "%%",        "\r\n"};
    return texts[roll(&bench.dice, sizeof texts / sizeof *texts)];
}

static void any_reply(void)
{
    static const char *const rcodes[] = {"550", "451", "421", "250", "55", NULL};
    static const char *const xcodes[] = {NULL, "5.7.1", "4.7.1", "2.0.0", "5.7"};
    const char *lines[33];
    const size_t count = roll(&bench.dice, 8) == 1 ? roll(&bench.dice, 34) : roll(&bench.dice, 3);
    for (size_t i = 0; i < 33; i++)
        lines[i] = i < count ? any_text() : NULL;
    const char *rcode = rcodes[roll(&bench.dice, 6)];
    if (mkit_setreply(bench.session, rcode, xcodes[roll(&bench.dice, 5)], lines, count) == 0)
        bench.model.reply = *rcode;
}

/* Any call; whether it may succeed now is the session's business, and checked at its output. */
static void any_call(void)
{
    static const char large[4000];
    struct mkit_session *session = bench.session;
    int error = 0;
    switch (roll(&bench.dice, 13)) {
    case 0: any_reply(); break;
    case 1: error = mkit_addheader(session, any_text(), any_text()); break;
    case 2:
        error = mkit_insheader(session, (int32_t)roll(&bench.dice, 4) - 1, any_text(), any_text());
        break;
    case 3:
        error = mkit_chgheader(session, any_text(), (int32_t)roll(&bench.dice, 4) - 1, any_text());
        break;
    case 4: error = mkit_addrcpt(session, any_text()); break;
    case 5: error = mkit_addrcpt_par(session, any_text(), any_text()); break;
    case 6: error = mkit_delrcpt(session, any_text()); break;
    case 7: error = mkit_chgfrom(session, any_text(), any_text()); break;
    case 8: error = mkit_quarantine(session, any_text()); break;
    case 9: error = mkit_replacebody(session, large, roll(&bench.dice, sizeof large)); break;
    case 10: error = mkit_progress(session); break;
    case 11:
        error = mkit_setsymlist(session, (int)roll(&bench.dice, 9) - 1, any_text());
        bench.symlists += error == 0;
        break;
    default: {
        static const char *const names[] = {"i", "{i}", "j", "{client_addr}", "", "{", "{}"};
        const char *value = mkit_getsymval(session, names[roll(&bench.dice, 7)]);
        CHECK(!value || strlen(value) <= bench.model.limits.macros);
    }
    }
    CHECK(error <= 0 && error >= MKIT_ETHREAD && (!error || *mkit_session_why(session)));
    (void)mkit_session_will_flush(session, roll(&bench.dice, 4));
}

static int any_verdict(void)
{
    static const int verdicts[] = {MKIT_CONTINUE,
                                   MKIT_REJECT,
                                   MKIT_DISCARD,
                                   MKIT_ACCEPT,
                                   MKIT_TEMPFAIL,
                                   MKIT_SKIP,
                                   MKIT_NOREPLY,
                                   MKIT_ALL_OPTS,
                                   -1,
                                   99,
                                   5,
                                   MKIT_CONTINUE};
    return roll(&bench.dice, 2) ? verdicts[roll(&bench.dice, 12)] : MKIT_CONTINUE;
}

/* Reads every byte of a text; one that was a string has its NUL. */
static void touch(struct mkit_text text, bool string)
{
    CHECK(text.len == 0 || text.at);
    if (string)
        CHECK(strlen(text.at) == text.len);
    uint8_t *copy = exact_copy(text.at, text.len);
    free(copy);
}

static void check_event(const struct mkit_event *event)
{
    struct mkit_text rest;
    size_t count = 0;
    switch (event->step) {
    case MKIT_CONNECT: {
        static const sa_family_t families[] = {AF_UNSPEC, AF_INET, AF_INET6, AF_UNIX};
        touch(event->of.connect.host, true);
        while (event->of.connect.address.sa.sa_family != families[count])
            CHECK(++count < 4);
        break;
    }
    case MKIT_HELO:
    case MKIT_UNKNOWN: touch(event->of.text, true); break;
    case MKIT_MAIL:
    case MKIT_RCPT:
        touch(event->of.args.all, false);
        for (rest = event->of.args.all; mkit_next_string(&rest);)
            count++;
        CHECK(count && count == event->of.args.count && rest.len == 0);
        break;
    case MKIT_HEADER:
        touch(event->of.header.name, true);
        touch(event->of.header.value, true);
        CHECK(event->of.header.name.len);
        break;
    case MKIT_BODY:
        touch(event->of.body, false);
        CHECK(event->of.body.len);
        break;
    case MKIT_NEGOTIATE:
        CHECK(memcmp(event->of.options, &bench.model.options, sizeof bench.model.options) == 0);
        break;
    default: break;
    }
}

/* What holds for the order of events whatever the model says, as far as the filter can see it. */
static void check_order(enum mkit_step step)
{
    const bool again = step == MKIT_CLOSE && bench.closed;
    bench.seen[step]++;
    bench.closed = step == MKIT_CLOSE || (bench.closed && step == MKIT_ABORT);
    /* A broken packet may have opened a connection or a message unseen (sheet 9.3, 59). */
    if (!bench.all_steps || bench.model.error)
        return;
    CHECK(!again);
    if (step == MKIT_ABORT)
        CHECK(bench.message);
    if (step == MKIT_UNKNOWN) /* may come inside a message */
        return;
    bench.message = step >= MKIT_MAIL && step <= MKIT_BODY && bench.model.state != 'E';
}

/* The filter at one event. */
static void answer_event(struct mkit_event *event)
{
    const enum mkit_step step = event->step;
    check_event(event);
    check_order(step);
    const bool inner = step == MKIT_BODY && bench.model.state == 'E';
    bench.at_end = step == MKIT_EOM || inner;
    for (uint32_t calls = roll(&bench.dice, 4); calls; calls--)
        any_call();
    if (step == MKIT_NEGOTIATE && roll(&bench.dice, 2)) {
        const uint32_t any = roll(&bench.dice, 256) << 16 | roll(&bench.dice, 256) << 8;
        event->of.options->protocol = (any | roll(&bench.dice, 256)) & MKIT_ALL_PROTOCOL;
        if (roll(&bench.dice, 8)) /* mostly what can succeed */
            event->of.options->protocol &= event->of.options->offered_protocol;
        event->of.options->actions &= roll(&bench.dice, 256) | 0x100;
    }
    if (roll(&bench.dice, 64) == 1) {
        mkit_session_end(bench.session);
        model_end(&bench.model, 0);
    }
    struct mkit_event ignored;
    CHECK(mkit_session_next(bench.session, &ignored) == MKIT_EBUSY);

    const int verdict =
        step == MKIT_NEGOTIATE && roll(&bench.dice, 8) ? MKIT_CONTINUE : any_verdict();
    const bool ending = bench.model.ending;
    const bool awaits = step < MKIT_ABORT && !ending && model_awaits(&bench.model, step);
    const struct mkit_options wish =
        step == MKIT_NEGOTIATE ? *event->of.options : (struct mkit_options){0};
    CHECK(bench.finals_count == 0);
    const int error = mkit_session_answer(bench.session, verdict);
    const int expected = model_answer(&bench.model, verdict, &wish);
    if (expected)
        model_end(&bench.model, expected);
    take_output(SIZE_MAX);
    if (awaits && !inner && bench.model.strict)
        CHECK(bench.finals_count == 1);
    else
        CHECK(bench.finals_count <= 1);
    CHECK(expected == 0 || error == expected);
    check_finals();
}

/* -------------------------------------------------------------------------------------- a run */

static void make_filter(void)
{
    static const size_t packets[] = {0, 64, 1000, 70000};
    static const size_t macros[] = {0, 16, 100};
    static const size_t few[] = {0, 1, 3};
    static const size_t some[] = {0, 10, 100};
    static const size_t outputs[] = {0, 1, 64};
    struct dice *dice = &bench.dice;
    bench.filter = (struct mkit_filter){
        .actions = roll(dice, 2) ? roll(dice, 256) | 0x100 : 0x1ff,
        .degree = roll(dice, 2) ? MKIT_COMPATIBLE : MKIT_STRICT,
        .on_failure = (enum mkit_on_failure)roll(dice, 4),
        .limits =
            {
                .packet = packets[roll(dice, 4)],
                .macros = macros[roll(dice, 3)],
                .recipients = few[roll(dice, 3)],
                .header_bytes = some[roll(dice, 3)],
                .output = outputs[roll(dice, 3)],
            },
    };
    bench.all_steps = roll(dice, 4) != 1;
    for (unsigned step = 0; step < MKIT_STEPS; step++)
        if (bench.all_steps || roll(dice, 2))
            bench.filter.on[step] = present;
    if (roll(dice, 2))
        bench.filter.on[MKIT_NEGOTIATE] = NULL;
}

/* Serves all events that there are. Returns whether the session goes on. */
static bool serve(void)
{
    struct mkit_event event;
    for (;;) {
        enum mkit_step step = MKIT_STEPS;
        const int expected = model_next(&bench.model, &step);
        int result;
        while ((result = mkit_session_next(bench.session, &event)) == MKIT_NEED_OUTPUT) {
            const uint8_t *data;
            CHECK(mkit_session_output(bench.session, &data) >
                  (bench.filter.limits.output ? bench.filter.limits.output : 1 << 18));
            take_output(1 + roll(&bench.dice, 100));
        }
        CHECK(result == expected);
        CHECK(result != MKIT_EVENT || event.step == step);
        check_memory();
        check_finals();
        CHECK(mkit_session_actions(bench.session) == bench.model.actions);
        CHECK(mkit_session_protocol(bench.session) == bench.model.protocol);
        if (result != MKIT_EVENT)
            return result == MKIT_NEED_INPUT;
        answer_event(&event);
        check_memory();
    }
}

/* Puts what it has room for into the session's own memory. Returns how much. */
static size_t fill(const uint8_t *data, size_t len)
{
    uint8_t *rest;
    const size_t room = mkit_session_room(bench.session, &rest);
    const size_t filled = room < len ? room : len;
    if (filled)
        memcpy(rest, data, filled);
    mkit_session_filled(bench.session, filled);
    return filled;
}

/* Gives the session a part of the stream, of which it may keep nothing but by copying it. */
static bool feed(const uint8_t *data, size_t len)
{
    if (roll(&bench.dice, 4) == 1) {
        const size_t filled = fill(data, len);
        bench.model.arrived += filled;
        data += filled;
        len -= filled;
    }
    uint8_t *part = exact_copy(data, len);
    const size_t size = malloc_usable_size(part);
    allowance += size;
    bench.fed_most += len; /* what is kept adds up until it is served */
    CHECK(mkit_session_feed(bench.session, part, len) == 0);
    bench.model.arrived += len;
    const bool keep = roll(&bench.dice, 8) == 1;
    if (keep)
        CHECK(mkit_session_keep_input(bench.session) == 0);
    bool goes_on = true;
    if (!keep || roll(&bench.dice, 2)) {
        goes_on = serve();
        bench.fed_most = 0;
    }
    allowance -= size;
    free(part);
    if (roll(&bench.dice, 4) == 1)
        mkit_session_trim(bench.session);
    return goes_on;
}

static void run_stream(const uint8_t *data, size_t size)
{
    /* 0: all at once */
    const uint32_t cut = roll(&bench.dice, 3);
    bool goes_on = true;
    while (size && goes_on) {
        size_t part = cut == 0 ? size : 1 + roll(&bench.dice, cut == 1 ? 3 : 200);
        part = part < size ? part : size;
        goes_on = feed(data, part);
        data += part;
        size -= part;
    }
    if (roll(&bench.dice, 4) == 1) {
        mkit_session_end(bench.session);
        model_end(&bench.model, 0);
    } else {
        mkit_session_eof(bench.session);
        bench.model.eof = true;
    }
    CHECK(!serve());
    CHECK(!mkit_session_in_message(bench.session));
    CHECK(!serve()); /* it says the same again */
    if (bench.filter.on[MKIT_CLOSE])
        CHECK(bench.closed && bench.seen[MKIT_CLOSE]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(&bench, 0, offsetof(struct bench, out));
    memset((char *)&bench + offsetof(struct bench, out_len), 0,
           sizeof bench - offsetof(struct bench, out_len));
    bench.dice = take_dice(&data, &size);
    make_filter();
    in_use = allowance = 0;
    bench.session = mkit_session_new(&bench.filter);
    model_init(&bench.model, &bench.filter, data);
    if (roll(&bench.dice, 2))
        mkit_session_on_flush(bench.session, flush, NULL);
    run_stream(data, size);
    mkit_session_free(bench.session);
    CHECK(in_use == 0);
    return 0;
}
