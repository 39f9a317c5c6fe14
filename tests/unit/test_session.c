/* What vectors cannot say about sessions: every verdict at every step, every end in every state,
 * calls out of order, early writes, input that is kept, lifetimes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"
#include "session/session.h"
#include "wire/bytes.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static struct rig rig;

static const enum mkit_degree degrees[] = {MKIT_STRICT, MKIT_COMPATIBLE};

/* A callback that asks for all actions and the protocol options in rig->data. */
static int ask_for(struct rig *bench, const struct mkit_event *event)
{
    if (event->step == MKIT_NEGOTIATE)
        event->of.options->protocol = *(const uint32_t *)bench->data;
    return MKIT_CONTINUE;
}

/* ------------------------------------------------------------------ every verdict at every step */

enum mode { AWAITED, NEGOTIATED, EMULATED, MODES };

static const struct step_case {
    enum mkit_step step;
    const char *before; /* after negotiation */
    const char *command;
    const char *next; /* one that may follow */
    bool in_message;
    bool one_only;
} step_cases[] = {
    {MKIT_CONNECT, "", "C", "M", false, false},
    {MKIT_HELO, "C", "H", "M", false, false},
    {MKIT_MAIL, "C H", "M", "R", true, false},
    {MKIT_RCPT, "C H M", "R", "T", true, true},
    {MKIT_DATA, "C H M R", "T", "L", true, false},
    {MKIT_HEADER, "C H M R T", "L", "N", true, false},
    {MKIT_EOH, "C H M R T L", "N", "B", true, false},
    {MKIT_BODY, "C H M R T L N", "B", "E", true, false},
    {MKIT_EOM, "C H M R T L N B", "E", "M", false, false},
    {MKIT_UNKNOWN, "C H M", "U", "R", true, true},
};

/* What goes out for a verdict, [strict, compatible], and which verdict it counts as. */
static const struct verdict_case {
    int verdict;
    const char *awaited[2];
    const char *emulated[2];
    int counts_as[2];
    int answered; /* what mkit_session_answer returns */
} verdict_cases[] = {
    {MKIT_CONTINUE, {"c", "c"}, {"c", "c"}, {MKIT_CONTINUE, MKIT_CONTINUE}, 0},
    {MKIT_REJECT, {"r", "r"}, {"r", "c"}, {MKIT_REJECT, MKIT_REJECT}, 0},
    {MKIT_DISCARD, {"d", "d"}, {"d", "c"}, {MKIT_DISCARD, MKIT_DISCARD}, 0},
    {MKIT_ACCEPT, {"a", "a"}, {"a", "c"}, {MKIT_ACCEPT, MKIT_ACCEPT}, 0},
    {MKIT_TEMPFAIL, {"t", "t"}, {"t", "c"}, {MKIT_TEMPFAIL, MKIT_TEMPFAIL}, 0},
    {MKIT_NOREPLY, {"c", ""}, {"c", "c"}, {MKIT_CONTINUE, MKIT_CONTINUE}, 0},
    {MKIT_SKIP, {"s", "s"}, {"c", "c"}, {MKIT_CONTINUE, MKIT_CONTINUE}, 0},
    /* No verdicts of a message: on_failure, which is TEMPFAIL, or nothing at all. */
    {5, {"t", ""}, {"t", ""}, {MKIT_TEMPFAIL, MKIT_CONTINUE}, MKIT_EINVAL},
    {6, {"t", ""}, {"t", ""}, {MKIT_TEMPFAIL, MKIT_CONTINUE}, MKIT_EINVAL},
    {9, {"t", ""}, {"t", ""}, {MKIT_TEMPFAIL, MKIT_CONTINUE}, MKIT_EINVAL},
    {MKIT_ALL_OPTS, {"t", ""}, {"t", ""}, {MKIT_TEMPFAIL, MKIT_CONTINUE}, MKIT_EINVAL},
    {99, {"t", ""}, {"t", ""}, {MKIT_TEMPFAIL, MKIT_CONTINUE}, MKIT_EINVAL},
    /* The callback failed. */
    {MKIT_EINVAL, {"t", "t"}, {"t", "c"}, {MKIT_TEMPFAIL, MKIT_TEMPFAIL}, 0},
};

struct verdict_run {
    const struct step_case *step;
    const struct verdict_case *verdict;
    uint32_t protocol;
};

static int answer_verdict(struct rig *bench, const struct mkit_event *event)
{
    const struct verdict_run *run = bench->data;
    if (event->step == MKIT_NEGOTIATE)
        event->of.options->protocol = run->protocol;
    return event->step == run->step->step ? run->verdict->verdict : MKIT_CONTINUE;
}

/* Whether the filter still sees the next command after the verdict. */
static bool next_is_seen(const struct step_case *step, int verdict, enum mkit_degree degree,
                         enum mode mode)
{
    const bool final = verdict != MKIT_CONTINUE;
    const bool all = verdict == MKIT_ACCEPT;
    if (step->step == MKIT_EOM)
        return true;
    if (degree == MKIT_STRICT && mode == NEGOTIATED) /* it must wait, then the filter is done */
        return !final || (step->step == MKIT_UNKNOWN && !all);
    return !step->in_message || !final || (step->one_only && !all);
}

static void try_verdict(const struct verdict_run *run, enum mkit_degree degree, enum mode mode)
{
    const struct step_case *step = run->step;
    const struct verdict_case *verdict = run->verdict;
    rig_open(&rig, degree);
    rig.filter.on[MKIT_NEGOTIATE] = rig.filter.on[MKIT_CLOSE];
    rig.answer = answer_verdict;
    rig.data = (void *)(uintptr_t)run;
    rig_start(&rig);
    rig_in(&rig, mode == EMULATED ? "13:O\\0\\0\\0\\x06\\0\\0\\x01\\xff\\0\\x10\\x0f\\x7f" : "O");
    rig_in(&rig, step->before);
    rig.out_len = 0;
    rig_in(&rig, step->command);
    assert_int_equal(rig.answered, verdict->answered);

    const bool awaited = mode == AWAITED || step->step == MKIT_EOM;
    const char *want = awaited            ? verdict->awaited[degree]
                       : mode == EMULATED ? verdict->emulated[degree]
                                          : "";
    const bool content =
        step->step == MKIT_HEADER || step->step == MKIT_EOH || step->step == MKIT_BODY;
    if (awaited && !content && verdict->verdict == MKIT_SKIP && degree == MKIT_STRICT)
        want = "c"; /* there is nothing to skip */
    rig_expect_out(&rig, want);

    rig.events_len = 0;
    rig_in(&rig, step->next);
    const bool seen = rig.events_len > 0;
    assert_int_equal(seen, next_is_seen(step, verdict->counts_as[degree], degree, mode));
    rig_close(&rig);
}

static void every_verdict_at_every_step(void **state)
{
    (void)state;
    static const uint32_t protocols[MODES] = {MKIT_SKIPPING, MKIT_SKIPPING | MKIT_NR_BITS,
                                              MKIT_SKIPPING | MKIT_NR_BITS};
    for (size_t d = 0; d < COUNT(degrees); d++)
        for (int mode = 0; mode < MODES; mode++)
            for (size_t s = 0; s < COUNT(step_cases); s++)
                for (size_t v = 0; v < COUNT(verdict_cases); v++) {
                    struct verdict_run run = {&step_cases[s], &verdict_cases[v], protocols[mode]};
                    try_verdict(&run, degrees[d], (enum mode)mode);
                }
}

/* --------------------------------------------------------------------- every end in every state */

static void every_end_in_every_state(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        bool in_message;
        bool closed; /* close was called already */
    } places[] = {
        {"", false, false},
        {"O", false, false},
        {"O C", false, false},
        {"G", false, false},
        {"G M", true, false},
        {"G M R", true, false},
        {"G M R T", true, false},
        {"G M R T L", true, false},
        {"G M R T L N", true, false},
        {"G M R T L N B", true, false},
        {"G M R T L N B E", false, false},
        {"G M A", false, false},
        {"G U", false, false},
        {"G M U", true, false},
        {"G M R U U", true, false},
        {"G K", false, true},
        {"G M K", false, true},
        {"G K C", false, false},
    };
    static const char *const ways[] = {"1:A", "1:K", "1:Q", "1:Z", "hex:00000000", "eof", "end"};
    for (size_t d = 0; d < COUNT(degrees); d++)
        for (size_t p = 0; p < COUNT(places); p++)
            for (size_t w = 0; w < COUNT(ways); w++) {
                const char *way = ways[w];
                rig_open(&rig, degrees[d]);
                rig_start(&rig);
                rig_in(&rig, places[p].path);
                assert_int_equal(mkit_session_in_message(rig.session), places[p].in_message);
                rig.events_len = 0;
                if (strcmp(way, "eof") == 0) {
                    mkit_session_eof(rig.session);
                    rig_run(&rig);
                } else if (strcmp(way, "end") == 0) {
                    mkit_session_end(rig.session);
                    rig_run(&rig);
                } else {
                    rig_in(&rig, way);
                }
                const bool early = *places[p].path == '\0' && way[2] == 'K'; /* nothing to end */
                const bool close = way[2] != 'A' && !places[p].closed && !early;
                char want[20];
                snprintf(want, sizeof want, "%s%s", places[p].in_message ? "abort " : "",
                         close ? "close" : "");
                rig_expect_events(&rig, want);
                assert_int_equal(rig.result, way[2] == 'A' || way[2] == 'K'   ? (int)MKIT_NEED_INPUT
                                             : way[2] == 'Z' || way[0] == 'h' ? MKIT_EPROTOCOL
                                                                              : (int)MKIT_CLOSED);
                rig_close(&rig);
            }
}

/* An end during a callback: what is owed still comes, once. */
static int end_in_abort(struct rig *bench, const struct mkit_event *event)
{
    if (event->step == MKIT_ABORT)
        mkit_session_end(bench->session);
    return MKIT_CONTINUE;
}

static void an_end_in_a_callback(void **state)
{
    (void)state;
    static const struct {
        const char *in, *events;
    } cases[] = {
        {"G M R K C2", "G envfrom envrcpt abort close"},
        {"G M R M R", "G envfrom envrcpt abort close"},
        {"G M R A M", "G envfrom envrcpt abort close"},
        {"G M R Q", "G envfrom envrcpt abort close"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        rig_open(&rig, MKIT_STRICT);
        rig.answer = end_in_abort;
        rig_start(&rig);
        rig_in(&rig, cases[i].in);
        rig_expect_events(&rig, cases[i].events);
        assert_int_equal(rig.result, MKIT_CLOSED);
        rig_close(&rig);
    }
}

static int end_in_eom(struct rig *bench, const struct mkit_event *event)
{
    if (event->step == MKIT_EOM) {
        mkit_session_end(bench->session);
        assert_int_equal(mkit_addheader(bench->session, "X", "v"), MKIT_ESTEP);
    }
    return MKIT_REJECT;
}

static void an_end_in_eom_sends_nothing_more(void **state)
{
    (void)state;
    rig_open(&rig, MKIT_STRICT);
    rig.filter.actions = MKIT_ALL_ACTIONS;
    rig_start(&rig);
    rig_in(&rig, "G M R");
    rig.out_len = rig.events_len = 0;
    rig.answer = end_in_eom;
    rig_in(&rig, "E M");
    rig_expect_out(&rig, "");
    rig_expect_events(&rig, "eom close");
    assert_int_equal(rig.answered, 0);
    rig_close(&rig);
}

/* --------------------------------------------------------------------------------- out of order */

static void calls_out_of_order(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    const uint8_t *out;
    struct mkit_event event;
    rig_open(&rig, MKIT_STRICT);
    rig_start(&rig);
    struct mkit_session *session = rig.session;
    assert_string_equal(mkit_session_why(session), "");
    assert_int_equal(mkit_session_next(session, &event), MKIT_NEED_INPUT);
    assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), MKIT_ESTEP);
    assert_non_null(strstr(mkit_session_why(session), "answer:"));

    size_t len = rig_bytes(&rig, "G M", false, bytes, sizeof bytes);
    assert_int_equal(mkit_session_feed(session, bytes, len), 0);
    assert_int_equal(mkit_session_feed(session, bytes, len), MKIT_EBUSY);
    assert_non_null(strstr(mkit_session_why(session), "feed:"));
    assert_int_equal(mkit_session_next(session, &event), MKIT_EVENT);
    assert_int_equal(event.step, MKIT_CONNECT);
    assert_int_equal(mkit_session_next(session, &event), MKIT_EBUSY);
    assert_non_null(strstr(mkit_session_why(session), "next:"));
    assert_int_equal(mkit_session_keep_input(session), MKIT_EBUSY);
    assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), 0);
    assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), MKIT_ESTEP);
    assert_int_equal(mkit_session_next(session, &event), MKIT_EVENT);
    assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), 0);
    assert_int_equal(mkit_session_next(session, &event), MKIT_EVENT);
    assert_int_equal(event.step, MKIT_MAIL);
    /* All bytes are read, but the event still points into them. */
    assert_int_equal(mkit_session_feed(session, bytes, 1), MKIT_EBUSY);
    assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), 0);
    assert_int_equal(mkit_session_next(session, &event), MKIT_NEED_INPUT);
    assert_int_equal(mkit_session_output(session, &out), 17 + 3 * 5);

    /* Nothing of this has harmed it; an error does, and for good. */
    assert_int_equal(mkit_session_feed(session, "\0\0\0\1Z", 5), 0);
    assert_int_equal(mkit_session_next(session, &event), MKIT_EVENT);
    assert_int_equal(event.step, MKIT_ABORT);
    assert_int_equal(mkit_session_answer(session, MKIT_REJECT), 0);
    assert_int_equal(mkit_session_next(session, &event), MKIT_EVENT);
    assert_int_equal(event.step, MKIT_CLOSE);
    assert_int_equal(mkit_progress(session), MKIT_EPROTOCOL);
    assert_int_equal(mkit_addheader(session, "X", "v"), MKIT_EPROTOCOL);
    assert_int_equal(mkit_session_answer(session, MKIT_REJECT), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(mkit_session_next(session, &event), MKIT_EPROTOCOL);
        assert_string_equal(mkit_session_why(session), "unknown packet Z (state MAIL)");
        assert_int_equal(mkit_session_feed(session, bytes, 5), MKIT_EPROTOCOL);
    }
    mkit_session_free(session);
    mkit_session_free(NULL);
    assert_null(mkit_getsymval(NULL, "i"));
}

static void a_closed_session_takes_no_more(void **state)
{
    (void)state;
    rig_open(&rig, MKIT_STRICT);
    rig_start(&rig);
    rig_in(&rig, "G Q G M");
    rig_in(&rig, "M R");
    rig_expect_out(&rig, "G");
    rig_expect_events(&rig, "G close");
    assert_int_equal(rig.result, MKIT_CLOSED);
    rig_close(&rig);
}

static void actions_between_events(void **state)
{
    (void)state;
    for (size_t d = 0; d < COUNT(degrees); d++) {
        rig_open(&rig, degrees[d]);
        rig.filter.actions = MKIT_ALL_ACTIONS;
        rig_start(&rig);
        rig_in(&rig, "G M R E");
        rig.out_len = 0;
        assert_int_equal(mkit_addheader(rig.session, "X", "v"), MKIT_ESTEP);
        assert_int_equal(mkit_progress(rig.session), degrees[d] == MKIT_STRICT ? MKIT_ESTEP : 0);
        rig_run(&rig);
        rig_expect_out(&rig, degrees[d] == MKIT_STRICT ? "" : "p");
        rig_close(&rig);
    }
}

/* ---------------------------------------------------------------------------------- negotiation */

static void check_options(const struct mkit_options *options)
{
    assert_int_equal(options->version, 7);
    assert_int_equal(options->offered_actions, 0xf);
    assert_int_equal(options->offered_protocol, MKIT_V1_PROTOCOL | MKIT_NR_BITS);
    assert_int_equal(options->actions, 0xf);
    assert_int_equal(options->protocol, MKIT_NOBODY);
}

static int negotiate(struct rig *bench, const struct mkit_event *event)
{
    if (event->step != MKIT_NEGOTIATE)
        return MKIT_CONTINUE;
    assert_int_equal(mkit_session_actions(bench->session), 0);
    assert_int_equal(mkit_session_protocol(bench->session), 0);
    check_options(event->of.options);
    event->of.options->actions = MKIT_ADDHDRS;
    event->of.options->protocol |= MKIT_NR_HELO;
    return MKIT_CONTINUE;
}

static void what_negotiate_sees(void **state)
{
    (void)state;
    rig_open(&rig, MKIT_STRICT);
    rig.filter.on[MKIT_NEGOTIATE] = rig.filter.on[MKIT_CLOSE];
    rig.filter.on[MKIT_BODY] = NULL;
    rig.answer = negotiate;
    rig_start(&rig);
    rig_in(&rig, "13:O\\0\\0\\0\\x07\\0\\0\\0\\0\\0\\0\\0\\0");
    rig_expect_out(&rig, "13:O\\0\\0\\0\\x06\\0\\0\\0\\x01\\0\\0\\0\\x10");
    assert_int_equal(mkit_session_actions(rig.session), MKIT_ADDHDRS);
    assert_int_equal(mkit_session_protocol(rig.session), MKIT_NOBODY | MKIT_NR_HELO);
    rig_close(&rig);
}

/* The bits of each step, by the sheet's section 2.3. */
static const struct {
    enum mkit_step step;
    uint32_t omit, no_reply;
} step_bits[] = {
    /* in the order of `commands` below */
    {MKIT_CONNECT, 0x1, 0x1000},    {MKIT_HELO, 0x2, 0x2000},  {MKIT_MAIL, 0x4, 0x4000},
    {MKIT_UNKNOWN, 0x100, 0x20000}, {MKIT_RCPT, 0x8, 0x8000},  {MKIT_DATA, 0x200, 0x10000},
    {MKIT_HEADER, 0x20, 0x80},      {MKIT_EOH, 0x40, 0x40000}, {MKIT_BODY, 0x10, 0x80000},
};

static void each_step_has_its_own_bits(void **state)
{
    (void)state;
    static const char *const commands[] = {"C", "H", "M", "U", "R", "T", "L", "N", "B", "E"};
    for (size_t i = 0; i < COUNT(step_bits); i++) {
        rig_open(&rig, MKIT_STRICT);
        rig.filter.on[step_bits[i].step] = NULL;
        rig_start(&rig);
        rig_in(&rig, "O");
        assert_int_equal(rig.out_len, 17);
        assert_int_equal(get_u32(rig.out + 13), step_bits[i].omit);
        assert_int_equal(mkit_session_protocol(rig.session), step_bits[i].omit);
        for (size_t c = 0; c < COUNT(commands); c++) { /* it is not sent: all others still follow */
            rig.out_len = 0;
            rig_in(&rig, c == i ? "" : commands[c]);
            rig_expect_out(&rig, c == i ? "" : "c");
        }
        rig_close(&rig);

        uint32_t protocol = step_bits[i].no_reply;
        rig_open(&rig, MKIT_STRICT);
        rig.filter.on[MKIT_NEGOTIATE] = rig.filter.on[MKIT_CLOSE];
        rig.answer = ask_for;
        rig.data = &protocol;
        rig_start(&rig);
        rig_in(&rig, "O");
        for (size_t c = 0; c < COUNT(commands); c++) {
            rig.out_len = 0;
            rig_in(&rig, commands[c]);
            rig_expect_out(&rig, c == i ? "" : "c");
        }
        assert_int_equal(rig.seen[step_bits[i].step], 1);
        rig_close(&rig);
    }
}

/* --------------------------------------------------------------------------------- small things */

static void pointers_and_defaults(void **state)
{
    (void)state;
    int mine = 0;
    rig_open(&rig, MKIT_STRICT);
    rig.filter.log = NULL;
    rig.filter.name = "test";
    rig_start(&rig);
    assert_ptr_equal(mkit_filter_data(rig.session), &rig);
    assert_null(mkit_private(rig.session));
    mkit_set_private(rig.session, &mine);
    rig_in(&rig, "G M R E K C2 H");
    assert_ptr_equal(mkit_private(rig.session), &mine);
    rig_in(&rig, "1:Z"); /* nobody hears the log */
    assert_int_equal(rig.result, MKIT_EPROTOCOL);
    rig_close(&rig);
}

static int refuse_mail(struct rig *bench, const struct mkit_event *event)
{
    (void)ask_for(bench, event);
    return event->step == MKIT_MAIL ? MKIT_REJECT : MKIT_CONTINUE;
}

static void a_message_refused_in_silence_is_still_open(void **state)
{
    (void)state;
    uint32_t protocol = MKIT_NR_MAIL;
    rig_open(&rig, MKIT_STRICT);
    rig.filter.on[MKIT_NEGOTIATE] = rig.filter.on[MKIT_CLOSE];
    rig.answer = refuse_mail;
    rig.data = &protocol;
    rig_start(&rig);
    rig_in(&rig, "G M");
    assert_true(mkit_session_in_message(rig.session)); /* a drain must wait for the refusal */
    rig_in(&rig, "R T");
    assert_false(mkit_session_in_message(rig.session));
    rig_close(&rig);
}

static int check_in_message(struct rig *bench, const struct mkit_event *event)
{
    const bool inside = event->step >= MKIT_MAIL && event->step <= MKIT_EOM;
    assert_int_equal(mkit_session_in_message(bench->session), inside);
    return MKIT_CONTINUE;
}

static void in_message(void **state)
{
    (void)state;
    rig_open(&rig, MKIT_STRICT);
    rig.answer = check_in_message;
    rig_start(&rig);
    rig_in(&rig, "G M R T L N B E M R 4:Eabc M A Q");
    rig_expect_events(&rig, "G envfrom envrcpt data header eoh body eom envfrom envrcpt body eom "
                            "envfrom abort close");
    rig_close(&rig);
}

static void failure_verdicts(void **state)
{
    (void)state;
    static const struct {
        enum mkit_on_failure failure;
        const char *reply;
    } cases[] = {{MKIT_FAIL_TEMPFAIL, "t"},
                 {MKIT_FAIL_REJECT, "r"},
                 {MKIT_FAIL_ACCEPT, "a"},
                 {MKIT_FAIL_CONTINUE, "c"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct verdict_run run = {&step_cases[2], &verdict_cases[COUNT(verdict_cases) - 1], 0};
        rig_open(&rig, MKIT_STRICT);
        rig.filter.on_failure = cases[i].failure;
        rig.answer = answer_verdict;
        rig.data = &run;
        rig_start(&rig);
        rig_in(&rig, "G");
        rig.out_len = 0;
        rig_in(&rig, "M");
        rig_expect_out(&rig, cases[i].reply);
        rig_close(&rig);
    }
}

static void a_hundred_thousand_recipients(void **state)
{
    (void)state;
    rig_open(&rig, MKIT_STRICT);
    rig.filter.on[MKIT_RCPT] = NULL;
    rig_start(&rig);
    rig_in(&rig, "O C H M");
    for (int i = 0; i < 100000; i++) {
        rig_in(&rig, "R");
        rig.out_len = 0;
        if (rig.result < 0) {
            assert_int_equal(i, 65536);
            break;
        }
    }
    assert_int_equal(rig.result, MKIT_ELIMIT);
    assert_string_equal(rig.log, "packet RCPT (R): more than 65536 recipients (state RCPT)\n");
    rig_expect_events(&rig, "G envfrom abort close");
    rig_close(&rig);
}

static void names_of_errors(void **state)
{
    (void)state;
    assert_string_equal(mkit_error_name(0), "MKIT_OK");
    assert_string_equal(mkit_error_name(MKIT_ETHREAD), "MKIT_ETHREAD");
    for (int error = 0; error >= MKIT_ETHREAD; error--) {
        assert_memory_equal(mkit_error_name(error), "MKIT_", 5);
        assert_string_not_equal(mkit_error_text(error), "");
        assert_string_not_equal(mkit_error_text(error), "unknown error");
    }
    static const int others[] = {1, MKIT_ETHREAD - 1, INT32_MIN};
    for (size_t i = 0; i < COUNT(others); i++) {
        assert_string_equal(mkit_error_name(others[i]), "MKIT_?");
        assert_string_equal(mkit_error_text(others[i]), "unknown error");
    }
    assert_non_null(strchr(mkit_version(), '.'));
}

/* --------------------------------------------------------------------------------------- output */

struct sink {
    size_t calls;
    size_t largest; /* bytes at once */
    size_t total;
    int error;
};

static int flush(struct mkit_session *session, void *arg)
{
    struct sink *sink = arg;
    const uint8_t *data;
    size_t len = mkit_session_output(session, &data);
    sink->calls++;
    sink->total += len;
    if (len > sink->largest)
        sink->largest = len;
    if (!sink->error)
        mkit_session_sent(session, len);
    return sink->error;
}

/* Readies the rig inside an eom callback whose output is bound to `bound` bytes. */
static struct mkit_session *open_eom(struct sink *sink, enum mkit_degree degree, size_t bound)
{
    struct mkit_event event;
    uint8_t bytes[4096];
    rig_open(&rig, degree);
    rig.filter.actions = MKIT_ALL_ACTIONS;
    rig.filter.limits.output = bound;
    rig_start(&rig);
    rig_in(&rig, "G M R");
    rig.out_len = rig.events_len = 0;
    *sink = (struct sink){0};
    assert_false(mkit_session_will_flush(rig.session, SIZE_MAX / 2)); /* nobody writes */
    mkit_session_on_flush(rig.session, flush, sink);
    size_t len = rig_bytes(&rig, "E", false, bytes, sizeof bytes);
    assert_int_equal(mkit_session_feed(rig.session, bytes, len), 0);
    assert_int_equal(mkit_session_next(rig.session, &event), MKIT_EVENT);
    assert_int_equal(event.step, MKIT_EOM);
    return rig.session;
}

/* 20 MB of headers are handed on: Postfix sends as many where its limits let it. */
static void headers_have_no_limit_of_their_own(void **state)
{
    (void)state;
    enum { SIZE = 65000, TIMES = 320 };
    static uint8_t header[4 + SIZE];
    header[2] = SIZE >> 8;
    header[3] = SIZE & 0xff;
    header[4] = 'L';
    header[5] = 'X';
    memset(header + 7, 'v', SIZE - 4);
    for (size_t d = 0; d < COUNT(degrees); d++) {
        rig_open(&rig, degrees[d]);
        rig_start(&rig);
        rig_in(&rig, "G M R");
        for (int i = 0; i < TIMES; i++) {
            rig.events_len = rig.out_len = 0;
            rig_feed(&rig, header, sizeof header);
            assert_int_equal(rig.result, MKIT_NEED_INPUT);
            rig_expect_out(&rig, "c");
        }
        rig_close(&rig);
    }
}

/* The MTA reads nothing: no packet is begun past the bound. What came stays, and is served when
 * some of the output has left. */
static void replies_past_the_bound_wait(void **state)
{
    (void)state;
    enum { REPLY = 5, BOUND = 12 };
    struct mkit_event event;
    uint8_t bytes[4096];
    const uint8_t *data;
    rig_open(&rig, MKIT_STRICT);
    rig.filter.limits.output = BOUND;
    rig_start(&rig);
    rig_in(&rig, "G M");
    const size_t len = rig_bytes(&rig, "R R R R R A M R Q", false, bytes, sizeof bytes);
    assert_int_equal(mkit_session_feed(rig.session, bytes, len), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mkit_session_next(rig.session, &event), MKIT_EVENT);
        assert_int_equal(mkit_session_answer(rig.session, MKIT_CONTINUE), 0);
    }
    assert_int_equal(mkit_session_next(rig.session, &event), MKIT_NEED_OUTPUT);
    assert_int_equal(mkit_session_output(rig.session, &data), 3 * REPLY);
    assert_int_equal(mkit_session_keep_input(rig.session), 0);
    memset(bytes, 0xff, sizeof bytes);
    mkit_session_sent(rig.session, 2); /* still more than the bound */
    assert_int_equal(mkit_session_next(rig.session, &event), MKIT_NEED_OUTPUT);
    mkit_session_sent(rig.session, 1);
    assert_int_equal(mkit_session_next(rig.session, &event), MKIT_EVENT);
    assert_int_equal(event.step, MKIT_RCPT);
    assert_int_equal(mkit_session_answer(rig.session, MKIT_CONTINUE), 0);
    assert_int_equal(mkit_session_next(rig.session, &event), MKIT_NEED_OUTPUT);
    mkit_session_end(rig.session); /* it need not write for that */
    rig.events_len = 0;
    assert_int_equal(mkit_session_next(rig.session, &event), MKIT_EVENT);
    assert_int_equal(event.step, MKIT_ABORT);
    assert_int_equal(mkit_session_answer(rig.session, MKIT_CONTINUE), 0);
    rig_run(&rig);
    assert_int_equal(rig.result, MKIT_CLOSED);
    rig_close(&rig);
}

static void output_past_the_bound_is_written(void **state)
{
    (void)state;
    struct sink sink;
    struct mkit_session *session = open_eom(&sink, MKIT_STRICT, 100);
    assert_false(mkit_session_will_flush(session, 95)); /* and 5 bytes of the packet's own */
    assert_true(mkit_session_will_flush(session, 96));
    char text[96] = {0};
    memset(text, 'x', sizeof text - 1);
    assert_int_equal(mkit_quarantine(session, text + 1), 0); /* 5 + 94 + 1 bytes */
    assert_int_equal(sink.calls, 0);
    assert_true(mkit_session_will_flush(session, 0));
    assert_int_equal(mkit_replacebody(session, "y", 1), 0);
    assert_int_equal(sink.calls, 1);
    assert_int_equal(sink.total, 106);
    assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), 0);
    rig_run(&rig);
    rig_expect_out(&rig, "c");
    rig_close(&rig);
}

static void a_large_body_does_not_wait_in_memory(void **state)
{
    (void)state;
    struct sink sink;
    struct mkit_session *session = open_eom(&sink, MKIT_STRICT, 0);
    const size_t len = 5000000;
    char *body = calloc(1, len);
    assert_non_null(body);
    assert_int_equal(mkit_replacebody(session, body, len), 0);
    free(body);
    assert_int_in_range(sink.largest, 1 << 18, (1 << 18) + 5 + MKIT_CHUNK);
    mkit_session_on_flush(session, NULL, NULL);
    assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), 0);
    rig_run(&rig);
    assert_int_equal(sink.total + rig.out_len, len + 5 * ((len + MKIT_CHUNK - 1) / MKIT_CHUNK) + 5);
    rig_close(&rig);
}

static void progress_is_written_at_once(void **state)
{
    (void)state;
    for (size_t d = 0; d < COUNT(degrees); d++) {
        const bool strict = degrees[d] == MKIT_STRICT;
        struct sink sink;
        struct mkit_session *session = open_eom(&sink, degrees[d], 0);
        assert_int_equal(mkit_progress(session), 0);
        assert_int_equal(sink.calls, 1);
        assert_int_equal(sink.total, 5);
        assert_int_equal(mkit_replacebody(session, "x", 1), 0);
        assert_int_equal(sink.calls, 1);
        assert_int_equal(mkit_progress(session), 0); /* strict: the chunk itself shows life */
        assert_int_equal(sink.calls, 2);
        assert_int_equal(sink.total, strict ? 11 : 16);
        assert_int_equal(mkit_progress(session), 0);
        assert_int_equal(sink.calls, strict ? 2 : 3);
        assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), 0);
        rig_run(&rig);
        rig_expect_out(&rig, "c");
        rig_close(&rig);
    }
}

/* Where somebody else may put progress on the wire. */
static void progress_of_others(void **state)
{
    (void)state;
    struct sink sink;
    struct mkit_session *session = open_eom(&sink, MKIT_STRICT, 0);
    assert_true(mkit_session_may_progress(session));
    assert_int_equal(mkit_addheader(session, "X", "v"), 0);
    assert_false(mkit_session_may_progress(session)); /* part of it may have left */
    assert_int_equal(mkit_progress(session), 0);
    assert_true(mkit_session_may_progress(session));
    assert_int_equal(mkit_replacebody(session, "x", 1), 0);
    assert_int_equal(mkit_progress(session), 0);
    assert_false(mkit_session_may_progress(session)); /* a chunk has */
    assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), 0);
    rig_run(&rig);
    rig_expect_out(&rig, "c");
    assert_false(mkit_session_may_progress(session)); /* nothing is asked */
    uint8_t bytes[4096];
    struct mkit_event event;
    const size_t len = rig_bytes(&rig, "M", false, bytes, sizeof bytes);
    assert_int_equal(mkit_session_feed(session, bytes, len), 0);
    assert_int_equal(mkit_session_next(session, &event), MKIT_EVENT);
    assert_false(mkit_session_may_progress(session)); /* it is not the end of a message */
    assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), 0);
    rig_close(&rig);
}

static bool on_gone(const struct mkit_session *session, void *arg)
{
    (void)session;
    return *(const bool *)arg;
}

static void a_peer_that_is_gone(void **state)
{
    (void)state;
    struct sink sink;
    struct mkit_session *session = open_eom(&sink, MKIT_STRICT, 0);
    bool gone = false;
    assert_false(mkit_mta_gone(session));
    mkit_session_on_gone(session, on_gone, &gone);
    assert_false(mkit_mta_gone(session));
    gone = true;
    assert_true(mkit_mta_gone(session));
    mkit_session_on_gone(session, NULL, NULL);
    assert_false(mkit_mta_gone(session));
    sink.error = MKIT_ECLOSED;
    assert_int_equal(mkit_progress(session), MKIT_ECLOSED);
    assert_true(mkit_mta_gone(session));
    assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), MKIT_ECLOSED);
    rig_close(&rig);
    session = open_eom(&sink, MKIT_STRICT, 0);
    mkit_session_eof(session);
    assert_true(mkit_mta_gone(session));
    assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), 0);
    rig_close(&rig);
}

static void a_failing_write_ends_the_session(void **state)
{
    (void)state;
    enum { PROGRESS, HEADER, BODY, WAYS };
    for (int way = 0; way < WAYS; way++) {
        struct sink sink;
        struct mkit_session *session = open_eom(&sink, MKIT_STRICT, 1);
        sink.error = MKIT_ETIMEOUT;
        int result = way == PROGRESS ? mkit_progress(session)
                     : way == HEADER ? mkit_addheader(session, "X", "v")
                                     : mkit_replacebody(session, "abc", 3);
        assert_int_equal(result, MKIT_ETIMEOUT);
        assert_string_equal(mkit_session_why(session), mkit_error_text(MKIT_ETIMEOUT));
        assert_int_equal(mkit_addheader(session, "X", "v"), MKIT_ETIMEOUT);
        assert_int_equal(mkit_progress(session), MKIT_ETIMEOUT);
        assert_int_equal(sink.calls, 1);
        assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), MKIT_ETIMEOUT);
        rig_run(&rig);
        rig_expect_events(&rig, "close");
        assert_int_equal(rig.result, MKIT_ETIMEOUT);
        rig_close(&rig);
    }
}

static void output_is_taken_bit_by_bit(void **state)
{
    (void)state;
    struct sink sink;
    struct mkit_session *session = open_eom(&sink, MKIT_STRICT, 0);
    const uint8_t *data;
    assert_int_equal(mkit_addheader(session, "X", "v"), 0);
    assert_int_equal(mkit_session_output(session, &data), 9);
    mkit_session_sent(session, 4);
    assert_int_equal(mkit_session_output(session, &data), 5);
    assert_int_equal(*data, 'h');
    mkit_session_trim(session); /* must leave what waits */
    assert_int_equal(mkit_session_output(session, &data), 5);
    mkit_session_sent(session, 5);
    assert_int_equal(mkit_session_output(session, &data), 0);
    mkit_session_trim(session);
    assert_int_equal(mkit_session_output(session, &data), 0);
    assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), 0);
    rig_run(&rig);
    rig_expect_out(&rig, "c");
    rig_close(&rig);
}

/* ---------------------------------------------------------------------------------------- input */

/* Feeds `at..at+step` out of memory that is gone as soon as the session may not look at it. */
static void feed_kept(const uint8_t *at, size_t len)
{
    struct mkit_event event;
    uint8_t *borrowed = malloc(len);
    assert_non_null(borrowed);
    memcpy(borrowed, at, len);
    assert_int_equal(mkit_session_feed(rig.session, borrowed, len), 0);
    assert_int_equal(mkit_session_keep_input(rig.session), 0);
    free(borrowed);
    rig_run(&rig);
    assert_int_equal(mkit_session_next(rig.session, &event), MKIT_NEED_INPUT);
}

static const char pipeline[] =
    "G 7:DMi\\0Q1\\0 M M R T 7:DNi\\0Q2\\0 N B B 4:Eabc M A E R M R T L H M";
static const char pipeline_out[] = "G c c c c c c c c c c c c c c c";
static const char pipeline_events[] =
    "G envfrom abort envfrom(<a@b>) envrcpt(<c@d>) data eoh body(6) body(6) body(3) eom envfrom "
    "abort envfrom envrcpt data header(Subject=hi) abort helo(me) envfrom(<a@b>)";

static void kept_input_is_served(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    static const size_t parts[] = {1, 2, 3, 5, 7, 11, 16, 33, 64, 4096};
    for (size_t i = 0; i < COUNT(parts); i++) {
        rig_open(&rig, MKIT_STRICT);
        rig_start(&rig);
        size_t len = rig_bytes(&rig, pipeline, false, bytes, sizeof bytes);
        for (size_t at = 0; at < len; at += parts[i])
            feed_kept(bytes + at, len - at < parts[i] ? len - at : parts[i]);
        assert_int_equal(rig.session->partial.len, 0);
        rig_expect_out(&rig, pipeline_out);
        rig_expect_events(&rig, pipeline_events);
        rig_close(&rig);
    }
}

/* Keeps the input after every single event, whatever steps its packet still has to come. */
static void input_is_kept_between_events(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    struct mkit_event event;
    rig_open(&rig, MKIT_STRICT);
    rig_start(&rig);
    size_t len = rig_bytes(&rig, pipeline, false, bytes, sizeof bytes);
    for (size_t half = 0; half < 2; half++) { /* the second feed finds half a packet */
        uint8_t *borrowed = malloc(len);
        assert_non_null(borrowed);
        size_t from = half ? len / 2 : 0;
        size_t count = half ? len - from : len / 2;
        memcpy(borrowed, bytes + from, count);
        assert_int_equal(mkit_session_feed(rig.session, borrowed, count), 0);
        int result;
        while ((result = mkit_session_next(rig.session, &event)) == MKIT_EVENT) {
            rig.seen[event.step]++;
            if (event.step == MKIT_MAIL)
                assert_string_equal(event.of.args.all.at, "<a@b>");
            if (event.step == MKIT_HEADER)
                assert_string_equal(event.of.header.value.at, "hi");
            assert_int_equal(mkit_session_answer(rig.session, MKIT_CONTINUE), 0);
            assert_int_equal(mkit_session_keep_input(rig.session), 0);
            if (borrowed)
                memset(borrowed, 0xee, count);
            free(borrowed);
            borrowed = NULL;
        }
        free(borrowed);
        assert_int_equal(result, MKIT_NEED_INPUT);
    }
    static const struct {
        enum mkit_step step;
        unsigned times;
    } want[] = {{MKIT_MAIL, 5}, {MKIT_ABORT, 3}, {MKIT_BODY, 3}, {MKIT_EOM, 1}, {MKIT_HELO, 2}};
    for (size_t i = 0; i < COUNT(want); i++)
        assert_int_equal(rig.seen[want[i].step], want[i].times);
    rig_run(&rig);
    rig_expect_out(&rig, pipeline_out);
    rig_close(&rig);
}

static void a_packet_with_steps_to_come_is_kept(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    struct mkit_event event;
    rig_open(&rig, MKIT_STRICT);
    rig_start(&rig);
    rig_in(&rig, "G M");
    rig.out_len = rig.events_len = 0;
    size_t len = rig_bytes(&rig, "7:M<x@y>\\0 R 1:E", false, bytes, sizeof bytes);
    assert_int_equal(mkit_session_feed(rig.session, bytes, len), 0);
    assert_int_equal(mkit_session_next(rig.session, &event), MKIT_EVENT);
    assert_int_equal(event.step, MKIT_ABORT); /* MAIL is still to come */
    assert_int_equal(mkit_session_answer(rig.session, MKIT_CONTINUE), 0);
    assert_int_equal(mkit_session_keep_input(rig.session), 0);
    memset(bytes, 0xee, len);
    rig_run(&rig);
    rig_expect_events(&rig, "envfrom(<x@y>) envrcpt(<c@d>) eom");
    rig_expect_out(&rig, "c c c");
    rig_close(&rig);
}

static void trim_gives_back_what_was_large(void **state)
{
    (void)state;
    static char value[50000];
    memset(value, 'x', sizeof value - 1);
    rig_open(&rig, MKIT_STRICT);
    rig_start(&rig);
    rig_in(&rig, "G M R hex:00008000");
    rig_in(&rig, "big:B20000");
    assert_true(rig.session->partial.size > 256);
    mkit_session_trim(rig.session);
    assert_true(rig.session->partial.len > 0); /* it is half a packet */
    mkit_session_end(rig.session);
    rig_run(&rig);
    rig_close(&rig);

    struct sink sink;
    struct mkit_session *session = open_eom(&sink, MKIT_STRICT, 0);
    assert_int_equal(mkit_replacebody(session, "x", 1), 0);
    assert_int_equal(mkit_addheader(session, "X", value), 0); /* waits for the body's end */
    assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), 0);
    rig_run(&rig);
    assert_int_equal(rig.out_len, 6 + 5 + 3 + 49999 + 5);
    assert_true(session->out.size > 50000);
    assert_true(session->later.size > 50000);
    mkit_session_trim(session);
    assert_true(session->out.size + session->later.size + session->partial.size < 1000);
    rig_close(&rig);
}

static void trim_leaves_half_a_packet(void **state)
{
    (void)state;
    rig_open(&rig, MKIT_STRICT);
    rig_start(&rig);
    rig_in(&rig, "G hex:000000074d3c61");
    mkit_session_trim(rig.session);
    rig_in(&rig, "hex:4062 hex:3e00 R");
    rig_expect_out(&rig, "G c c");
    rig_expect_events(&rig, "G envfrom(<a@b>) envrcpt");
    rig_close(&rig);
}

static void a_split_packet_is_copied_alone(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    struct mkit_event event;
    rig_open(&rig, MKIT_STRICT);
    rig_start(&rig);
    rig_in(&rig, "G hex:00000007");
    size_t len = rig_bytes(&rig, "hex:4d3c6140623e00 R", false, bytes, sizeof bytes);
    assert_int_equal(mkit_session_feed(rig.session, bytes, len), 0);
    assert_int_equal(mkit_session_next(rig.session, &event), MKIT_EVENT);
    assert_int_equal(rig.session->partial.len, 11);
    assert_int_equal(mkit_session_answer(rig.session, MKIT_CONTINUE), 0);
    assert_int_equal(mkit_session_next(rig.session, &event), MKIT_EVENT);
    assert_int_equal(event.step, MKIT_RCPT);
    assert_int_equal(rig.session->partial.len, 0);
    assert_ptr_equal(event.of.args.all.at, bytes + len - 6); /* not copied */
    assert_int_equal(mkit_session_answer(rig.session, MKIT_CONTINUE), 0);
    rig_run(&rig);
    rig_close(&rig);
}

/* Reads a part of the stream as a server does: to where the packet's start is, the rest apart. */
static void read_in_place(const uint8_t *at, size_t len)
{
    uint8_t *rest;
    const size_t missing = mkit_session_room(rig.session, &rest);
    const size_t filled = len < missing ? len : missing;
    if (filled)
        memcpy(rest, at, filled);
    mkit_session_filled(rig.session, filled);
    uint8_t *borrowed = malloc(len);
    assert_non_null(borrowed);
    memcpy(borrowed, at + filled, len - filled);
    assert_int_equal(mkit_session_feed(rig.session, borrowed, len - filled), 0);
    if (mkit_session_room(rig.session, &rest) == 0)
        rig_run(&rig);
    free(borrowed); /* it was used up, or taken in */
}

static void packets_are_put_together_in_place(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    static const size_t parts[] = {1, 2, 3, 5, 7, 11, 16, 33, 64, 4096};
    for (size_t i = 0; i < COUNT(parts); i++) {
        rig_open(&rig, MKIT_STRICT);
        rig_start(&rig);
        const size_t len = rig_bytes(&rig, pipeline, false, bytes, sizeof bytes);
        for (size_t at = 0; at < len; at += parts[i])
            read_in_place(bytes + at, len - at < parts[i] ? len - at : parts[i]);
        assert_int_equal(rig.session->partial.len, 0);
        rig_expect_out(&rig, pipeline_out);
        rig_expect_events(&rig, pipeline_events);
        rig_close(&rig);
    }
}

/* Room is offered for the rest of one packet, and an event points to where its bytes were put. */
static void room_for_the_rest_of_a_chunk(void **state)
{
    (void)state;
    enum { CHUNK = 60000, FIRST = 4096 };
    static uint8_t bytes[CHUNK];
    struct mkit_event event;
    uint8_t *rest;
    rig_open(&rig, MKIT_STRICT);
    rig_start(&rig);
    rig_in(&rig, "G M R T N");
    assert_int_equal(mkit_session_room(rig.session, &rest), 0); /* nothing has come */
    put_u32(bytes, CHUNK + 1);
    bytes[MKIT_LENGTH_LEN] = MKIT_C_BODY;
    assert_int_equal(mkit_session_feed(rig.session, bytes, FIRST), 0);
    assert_int_equal(mkit_session_room(rig.session, &rest), CHUNK + MKIT_HEADER_LEN - FIRST);
    memset(bytes, 0xee, FIRST); /* no longer borrowed */
    memset(rest, 'x', FIRST);
    mkit_session_filled(rig.session, FIRST);
    const uint8_t *second = rest + FIRST;
    const size_t left = mkit_session_room(rig.session, &rest);
    assert_int_equal(left, CHUNK + MKIT_HEADER_LEN - 2 * FIRST);
    assert_ptr_equal(rest, second);
    memset(rest, 'x', left);
    mkit_session_filled(rig.session, left);
    assert_int_equal(mkit_session_room(rig.session, &rest), 0); /* it is whole */
    assert_int_equal(mkit_session_next(rig.session, &event), MKIT_EVENT);
    assert_int_equal(event.of.body.len, CHUNK);
    assert_ptr_equal(event.of.body.at, second - 2 * FIRST + MKIT_HEADER_LEN);
    assert_int_equal(mkit_session_room(rig.session, &rest), 0); /* it waits for an answer */
    assert_int_equal(mkit_session_answer(rig.session, MKIT_CONTINUE), 0);
    rig_run(&rig);
    rig_close(&rig);
}

/* A claim gets little room, and one past the limit none. */
static void room_follows_no_claim(void **state)
{
    (void)state;
    static const struct {
        uint8_t claim[8];
        size_t len;
        size_t room;
    } claims[] = {
        {{0, 0xf, 0, 0, 'B'}, 5, MKIT_CHUNK}, {{0x7f, 0, 0, 0, 'B'}, 5, 0}, {{0, 0}, 2, 3}};
    for (size_t i = 0; i < COUNT(claims); i++) {
        uint8_t bytes[16];
        uint8_t *rest;
        rig_open(&rig, MKIT_STRICT);
        rig_start(&rig);
        rig_in(&rig, "G M R T N");
        const size_t len = claims[i].len;
        memcpy(bytes, claims[i].claim, len);
        assert_int_equal(mkit_session_feed(rig.session, bytes, len), 0);
        assert_int_equal(mkit_session_room(rig.session, &rest), claims[i].room);
        rig_run(&rig);
        rig_close(&rig);
    }
}

/* Packets that were kept are served where they lie: moving the rest up after each of them would
 * cost the square of what is kept. */
static void kept_packets_are_not_moved(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    struct mkit_event event;
    rig_open(&rig, MKIT_STRICT);
    rig_start(&rig);
    rig_in(&rig, "G M R T");
    const size_t len = rig_bytes(&rig, "L L L L", false, bytes, sizeof bytes);
    assert_int_equal(mkit_session_feed(rig.session, bytes, len), 0);
    assert_int_equal(mkit_session_keep_input(rig.session), 0);
    const char *before = NULL;
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(mkit_session_next(rig.session, &event), MKIT_EVENT);
        if (before)
            assert_int_equal(event.of.header.name.at - before, len / 4);
        before = event.of.header.name.at;
        assert_int_equal(mkit_session_answer(rig.session, MKIT_CONTINUE), 0);
    }
    rig_run(&rig);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_verdict_at_every_step),
        cmocka_unit_test(every_end_in_every_state),
        cmocka_unit_test(an_end_in_a_callback),
        cmocka_unit_test(an_end_in_eom_sends_nothing_more),
        cmocka_unit_test(calls_out_of_order),
        cmocka_unit_test(a_closed_session_takes_no_more),
        cmocka_unit_test(actions_between_events),
        cmocka_unit_test(what_negotiate_sees),
        cmocka_unit_test(each_step_has_its_own_bits),
        cmocka_unit_test(pointers_and_defaults),
        cmocka_unit_test(a_message_refused_in_silence_is_still_open),
        cmocka_unit_test(in_message),
        cmocka_unit_test(failure_verdicts),
        cmocka_unit_test(a_hundred_thousand_recipients),
        cmocka_unit_test(names_of_errors),
        cmocka_unit_test(headers_have_no_limit_of_their_own),
        cmocka_unit_test(replies_past_the_bound_wait),
        cmocka_unit_test(output_past_the_bound_is_written),
        cmocka_unit_test(a_large_body_does_not_wait_in_memory),
        cmocka_unit_test(progress_is_written_at_once),
        cmocka_unit_test(progress_of_others),
        cmocka_unit_test(a_peer_that_is_gone),
        cmocka_unit_test(a_failing_write_ends_the_session),
        cmocka_unit_test(output_is_taken_bit_by_bit),
        cmocka_unit_test(kept_input_is_served),
        cmocka_unit_test(input_is_kept_between_events),
        cmocka_unit_test(a_packet_with_steps_to_come_is_kept),
        cmocka_unit_test(trim_gives_back_what_was_large),
        cmocka_unit_test(trim_leaves_half_a_packet),
        cmocka_unit_test(a_split_packet_is_copied_alone),
        cmocka_unit_test(packets_are_put_together_in_place),
        cmocka_unit_test(room_for_the_rest_of_a_chunk),
        cmocka_unit_test(room_follows_no_claim),
        cmocka_unit_test(kept_packets_are_not_moved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
