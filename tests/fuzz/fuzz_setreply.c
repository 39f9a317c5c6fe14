/* Replies that a filter sets, any codes and lines, in both degrees.
 * Invariants. Strict: what is accepted goes out as a well-formed SMTP reply by the rules below,
 * which are those of RFC 5321 (4.2), RFC 3463 (2) and of the MTAs (sheet 8), not the code's.
 * Compatible: a reply is accepted if and only if sheet 5.3 accepts it, and its bytes are the ones
 * that section gives. A call that is refused leaves the earlier reply in place. */
#include "fuzz.h"

#include <regex.h>

#include "wire/protocol.h"

enum { MAX_COUNT = 40 };

/* A call's arguments. */
struct call {
    char *rcode;
    char *xcode;
    char *lines[MAX_COUNT];
    size_t count;
};

static int present(struct mkit_session *session, const struct mkit_event *event)
{
    (void)session;
    (void)event;
    return MKIT_CONTINUE;
}

/* ---------------------------------------------------------------------------------- the rules */

/* Whether a text matches a pattern of POSIX, which is compiled once. */
static bool matches(const char *text, regex_t *compiled, const char *pattern)
{
    if (!compiled->re_nsub)
        CHECK(regcomp(compiled, pattern, REG_EXTENDED) == 0);
    return text && regexec(compiled, text, 0, NULL, 0) == 0;
}

static bool rule_rcode(const char *code)
{
    static regex_t compiled;
    return matches(code, &compiled, "^([45])[0-9][0-9]$");
}

static bool rule_xcode(const char *code)
{
    static regex_t compiled;
    return !code || matches(code, &compiled, "^([245])(\\.[0-9]{1,3}){2}$");
}

static bool compatible_accepts(const struct call *call)
{
    if (!rule_rcode(call->rcode) || !rule_xcode(call->xcode) || call->count > 32)
        return false;
    for (size_t i = 0; i < call->count; i++)
        if (call->lines[i] && (strlen(call->lines[i]) > 980 || strchr(call->lines[i], '\r') ||
                               strchr(call->lines[i], '\n')))
            return false;
    return true;
}

/* The text that sheet 5.3 builds. No line at all and a single missing one are the same. Strict: a
 * single line that begins with another class's digit gets x.0.0 too (docs/differences.md). */
static size_t reply_text(const struct call *call, enum mkit_degree degree, char *to, size_t size)
{
    size_t n = 0;
    char none[] = "5.0.0";
    none[0] = *call->rcode;
    const char first = call->count == 1 && call->lines[0] ? *call->lines[0] : '\0';
    const bool doubtful =
        degree == MKIT_STRICT && first >= '0' && first <= '9' && first != *call->rcode;
    const char *xcode = call->xcode ? call->xcode : call->count > 1 || doubtful ? none : "";
    for (size_t i = 0; i < call->count || i == 0; i++) {
        const bool last = i + 1 >= call->count;
        const char *line = i < call->count ? call->lines[i] : NULL;
        n += (size_t)snprintf(to + n, size - n, "%s%s%s", call->rcode, last ? " " : "-", xcode);
        if (*xcode && (line || !last))
            n += (size_t)snprintf(to + n, size - n, " ");
        n += (size_t)snprintf(to + n, size - n, "%s%s", line ? line : "", last ? "" : "\r\n");
    }
    return n;
}

/* What an SMTP client and both MTAs take as a reply: at most 32 lines that end by CR LF but the
 * last, each with the same code, `-` on all but the last, at most 1000 bytes, no control bytes,
 * every % doubled. A text that begins with a digit is to Postfix an enhanced code, which must be of
 * the code's class. */
static void check_well_formed(const char *text, size_t len)
{
    CHECK(strlen(text) == len);
    size_t lines = 0;
    for (const char *line = text; line; lines++) {
        const char *end = strstr(line, "\r\n");
        const size_t span = end ? (size_t)(end - line) : strlen(line);
        CHECK(span >= 4 && span <= 1000);
        const char code[] = {line[0], line[1], line[2], '\0'};
        CHECK(rule_rcode(code) && memcmp(line, text, 3) == 0);
        CHECK(line[3] == (end ? '-' : ' '));
        CHECK(span == 4 || line[4] < '0' || line[4] > '9' || line[4] == *line);
        for (size_t i = 4; i < span; i++) {
            CHECK(((uint8_t)line[i] >= ' ' && line[i] != 0x7f) || line[i] == '\t');
            if (line[i] == '%') {
                CHECK(i + 1 < span && line[i + 1] == '%');
                i++;
            }
        }
        line = end ? end + 2 : NULL;
    }
    CHECK(lines >= 1 && lines <= 32);
}

/* ---------------------------------------------------------------------------------- the calls */

/* Makes a session that waits for the answer to MAIL. */
static struct mkit_session *session_at_mail(const struct mkit_filter *filter)
{
    static const uint8_t bytes[] = "\0\0\0\x0dO\0\0\0\6\0\0\1\xff\0\x1f\xff\xff\0\0\0\5M<a>";
    struct mkit_session *session = mkit_session_new(filter);
    struct mkit_event event;
    CHECK(session && mkit_session_feed(session, bytes, sizeof bytes) == 0);
    CHECK(mkit_session_next(session, &event) == MKIT_EVENT && event.step == MKIT_MAIL);
    const uint8_t *out;
    mkit_session_sent(session, mkit_session_output(session, &out));
    return session;
}

/* Refuses MAIL; returns the reply's text in *text, or 0 if no text goes out. */
static size_t refuse(struct mkit_session *session, const char *rcode, const char **text)
{
    const uint8_t *out;
    struct mkit_packet packet;
    struct mkit_field fields[MKIT_MAX_FIELDS];
    const char *why;
    CHECK(mkit_session_answer(session, *rcode == '5' ? MKIT_REJECT : MKIT_TEMPFAIL) == 0);
    const size_t len = mkit_session_output(session, &out);
    CHECK(mkit_frame_read(out, len, len, &packet, NULL) == (ssize_t)len);
    if (packet.command != MKIT_R_REPLYCODE)
        return 0;
    CHECK(mkit_decode(MKIT_TO_MTA, &packet, fields, &why) == 1);
    *text = fields[0].text.at;
    return fields[0].text.len;
}

static int set_reply(struct mkit_session *session, const struct call *call)
{
    return mkit_setreply(session, call->rcode, call->xcode, (const char *const *)call->lines,
                         call->count);
}

static void check_degree(const struct call *call, enum mkit_degree degree)
{
    struct mkit_filter filter = {.degree = degree, .on[MKIT_MAIL] = present};
    struct mkit_session *session = session_at_mail(&filter);
    static const char earlier[] = "550 5.7.1 earlier";
    static const char *const line[] = {"earlier"};
    CHECK(mkit_setreply(session, "550", "5.7.1", line, 1) == 0);
    const int error = set_reply(session, call);
    const char *text = "";
    if (error) {
        CHECK(error == MKIT_EINVAL || error == MKIT_ETEXT);
        CHECK(*mkit_session_why(session));
        CHECK(refuse(session, "550", &text) == strlen(earlier) && strcmp(text, earlier) == 0);
        CHECK(degree == MKIT_STRICT || !compatible_accepts(call));
    } else {
        static char expected[64 * 1024];
        const size_t len = refuse(session, call->rcode, &text);
        CHECK(compatible_accepts(call)); /* strict takes nothing that the other would not */
        CHECK(len == reply_text(call, degree, expected, sizeof expected));
        CHECK(memcmp(text, expected, len) == 0);
        if (degree == MKIT_STRICT) {
            check_well_formed(text, len);
            CHECK(!call->xcode || *call->xcode == *call->rcode);
        }
    }
    mkit_session_free(session);
}

/* The input's next text, up to a NUL; NULL if it begins with 0xff. In a buffer of its own. */
static char *next_text(const uint8_t **data, size_t *size)
{
    const uint8_t *end = *size ? memchr(*data, 0, *size) : NULL;
    const size_t len = end ? (size_t)(end - *data) : *size;
    char *text = NULL;
    if (len != 1 || **data != 0xff) {
        text = (char *)malloc(len + 1);
        if (len)
            memcpy(text, *data, len);
        text[len] = '\0';
    }
    *data += len;
    *size -= len;
    if (*size) {
        ++*data;
        --*size;
    }
    return text;
}

/* The input: reply code, enhanced code and lines, separated by NUL; the single byte 0xff stands for
 * a NULL pointer. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct call call = {.count = 0};
    call.rcode = next_text(&data, &size);
    call.xcode = next_text(&data, &size);
    while (size && call.count < MAX_COUNT)
        call.lines[call.count++] = next_text(&data, &size);
    check_degree(&call, MKIT_STRICT);
    check_degree(&call, MKIT_COMPATIBLE);
    free(call.rcode);
    free(call.xcode);
    for (size_t i = 0; i < call.count; i++)
        free(call.lines[i]);
    return 0;
}
