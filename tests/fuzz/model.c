/* A session's rules a second time: see model.h. */
#include "model.h"

#include <arpa/inet.h>
#include <strings.h>

#include "fuzz.h"

/* Every state: what may follow directly (sheet 3.1), its step, and its bits (sheet 2.3). The order
 * counts: a state whose command is not sent stands for the one before it too. That of headers may
 * always be left out. */
static const struct row {
    char letter;
    const char *next;
    enum mkit_step step;
    uint32_t omit;
    uint32_t no_reply;
} rows[] = {
    {'I', "O", MKIT_STEPS, 0, 0},
    {'O', "CU", MKIT_NEGOTIATE, 0, 0},
    {'C', "HMU", MKIT_CONNECT, 0x1, 0x1000},
    {'H', "HMU", MKIT_HELO, 0x2, 0x2000},
    {'M', "RAU", MKIT_MAIL, 0x4, 0x4000},
    {'R', "RTLNBEAU", MKIT_RCPT, 0x8, 0x8000},
    {'T', "RTLNAU", MKIT_DATA, 0x200, 0x10000},
    {'L', "LNA", MKIT_HEADER, 0x20, 0x80},
    {'N', "BEA", MKIT_EOH, 0x40, 0x40000},
    {'B', "BEA", MKIT_BODY, 0x10, 0x80000},
    {'E', "MUQK", MKIT_EOM, 0, 0},
    {'Q', "", MKIT_STEPS, 0, 0},
    {'A', "", MKIT_STEPS, 0, 0},
    {'U', "HMRTBUAQK", MKIT_UNKNOWN, 0x100, 0x20000},
    {'K', "CU", MKIT_STEPS, 0, 0},
    {'o', "RTU", MKIT_STEPS, 0, 0}, /* after a final verdict at DATA */
};

enum { ROWS = sizeof rows / sizeof *rows };

static const struct row *row_of(char letter)
{
    for (unsigned i = 0; i < ROWS; i++)
        if (rows[i].letter == letter)
            return &rows[i];
    return NULL;
}

static const struct row *row_of_step(enum mkit_step step)
{
    for (unsigned i = 0; i < ROWS; i++)
        if (rows[i].step == step)
            return &rows[i];
    return NULL;
}

static bool has(const char *letters, char letter)
{
    return letter && strchr(letters, letter);
}

static bool follows(const struct model *model, char from, char to)
{
    const struct row *row = row_of(from);
    if (has(row->next, to))
        return true;
    for (row++; row < rows + ROWS && (row->letter == 'L' || row->omit & model->protocol); row++)
        if (has(row->next, to))
            return true;
    return false;
}

static bool in_message(const struct model *model)
{
    return has("MRTLNB", model->state == 'U' ? model->before : model->state);
}

static void push(struct model *model, enum mkit_step step)
{
    model->todo[model->todo_count++] = step;
}

static void push_ends(struct model *model, bool with_close)
{
    if (in_message(model) && model->held < 0)
        push(model, MKIT_ABORT);
    if (with_close && model->close_owed)
        push(model, MKIT_CLOSE);
    if (!model->held_always)
        model->held = -1;
}

void model_end(struct model *model, int error)
{
    if (!model->error)
        model->error = error;
    if (model->ending)
        return;
    model->ending = true;
    model->todo_count = 0;
    push_ends(model, true);
    model->state = 'Q';
}

void model_init(struct model *model, const struct mkit_filter *filter, const uint8_t *stream)
{
    const struct mkit_limits *limits = &filter->limits;
    *model = (struct model){
        .filter = filter,
        .strict = filter->degree == MKIT_STRICT,
        .stream = stream,
        .state = 'I',
        .before = 'I',
        .asked = MKIT_STEPS,
        .close_owed = true,
        .held = -1,
    };
    model->limits = (struct mkit_limits){
        .packet = limits->packet  ? limits->packet
                  : model->strict ? 1 << 20
                                  : 65535,
        .macros = limits->macros ? limits->macros : 65536,
        .recipients = limits->recipients ? limits->recipients : 65536,
        .header_bytes = limits->header_bytes ? limits->header_bytes : SIZE_MAX,
    };
}

/* ------------------------------------------------------------------------------------ packets */

static uint32_t number(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Bytes up to and with the first NUL; 0 if there is none. */
static size_t string_span(const uint8_t *at, size_t len)
{
    const uint8_t *end = len ? memchr(at, 0, len) : NULL;
    return end ? (size_t)(end - at) + 1 : 0;
}

/* The client's address (sheet 6.1). */
static bool is_client(const uint8_t *at, size_t len)
{
    const size_t host = string_span(at, len);
    if (host == 0 || host == len)
        return false;
    const uint8_t family = at[host];
    if (family == 'U')
        return true;
    if (len < host + 4 || at[len - 1] != 0)
        return false;
    const char *address = (const char *)at + host + 3;
    struct in6_addr out;
    struct in_addr out4;
    switch (family) {
    case '4': return inet_aton(address, &out4) != 0;
    case '6': {
        char plain[INET6_ADDRSTRLEN] = ""; /* without the scope */
        if (strncasecmp(address, "IPv6:", 5) == 0)
            address += 5;
        const size_t span = strcspn(address, "%");
        if (span < sizeof plain)
            memcpy(plain, address, span);
        return inet_pton(AF_INET6, plain, &out) == 1;
    }
    case 'L': return strlen(address) < sizeof((struct sockaddr_un *)NULL)->sun_path;
    default: return false;
    }
}

/* Whether the data of the packet at hand is what its command needs (sheet 1.4). */
static bool is_sound(const struct model *model)
{
    const uint8_t *at = model->data;
    const size_t len = model->len;
    const size_t first = string_span(at, len);
    switch (model->command) {
    case 'O': return len >= 12 && number(at) >= 2;
    case 'C': return is_client(at, len);
    case 'H':
    case 'U': return first && at[len - 1] == 0;
    case 'M':
    case 'R': return first;
    case 'L': return first > 1 && string_span(at + first, len - first) && at[len - 1] == 0;
    default: return true;
    }
}

/* A macro packet: kept if it is for a stage and has a string. */
static int take_macros(const struct model *model)
{
    size_t len = model->len;
    while (len > 1 && model->data[len - 1])
        len--;
    return len > 1 && has("CHMRTNE", (char)model->data[0]) && len - 1 > model->limits.macros
               ? MKIT_ELIMIT
               : 0;
}

static int take_packet(struct model *model)
{
    const char to = (char)model->command;
    if (!has("OCHMRTLNBEQAUKD", to) || (has("OCHMRLBUD", to) && model->len == 0))
        return MKIT_EPROTOCOL;
    if (to == 'D')
        return take_macros(model);
    if (to == 'Q') {
        model_end(model, 0);
        return 0;
    }
    if (to == 'K' && model->state != 'I') { /* wherever it comes, see field note 14 */
        push_ends(model, true);
        model->state = 'K';
        model->held = -1;
        return 0;
    }
    const bool interrupted = model->state == 'U' && model->before != 'I';
    if (!(interrupted
              ? follows(model, model->before, to) || (!has("HM", to) && follows(model, 'U', to))
              : follows(model, model->state, to))) {
        push_ends(model, false);
        model->state = 'H';
        if (!follows(model, 'H', to))
            return 0;
    }
    if (to == 'A') {
        push_ends(model, false);
        model->state = 'A';
        return 0;
    }
    if (to == 'E' && model->len)
        push(model, MKIT_BODY);
    push(model, row_of(to)->step);
    return 0;
}

/* Finds the next packet. Returns 1, 0 if more bytes are needed, or an error. */
static int next_packet(struct model *model)
{
    const uint8_t *at = model->stream + model->taken;
    const size_t left = model->arrived - model->taken;
    if (left >= 4 && number(at) == 0)
        return MKIT_EPROTOCOL;
    if (left < 5)
        return 0;
    const size_t len = number(at);
    if (len - 1 > model->limits.packet)
        return MKIT_ELIMIT;
    if (left - 4 < len)
        return 0;
    model->command = at[4];
    model->data = at + 5;
    model->len = len - 1;
    model->taken += 4 + len;
    return 1;
}

/* ------------------------------------------------------------------------------------ answers */

static void expect(struct model *model, char reply)
{
    CHECK(model->finals_count < MODEL_FINALS);
    model->finals[model->finals_count++] = reply;
}

/* The reply to a refusal has a text if one of its class is set. */
static void expect_verdict(struct model *model, int verdict)
{
    static const char letters[] = "crdat?\0?s";
    const char wanted = verdict == MKIT_REJECT ? '5' : verdict == MKIT_TEMPFAIL ? '4' : 0;
    if (wanted && model->reply == wanted) {
        expect(model, 'y');
        model->reply = 0;
    } else {
        expect(model, letters[verdict]);
    }
}

static bool is_final(int verdict)
{
    return verdict == MKIT_REJECT || verdict == MKIT_DISCARD || verdict == MKIT_ACCEPT ||
           verdict == MKIT_TEMPFAIL;
}

/* The verdict that a callback's result stands for; -1: no answer at all. */
static int verdict_of(const struct model *model, int result)
{
    static const int on_failure[] = {MKIT_TEMPFAIL, MKIT_REJECT, MKIT_ACCEPT, MKIT_CONTINUE};
    if ((result >= 0 && result <= MKIT_TEMPFAIL) || result == MKIT_NOREPLY || result == MKIT_SKIP)
        return result;
    return result >= 0 && !model->strict ? -1 : on_failure[model->filter->on_failure];
}

/* What goes out for a verdict (sheet 3.5; docs/differences.md). Returns whether it is held back. */
static bool send_reply(struct model *model, int verdict)
{
    const uint32_t no_reply = row_of(model->state)->no_reply & model->protocol;
    const bool emulated = no_reply & model->emulated;
    if (model->strict && verdict == MKIT_SKIP &&
        (!(model->protocol & MKIT_SKIPPING) || !has("LNB", model->state)))
        verdict = MKIT_CONTINUE;
    const bool said_anyway = model->strict && emulated && is_final(verdict);
    if (no_reply && !said_anyway) {
        if (emulated)
            expect(model, 'c');
        const bool hold =
            model->state == 'U' ? verdict == MKIT_ACCEPT && in_message(model) : is_final(verdict);
        if (!model->strict || !hold)
            return false;
        model->held = verdict;
        model->held_always = has("IOCH", model->state);
        return true;
    }
    if (verdict == MKIT_NOREPLY && !model->strict)
        return false;
    expect_verdict(model, verdict == MKIT_NOREPLY ? MKIT_CONTINUE : verdict);
    return false;
}

static void answer_step(struct model *model, enum mkit_step step, int verdict)
{
    if (step == MKIT_BODY && model->state == 'E') { /* its reply is that of eom */
        if (!is_final(verdict))
            return;
        model->todo_count = 0;
    }
    const bool held = send_reply(model, verdict);
    const bool one_only = has("RU", model->state);
    if (!held && (verdict == MKIT_ACCEPT || (is_final(verdict) && !one_only)))
        model->state = model->state == 'T' ? 'o' : 'H';
}

static uint32_t missing_steps(const struct model *model)
{
    uint32_t bits = 0;
    for (unsigned i = 0; i < ROWS; i++)
        if (rows[i].step != MKIT_STEPS && !model->filter->on[rows[i].step])
            bits |= rows[i].omit;
    return bits;
}

/* What the filter is offered (sheet 2.4, 2.5). */
static void offer(struct model *model)
{
    const uint32_t version = number(model->data);
    const uint32_t actions = number(model->data + 4);
    const uint32_t protocol = number(model->data + 8);
    struct mkit_options *options = &model->options;
    options->version = version;
    options->offered_actions = actions ? actions : 0xf;
    options->offered_protocol = (protocol ? protocol : 0x3f) & 0x8fffffff;
    model->emulated = 0xff080 & ~options->offered_protocol;
    options->offered_protocol |= 0xff080;
    options->actions = options->offered_actions;
    options->protocol = missing_steps(model) | (options->offered_protocol & 0x400);
    model->version = version < 6 ? version : 6;
}

/* Settles what the filter asks for. Returns 0 or an error. */
static int negotiated(struct model *model, int verdict, const struct mkit_options *wish)
{
    const struct mkit_options *options = &model->options;
    const uint32_t offered = options->offered_protocol & ~model->emulated;
    uint32_t actions = wish->actions;
    uint32_t protocol = wish->protocol;
    if (!model->filter->on[MKIT_NEGOTIATE]) {
        actions = model->filter->actions;
        protocol = missing_steps(model);
        if (model->strict)
            actions &= options->offered_actions;
    } else if (verdict == MKIT_ALL_OPTS) {
        actions = options->offered_actions;
        protocol = missing_steps(model) | (offered & 0x400);
    } else if (verdict != MKIT_CONTINUE) {
        return MKIT_EINVAL;
    }
    if (actions & ~options->offered_actions)
        return MKIT_EACTION;
    if (protocol & ~offered & ~0xff380U)
        return MKIT_EINVAL;
    model->actions = actions & 0x1ff;
    model->protocol = protocol & 0x1fffff;
    expect(model, 'O');
    return 0;
}

int model_answer(struct model *model, int result, const struct mkit_options *options)
{
    const enum mkit_step step = model->asked;
    model->asked = MKIT_STEPS;
    if (step == MKIT_ABORT || step == MKIT_CLOSE || model->ending)
        return 0;
    if (step == MKIT_NEGOTIATE)
        return negotiated(model, result, options);
    const int verdict = verdict_of(model, result);
    if (verdict >= 0)
        answer_step(model, step, verdict);
    return 0;
}

bool model_awaits(const struct model *model, enum mkit_step step)
{
    return !(row_of_step(step)->no_reply & model->protocol & ~model->emulated);
}

/* ------------------------------------------------------------------------------------- events */

static bool answered_by_held(const struct model *model)
{
    return model->held >= 0 && !has("IOC", model->state);
}

/* Answers a step that the filter is not asked about. */
static int answer_for_filter(struct model *model, enum mkit_step step)
{
    const struct row *row = row_of(model->state);
    const bool silent = row->no_reply & model->protocol & ~model->emulated;
    const bool held = answered_by_held(model);
    int verdict = row->no_reply & model->protocol ? MKIT_NOREPLY : MKIT_CONTINUE;
    if (held && !silent)
        verdict = model->held;
    model->asked = step;
    const int error = model_answer(model, verdict, &model->options);
    if (held && model->state == 'H' && !model->held_always)
        model->held = -1;
    return error;
}

/* Begins a step. Returns MKIT_EVENT, 0 if the filter is not asked, or an error. */
static int begin_step(struct model *model, enum mkit_step step)
{
    if (step == MKIT_ABORT || step == MKIT_CLOSE) {
        if (step == MKIT_CLOSE)
            model->close_owed = false;
        if (!model->filter->on[step])
            return 0;
        model->asked = step;
        return MKIT_EVENT;
    }
    const char to = (char)model->command;
    if (!(step == MKIT_EOM && model->state == 'E')) {
        if (to == 'U') {
            const char from = model->state == 'U' ? model->before : model->state;
            model->before = has("MRTLNB", from) ? from : 'I';
        }
        if (has("MRTLNB", to) && !in_message(model))
            model->recipients = model->header_bytes = 0;
        model->state = to;
        model->close_owed = true;
    }
    if (to == 'R' && ++model->recipients > model->limits.recipients)
        return MKIT_ELIMIT;
    if (to == 'L' && (model->header_bytes += model->len) > model->limits.header_bytes)
        return MKIT_ELIMIT;
    const bool wanted = model->filter->on[step] && !answered_by_held(model);
    if ((wanted || to == 'O') && !is_sound(model))
        return MKIT_EPROTOCOL;
    if (to == 'O')
        offer(model);
    if (!wanted)
        return answer_for_filter(model, step);
    model->asked = step;
    return MKIT_EVENT;
}

int model_next(struct model *model, enum mkit_step *step)
{
    for (;;) {
        int result;
        if (model->todo_count) {
            *step = model->todo[0];
            model->todo_count--;
            memmove(model->todo, model->todo + 1, model->todo_count * sizeof *model->todo);
            result = begin_step(model, *step);
            if (result == MKIT_EVENT)
                return MKIT_EVENT;
        } else if (model->ending) {
            return model->error ? model->error : MKIT_CLOSED;
        } else {
            result = next_packet(model);
            if (result == 0 && !model->eof)
                return MKIT_NEED_INPUT;
            if (result == 0)
                model_end(model, 0);
            else if (result > 0)
                result = take_packet(model);
        }
        if (result < 0)
            model_end(model, result);
    }
}
