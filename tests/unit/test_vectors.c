/* Runs session.vectors, whose head says how it reads: every vector in each degree, whole, byte by
 * byte, and followed by the start of a further packet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"
#include "wire/protocol.h"

enum way { WHOLE, BYTE_BY_BYTE, TRAILING, WAYS };
enum { MAX_LINES = 4000, MAX_ARGS = 40, DEGREES = 2 };

static const char *const way_names[WAYS] = {"whole", "byte by byte", "trailing"};
static const char *const degree_names[DEGREES] = {
    [MKIT_STRICT] = "strict", [MKIT_COMPATIBLE] = "compatible"};

static char *lines[MAX_LINES];
static size_t line_count;

/* One vector, one degree, one way. */
struct run {
    size_t first, last; /* its lines, without the title */
    enum mkit_degree degree;
    enum way way;
};

/* ------------------------------------------------------------------------------- reading a line */

/* Returns what follows `key` if the line has it and is meant for the degree, else NULL. */
static const char *value_of(const char *line, const char *key, enum mkit_degree degree)
{
    for (int d = 0; d < DEGREES; d++) {
        size_t len = strlen(degree_names[d]);
        if (strncmp(line, degree_names[d], len) == 0 && line[len] == ' ') {
            if (d != (int)degree)
                return NULL;
            line += len + 1;
        }
    }
    size_t len = strlen(key);
    if (strncmp(line, key, len) != 0 || (line[len] != ' ' && line[len] != '\0'))
        return NULL;
    return line + len + strspn(line + len, " ");
}

/* Steps through the lines of a run that have a key; *at starts at run->first. */
static const char *next_value(const struct run *run, const char *key, size_t *at)
{
    while (*at < run->last) {
        const char *value = value_of(lines[(*at)++], key, run->degree);
        if (value)
            return value;
    }
    return NULL;
}

static const char *first_value(const struct run *run, const char *key)
{
    size_t at = run->first;
    return next_value(run, key, &at);
}

/* Joins the values of all lines with a key. */
static const char *all_values(const struct run *run, const char *key, char *text, size_t size)
{
    text[0] = '\0';
    size_t at = run->first;
    for (const char *value; (value = next_value(run, key, &at));) {
        size_t len = strlen(text);
        assert_true(strlen(value) + 2 < size - len);
        snprintf(text + len, size - len, "%s%s", len ? " " : "", value);
    }
    return text;
}

static bool next_word(const char **at, char *word, size_t size)
{
    *at += strspn(*at, " ");
    size_t len = strcspn(*at, " ");
    if (len == 0)
        return false;
    assert_true(len < size);
    memcpy(word, *at, len);
    word[len] = '\0';
    *at += len;
    return true;
}

static enum mkit_step step_named(const char *name)
{
    for (unsigned step = 0; step < MKIT_STEPS; step++)
        if (strcmp(mkit_step_name((enum mkit_step)step), name) == 0)
            return (enum mkit_step)step;
    fail_msg("no step %s", name);
    return MKIT_STEPS;
}

static int verdict_named(const char *name)
{
    for (int verdict = 0; verdict <= MKIT_ALL_OPTS; verdict++)
        if (mkit_verdict_name(verdict) && strcmp(mkit_verdict_name(verdict), name) == 0)
            return verdict;
    char *end;
    long number = strtol(name, &end, 10);
    if (end == name || *end)
        fail_msg("no verdict %s", name);
    return (int)number;
}

static int error_named(const char *name)
{
    for (int error = 0; error >= MKIT_ETHREAD; error--)
        if (strcmp(mkit_error_name(error) + strlen("MKIT_"), name) == 0)
            return error;
    fail_msg("no error %s", name);
    return 0;
}

/* --------------------------------------------------------------------------------- calls (`do`) */

struct call {
    char words[MAX_ARGS][16]; /* the call itself, then its short arguments */
    const char *args[MAX_ARGS];
    size_t lens[MAX_ARGS];
    size_t count;
    const char *result; /* what follows the equals sign */
};

/* Reads the arguments: "quoted", NULL, c*number, or a plain word. */
static void parse_args(const char *at, struct call *call)
{
    static char pool[1 << 20];
    size_t used = 0;
    for (at += strspn(at, " "); *at && *at != '='; at += strspn(at, " ")) {
        char *to = pool + used;
        size_t len = strcspn(at, " ");
        call->args[call->count] = to;
        if (*at == '"') {
            const char *end = strchr(at + 1, '"');
            assert_non_null(end);
            call->lens[call->count] = rig_unescape(at + 1, (size_t)(end - at - 1), (uint8_t *)to);
            at = end + 1;
        } else if (len > 2 && at[1] == '*') {
            call->lens[call->count] = strtoul(at + 2, NULL, 10);
            memset(to, *at, call->lens[call->count]);
            at += len;
        } else {
            memcpy(to, at, len);
            call->lens[call->count] = len;
            if (len == 4 && memcmp(at, "NULL", 4) == 0)
                call->args[call->count] = NULL;
            at += len;
        }
        to[call->lens[call->count]] = '\0';
        used += call->lens[call->count] + 1;
        assert_true(used < sizeof pool && call->count + 1 < MAX_ARGS);
        call->count++;
    }
    if (*at != '=')
        fail_msg("a call without a result: %s", at);
    call->result = at + 1 + strspn(at + 1, " ");
}

static int make_call(struct mkit_session *session, const char *name, const struct call *call)
{
    const char *a = call->args[0];
    const char *b = call->args[1];
    const char *c = call->args[2];
#define IS(text) (strcmp(name, text) == 0)
    if (IS("addheader"))
        return mkit_addheader(session, a, b);
    if (IS("insheader"))
        return mkit_insheader(session, atoi(a), b, c);
    if (IS("chgheader"))
        return mkit_chgheader(session, a, atoi(b), c);
    if (IS("addrcpt"))
        return mkit_addrcpt(session, a);
    if (IS("addrcpt_par"))
        return mkit_addrcpt_par(session, a, b);
    if (IS("delrcpt"))
        return mkit_delrcpt(session, a);
    if (IS("chgfrom"))
        return mkit_chgfrom(session, a, b);
    if (IS("quarantine"))
        return mkit_quarantine(session, a);
    if (IS("progress"))
        return mkit_progress(session);
    if (IS("replacebody"))
        return mkit_replacebody(session, a, b ? strtoul(b, NULL, 10) : call->lens[0]);
    if (IS("setreply"))
        return mkit_setreply(session, a, b, call->args + 2, call->count > 2 ? call->count - 2 : 0);
    if (IS("setsymlist"))
        return mkit_setsymlist(session, atoi(a), b);
#undef IS
    fail_msg("no call %s", name);
    return 0;
}

static void do_call(struct mkit_session *session, const char *line)
{
    const char *at = line;
    char name[20];
    struct call call = {.count = 0};
    assert_true(next_word(&at, name, sizeof name));
    parse_args(at, &call);
    if (strcmp(name, "getsymval") == 0) {
        const char *value = mkit_getsymval(session, call.args[0]);
        char shown[100];
        snprintf(shown, sizeof shown, value ? "\"%s\"" : "NULL", value ? value : "");
        if (strcmp(shown, call.result) != 0)
            fail_msg("%s: it is %s", line, shown);
        return;
    }
    int result = make_call(session, name, &call);
    if (result != error_named(call.result))
        fail_msg("%s: it is %s (%s)", line, mkit_error_name(result), mkit_session_why(session));
    if (result)
        assert_memory_equal(mkit_session_why(session), name, strcspn(name, "_"));
}

/* ----------------------------------------------------------------------------------- a callback */

static int answer(struct rig *rig, const struct mkit_event *event)
{
    const struct run *run = rig->data;
    const char *step = mkit_step_name(event->step);
    const unsigned nth = rig->seen[event->step];
    char word[40];
    size_t at = run->first;
    for (const char *value; (value = next_value(run, "do", &at));) {
        assert_true(next_word(&value, word, sizeof word));
        char *hash = strchr(word, '#');
        if (hash)
            *hash = '\0';
        (void)step_named(word);
        if (strcmp(word, step) == 0 && (!hash || strtoul(hash + 1, NULL, 10) == nth))
            do_call(rig->session, value);
    }
    if (event->step == MKIT_NEGOTIATE) {
        const char *value = first_value(run, "negotiate");
        assert_true(next_word(&value, word, sizeof word));
        int verdict = verdict_named(word);
        if (next_word(&value, word, sizeof word))
            event->of.options->actions = (uint32_t)strtoul(word, NULL, 0);
        if (next_word(&value, word, sizeof word))
            event->of.options->protocol = (uint32_t)strtoul(word, NULL, 0);
        return verdict;
    }
    at = run->first;
    for (const char *value; (value = next_value(run, "answer", &at));) {
        assert_true(next_word(&value, word, sizeof word));
        if (step_named(word) != event->step)
            continue;
        for (unsigned i = 0; i < nth && next_word(&value, word, sizeof word); i++)
            ;
        return verdict_named(word);
    }
    return MKIT_CONTINUE;
}

/* ------------------------------------------------------------------------------------- a vector */

static void set_callbacks(struct rig *rig, const struct run *run)
{
    static mkit_callback *kept[MKIT_STEPS];
    memcpy(kept, rig->filter.on, sizeof kept);
    char word[20];
    const char *value = first_value(run, "only");
    if (value) {
        memset(rig->filter.on, 0, sizeof rig->filter.on);
        rig->filter.on[MKIT_CLOSE] = kept[MKIT_CLOSE];
        while (next_word(&value, word, sizeof word))
            rig->filter.on[step_named(word)] = kept[step_named(word)];
    }
    value = first_value(run, "without");
    while (value && next_word(&value, word, sizeof word))
        rig->filter.on[step_named(word)] = NULL;
    if (first_value(run, "negotiate"))
        rig->filter.on[MKIT_NEGOTIATE] = kept[MKIT_CLOSE];
}

static void set_limits(struct rig *rig, const struct run *run)
{
    const char *value = first_value(run, "limit");
    char name[20];
    if (!value)
        return;
    assert_true(next_word(&value, name, sizeof name));
    struct mkit_limits *limits = &rig->filter.limits;
    size_t *field = strcmp(name, "packet") == 0       ? &limits->packet
                    : strcmp(name, "macros") == 0     ? &limits->macros
                    : strcmp(name, "recipients") == 0 ? &limits->recipients
                    : strcmp(name, "headers") == 0    ? &limits->header_bytes
                                                      : NULL;
    assert_non_null(field);
    *field = strtoul(value, NULL, 10);
}

/* Feeds the input in the run's way. Returns whether the input is ended by it. */
static bool feed_input(struct rig *rig, const struct run *run)
{
    static uint8_t bytes[1 << 19];
    static char text[1 << 13];
    (void)all_values(run, "in", text, sizeof text);
    char *eof = strstr(text, "eof");
    if (eof)
        *eof = '\0';
    size_t len = rig_bytes(rig, text, false, bytes, sizeof bytes - 16);
    if (run->way == BYTE_BY_BYTE) {
        for (size_t i = 0; i < len; i++) {
            uint8_t byte = bytes[i]; /* nothing may be read after it is used up */
            rig_feed(rig, &byte, 1);
        }
    } else {
        if (run->way == TRAILING) {
            memcpy(bytes + len, "\0\0\0\x05Mx", 6);
            len += 6;
        }
        rig_feed(rig, bytes, len);
        memset(bytes, 0xee, len);
    }
    if (eof) {
        mkit_session_eof(rig->session);
        rig_run(rig);
    }
    return eof || strstr(text, " Q");
}

static void expect_end(const struct rig *rig, const char *expected, bool ended)
{
    if (!expected)
        expected = ended ? "closed" : "open";
    int want = strcmp(expected, "open") == 0     ? (int)MKIT_NEED_INPUT
               : strcmp(expected, "closed") == 0 ? (int)MKIT_CLOSED
                                                 : error_named(expected);
    if (rig->result != want)
        fail_msg("the session's end: want %s, got %d: %s", expected, rig->result,
                 mkit_session_why(rig->session));
}

static void expect_texts(const struct rig *rig, const struct run *run)
{
    size_t at = run->first;
    for (const char *value; (value = next_value(run, "log", &at));)
        if (!strstr(rig->log, value))
            fail_msg("log: want %s\ngot %s", value, rig->log);
    if (first_value(run, "nolog"))
        assert_string_equal(rig->log, "");
    const char *why = first_value(run, "why");
    if (why && !strstr(mkit_session_why(rig->session), why))
        fail_msg("why: want %s\ngot %s", why, mkit_session_why(rig->session));
}

static void run_vector(void **state)
{
    static struct rig rig;
    struct run *run = *state;
    char text[1 << 12];
    rig_open(&rig, run->degree);
    const char *value = first_value(run, "flags");
    if (value)
        rig.filter.actions = (uint32_t)strtoul(value, NULL, 0);
    set_callbacks(&rig, run);
    set_limits(&rig, run);
    rig.answer = answer;
    rig.data = run;
    if (first_value(run, "debug"))
        rig.filter.log_level = MKIT_LOG_DEBUG;
    rig_start(&rig);

    bool ended = feed_input(&rig, run);
    expect_texts(&rig, run);
    expect_end(&rig, first_value(run, "end"), ended);
    if (first_value(run, "out"))
        rig_expect_out(&rig, all_values(run, "out", text, sizeof text));
    if (first_value(run, "cb")) {
        uint8_t plain[1 << 12];
        (void)all_values(run, "cb", text, sizeof text);
        plain[rig_unescape(text, strlen(text), plain)] = '\0';
        rig_expect_events(&rig, (const char *)plain);
    }
    rig.answer = NULL;
    rig_close(&rig);
}

/* ------------------------------------------------------------------------------------- the file */

static bool is_known(const char *line)
{
    static const char *const keys[] = {
        "flags", "only", "without", "limit", "failure", "negotiate", "answer", "do",    "in",
        "out",   "cb",   "end",     "log",   "nolog",   "debug",     "why",    "degree"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        for (int degree = 0; degree < DEGREES; degree++)
            if (value_of(line, keys[i], (enum mkit_degree)degree))
                return true;
    return false;
}

static bool read_lines(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    char *line = NULL;
    size_t size = 0;
    for (ssize_t len; (len = getline(&line, &size, file)) > 0;) {
        if (line[len - 1] == '\n')
            line[--len] = '\0';
        if (len == 0 || *line == '#')
            continue;
        if (strncmp(line, "== ", 3) != 0 && !is_known(line)) {
            fprintf(stderr, "%s: what is this? %s\n", path, line);
            return false;
        }
        if (line_count == MAX_LINES)
            return false;
        lines[line_count++] = strdup(line);
    }
    free(line);
    (void)fclose(file);
    return true;
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[MAX_LINES];
    static struct run runs[MAX_LINES];
    static char names[MAX_LINES][160];
    size_t count = 0;
    if (argc != 2 || !read_lines(argv[1])) {
        fprintf(stderr, "usage: test_vectors FILE (that can be read)\n");
        return 2;
    }
    for (size_t i = 0; i < line_count; i++) {
        if (strncmp(lines[i], "== ", 3) != 0)
            continue;
        size_t last = i + 1;
        while (last < line_count && strncmp(lines[last], "== ", 3) != 0)
            last++;
        for (int degree = 0; degree < DEGREES; degree++) {
            for (int way = 0; way < WAYS; way++) {
                struct run *run = &runs[count];
                *run = (struct run){i + 1, last, (enum mkit_degree)degree, (enum way)way};
                const char *only = first_value(run, "degree");
                if (only && strcmp(only, degree_names[degree]) != 0)
                    continue;
                snprintf(names[count], sizeof *names, "%s (%s, %s)", lines[i] + 3,
                         degree_names[degree], way_names[way]);
                tests[count] = (struct CMUnitTest){
                    .name = names[count], .test_func = run_vector, .initial_state = run};
                count++;
            }
        }
    }
    int failed = _cmocka_run_group_tests("session.vectors", tests, count, NULL, NULL);
    while (line_count)
        free(lines[--line_count]);
    return failed;
}
