/* The test bench of sessions: see rig.h. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"
#include "wire/bytes.h"
#include "wire/protocol.h"

/* ------------------------------------------------------------------------------------- notation */

static const struct alias {
    const char *name;
    const char *stands_for;
} commands[] = {
    {"O", "13:O\\0\\0\\0\\x06\\0\\0\\x01\\xff\\0\\x1f\\xff\\xff"},
    {"C", "24:Clocalhost\\x004\\x04\\xd2127.0.0.1\\0"},
    {"C2", "17:Ch2\\x004\\x04\\xd2127.0.0.1\\0"},
    {"H", "4:Hme\\0"},
    {"G", "O C H"},
    {"M", "7:M<a@b>\\0"},
    {"R", "7:R<c@d>\\0"},
    {"T", "1:T"},
    {"L", "12:LSubject\\0hi\\0"},
    {"N", "1:N"},
    {"B", "7:Bbody\\r\\n"},
    {"E", "1:E"},
    {"U", "5:UFOO\\0"},
    {"A", "1:A"},
    {"K", "1:K"},
    {"Q", "1:Q"},
};

/* The NO* bit of each step, by the sheet's section 2.3. */
static const struct {
    enum mkit_step step;
    uint32_t bit;
} omissions[] = {
    {MKIT_CONNECT, 0x1}, {MKIT_HELO, 0x2},      {MKIT_MAIL, 0x4},
    {MKIT_RCPT, 0x8},    {MKIT_BODY, 0x10},     {MKIT_HEADER, 0x20},
    {MKIT_EOH, 0x40},    {MKIT_UNKNOWN, 0x100}, {MKIT_DATA, 0x200},
};

size_t rig_unescape(const char *from, size_t len, uint8_t *to)
{
    size_t n = 0;
    for (const char *end = from + len; from < end; from++) {
        if (*from != '\\') {
            to[n++] = (uint8_t)*from;
            continue;
        }
        switch (*++from) {
        case '0': to[n++] = 0; break;
        case 'r': to[n++] = '\r'; break;
        case 'n': to[n++] = '\n'; break;
        case 't': to[n++] = '\t'; break;
        case '\\': to[n++] = '\\'; break;
        case 'x': {
            char digits[3] = {from[1], from[2], 0};
            to[n++] = (uint8_t)strtoul(digits, NULL, 16);
            from += 2;
            break;
        }
        default: fail_msg("unknown escape \\%c", *from);
        }
    }
    return n;
}

/* How many characters of notation the next `bytes` bytes take. */
static size_t span_of(const char *from, size_t bytes)
{
    const char *at = from;
    for (; bytes; bytes--) {
        if (*at == '\0')
            fail_msg("a packet is shorter than it says: %.60s", from);
        at += *at != '\\' ? 1 : at[1] == 'x' ? 4 : 2;
    }
    return (size_t)(at - from);
}

static size_t put_negotiated(const struct rig *rig, uint8_t *to)
{
    uint32_t protocol = 0;
    for (size_t i = 0; i < sizeof omissions / sizeof *omissions; i++)
        if (!rig->filter.on[omissions[i].step])
            protocol |= omissions[i].bit;
    put_u32(to, 13);
    to[4] = 'O';
    put_u32(to + 5, 6);
    put_u32(to + 9, rig->filter.actions);
    put_u32(to + 13, protocol);
    return 17;
}

/* Writes what a word without a colon stands for. */
static size_t put_word(const struct rig *rig, const char *word, size_t len, bool to_mta,
                       uint8_t *to, size_t size)
{
    if (!to_mta) {
        for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
            if (strlen(commands[i].name) == len && memcmp(commands[i].name, word, len) == 0)
                return rig_bytes(rig, commands[i].stands_for, false, to, size);
    } else if (len == 1 && strchr("acdrtsp", *word)) {
        memcpy(to, "\0\0\0\1", 4);
        to[4] = (uint8_t)*word;
        return 5;
    } else if (len == 1 && (*word == 'O' || *word == 'G')) {
        size_t n = put_negotiated(rig, to);
        return n + (*word == 'G' ? rig_bytes(rig, "c c", true, to + n, size - n) : 0);
    }
    fail_msg("unknown word: %.*s", (int)len, word);
    return 0;
}

size_t rig_bytes(const struct rig *rig, const char *notation, bool to_mta, uint8_t *to, size_t size)
{
    size_t n = 0;
    for (const char *at = notation + strspn(notation, " \t"); *at; at += strspn(at, " \t")) {
        size_t word = strcspn(at, " \t");
        char *colon = NULL;
        unsigned long number = strtoul(at, &colon, 10);
        if (size - n < 1 << 10)
            fail_msg("no room for %.20s", at);
        if (colon > at && *colon == ':') {
            size_t span = span_of(colon + 1, number);
            put_u32(to + n, (uint32_t)number);
            n += 4 + rig_unescape(colon + 1, span, to + n + 4);
            at = colon + 1 + span;
            if (*at && *at != ' ' && *at != '\t')
                fail_msg("a packet is longer than it says: %.60s", notation);
            continue;
        }
        if (strncmp(at, "hex:", 4) == 0) {
            for (size_t i = 4; i + 1 < word; i += 2) {
                char digits[3] = {at[i], at[i + 1], 0};
                to[n++] = (uint8_t)strtoul(digits, NULL, 16);
            }
        } else if (strncmp(at, "big", 3) == 0 && memchr(at, ':', word)) {
            const bool terminated = at[3] == 'z';
            const char *what = strchr(at, ':') + 1;
            size_t count = strtoul(what + 1, NULL, 10);
            assert_true(size - n > count + 6);
            put_u32(to + n, (uint32_t)count + 1 + terminated);
            to[n + 4] = (uint8_t)*what;
            memset(to + n + 5, 'x', count);
            to[n + 5 + count] = 0;
            n += 5 + count + terminated;
        } else {
            n += put_word(rig, at, word, to_mta, to + n, size - n);
        }
        at += word;
    }
    return n;
}

/* ------------------------------------------------------------------------------------ recording */

static void record(struct rig *rig, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t room = sizeof rig->events - rig->events_len;
    int len = vsnprintf(rig->events + rig->events_len, room, format, args);
    va_end(args);
    assert_true(len >= 0 && (size_t)len < room);
    rig->events_len += (size_t)len + 1;
}

/* A text of an event; those that were strings must have their NUL. */
static const char *string(struct mkit_text text)
{
    assert_int_equal(text.at[text.len], 0);
    return text.at;
}

static void record_connect(struct rig *rig, const struct mkit_event *event)
{
    const char *host = string(event->of.connect.host);
    char text[INET6_ADDRSTRLEN];
    switch (event->of.connect.address.sa.sa_family) {
    case AF_INET:
        record(rig, "connect(%s,%s:%u)", host,
               inet_ntop(AF_INET, &event->of.connect.address.in.sin_addr, text, sizeof text),
               ntohs(event->of.connect.address.in.sin_port));
        break;
    case AF_INET6: {
        const struct sockaddr_in6 *in6 = &event->of.connect.address.in6;
        char scope[16] = "";
        if (in6->sin6_scope_id)
            (void)snprintf(scope, sizeof scope, "%%%u", (unsigned)in6->sin6_scope_id);
        record(rig, "connect(%s,[%s%s]:%u)", host,
               inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text), scope,
               ntohs(in6->sin6_port));
        break;
    }
    case AF_UNIX: record(rig, "connect(%s,%s)", host, event->of.connect.address.un.sun_path); break;
    default:
        assert_int_equal(event->of.connect.address.sa.sa_family, AF_UNSPEC);
        record(rig, "connect(%s,-)", host);
    }
}

static void record_event(struct rig *rig, const struct mkit_event *event)
{
    const char *name = mkit_step_name(event->step);
    rig->seen[event->step]++;
    switch (event->step) {
    case MKIT_CONNECT: record_connect(rig, event); break;
    case MKIT_HELO:
    case MKIT_UNKNOWN: record(rig, "%s(%s)", name, string(event->of.text)); break;
    case MKIT_MAIL:
    case MKIT_RCPT: {
        struct mkit_text rest = event->of.args.all;
        char joined[4096] = "";
        size_t count = 0;
        for (const char *arg; (arg = mkit_next_string(&rest)); count++)
            snprintf(joined + strlen(joined), sizeof joined - strlen(joined), "%s%s",
                     count ? "," : "", arg);
        assert_int_equal(count, event->of.args.count);
        record(rig, "%s(%s)", name, joined);
        break;
    }
    case MKIT_HEADER:
        record(rig, "%s(%.100s=%.100s)", name, string(event->of.header.name),
               string(event->of.header.value));
        break;
    case MKIT_BODY: record(rig, "%s(%zu)", name, event->of.body.len); break;
    default: record(rig, "%s", name);
    }
}

static void on_log(void *data, int level, const struct mkit_session *session, const char *line)
{
    struct rig *rig = data;
    assert_non_null(session);
    assert_int_in_range(level, MKIT_LOG_ERROR, MKIT_LOG_DEBUG);
    assert_null(strstr(line, "(null)"));
    size_t len = strlen(line) + 1;
    if (len > sizeof rig->log - rig->log_len)
        return;
    memcpy(rig->log + rig->log_len, line, len);
    rig->log_len += len;
    rig->log[rig->log_len - 1] = '\n';
    rig->log[rig->log_len] = '\0';
}

/* ------------------------------------------------------------------------------------ the bench */

/* The session only looks whether a callback is there: the rig serves the events itself. */
static int present(struct mkit_session *session, const struct mkit_event *event)
{
    (void)session;
    (void)event;
    return MKIT_CONTINUE;
}

void rig_open(struct rig *rig, enum mkit_degree degree)
{
    memset(&rig->filter, 0, sizeof rig->filter);
    rig->filter.degree = degree;
    rig->filter.data = rig;
    rig->filter.log = on_log;
    for (int step = 0; step < MKIT_STEPS; step++)
        rig->filter.on[step] = step == MKIT_NEGOTIATE ? NULL : present;
    rig->session = NULL;
    rig->answer = NULL;
    rig->data = NULL;
    rig->result = 0;
    rig->answered = 0;
    memset(rig->seen, 0, sizeof rig->seen);
    rig->out_len = rig->events_len = rig->log_len = 0;
    rig->log[0] = '\0';
}

void rig_start(struct rig *rig)
{
    rig->session = mkit_session_new(&rig->filter);
}

static void collect_output(struct rig *rig)
{
    const uint8_t *data;
    size_t len = mkit_session_output(rig->session, &data);
    assert_true(len <= sizeof rig->out - rig->out_len);
    if (len)
        memcpy(rig->out + rig->out_len, data, len);
    rig->out_len += len;
    mkit_session_sent(rig->session, len);
}

void rig_run(struct rig *rig)
{
    struct mkit_event event;
    while ((rig->result = mkit_session_next(rig->session, &event)) == MKIT_EVENT ||
           rig->result == MKIT_NEED_OUTPUT) {
        if (rig->result == MKIT_NEED_OUTPUT) {
            collect_output(rig);
            continue;
        }
        record_event(rig, &event);
        int verdict = rig->answer ? rig->answer(rig, &event) : MKIT_CONTINUE;
        rig->answered = mkit_session_answer(rig->session, verdict);
    }
    collect_output(rig);
}

void rig_feed(struct rig *rig, const void *bytes, size_t len)
{
    int error = mkit_session_feed(rig->session, bytes, len);
    assert_true(error == 0 || error == rig->result);
    rig_run(rig);
}

void rig_in(struct rig *rig, const char *notation)
{
    static uint8_t bytes[1 << 19];
    rig_feed(rig, bytes, rig_bytes(rig, notation, false, bytes, sizeof bytes));
}

/* Shows bytes as the notation does, at most `size` characters of it. */
static void show(const uint8_t *bytes, size_t len, char *text, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < len && n + 8 < size; i++)
        n += (size_t)snprintf(text + n, size - n,
                              bytes[i] > ' ' && bytes[i] < 0x7f ? "%c" : "\\x%02x", bytes[i]);
    snprintf(text + n, size - n, "|");
}

void rig_expect_out(struct rig *rig, const char *notation)
{
    static uint8_t want[1 << 20];
    size_t len = rig_bytes(rig, notation, true, want, sizeof want);
    if (len != rig->out_len || memcmp(want, rig->out, len) != 0) {
        char a[600];
        char b[600];
        show(want, len, a, sizeof a);
        show(rig->out, rig->out_len, b, sizeof b);
        fail_msg("bytes out\nwant %s\ngot  %s\nwhy  %s", a, b, mkit_session_why(rig->session));
    }
    rig->out_len = 0;
}

/* Compares one expected event with a recorded one. */
static bool same_event(const char *want, size_t len, const char *got)
{
    if (!memchr(want, '(', len))
        return strcspn(got, "(") == len && memcmp(want, got, len) == 0;
    return strlen(got) == len && memcmp(want, got, len) == 0;
}

static size_t event_span(const char *at)
{
    size_t len = strcspn(at, " (");
    if (at[len] == '(')
        while (at[len] && !(at[len - 1] == ')' && at[len] == ' '))
            len++;
    return len;
}

void rig_expect_events(struct rig *rig, const char *expected)
{
    static char want[1 << 13];
    char *prefix = strstr(expected, "G") == expected ? "G" : "";
    snprintf(want, sizeof want, "%s%s",
             !*prefix                         ? ""
             : rig->filter.on[MKIT_NEGOTIATE] ? "negotiate connect helo"
                                              : "connect helo",
             expected + strlen(prefix));
    const char *got = rig->events;
    const char *end = rig->events + rig->events_len;
    bool same = true;
    const char *at = want + strspn(want, " ");
    for (; *at && same; at += strspn(at, " ")) {
        size_t len = event_span(at);
        same = got < end && same_event(at, len, got);
        at += len;
        got += got < end ? strlen(got) + 1 : 0;
    }
    if (!same || got != end) {
        for (char *nul = rig->events; nul < end; nul++)
            if (*nul == '\0' && nul + 1 < end)
                *nul = ' ';
        fail_msg("events\nwant %s\ngot  %s\nwhy  %s", want, rig->events_len ? rig->events : "",
                 mkit_session_why(rig->session));
    }
    rig->events_len = 0;
}

void rig_close(struct rig *rig)
{
    unsigned closes = rig->seen[MKIT_CLOSE];
    unsigned connects = rig->seen[MKIT_CONNECT];
    mkit_session_end(rig->session);
    rig_run(rig);
    assert_true(rig->result == MKIT_CLOSED || rig->result < 0);
    if (rig->filter.on[MKIT_CLOSE]) {
        assert_true(rig->seen[MKIT_CLOSE] >= 1 && rig->seen[MKIT_CLOSE] <= closes + 1);
        assert_true(rig->seen[MKIT_CLOSE] >= connects);
    }
    assert_false(mkit_session_in_message(rig->session));
    mkit_session_free(rig->session);
    rig->session = NULL;
}
