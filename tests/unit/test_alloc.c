/* Every allocation of a rich session fails in turn: nothing crashes, nothing leaks, the failure is
 * told as MKIT_ENOMEM, and the filter still gets its close. The linker puts the functions below in
 * place of the C library's (-Wl,--wrap). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *at, size_t size);
char *__real_strdup(const char *text);
void __real_free(void *at);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *at, size_t size);
char *__wrap_strdup(const char *text);
void __wrap_free(void *at);

/* Allocations are counted while `counting`; the one with number `failing` fails. */
static bool counting;
static size_t done;
static size_t failing;
static long alive;

static bool fails(void)
{
    return counting && ++done == failing;
}

static void *made(void *at)
{
    alive += counting && at;
    return at;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : made(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : made(__real_calloc(count, size));
}

void *__wrap_realloc(void *at, size_t size)
{
    if (fails())
        return NULL;
    const bool fresh = at == NULL;
    at = __real_realloc(at, size);
    return fresh ? made(at) : at;
}

char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : made(__real_strdup(text));
}

void __wrap_free(void *at)
{
    alive -= counting && at;
    __real_free(at);
}

static struct rig rig;
static bool told; /* a call has returned MKIT_ENOMEM */

static int note(int result)
{
    if (result == MKIT_ENOMEM) {
        told = true;
        assert_non_null(strstr(mkit_session_why(rig.session), "no memory"));
    } else {
        assert_int_equal(result, 0);
    }
    return result;
}

/* A filter that gives up at its first failing call. */
static int use_everything(struct rig *bench, const struct mkit_event *event)
{
    struct mkit_session *session = bench->session;
    static const char *const lines[] = {"one", "two"};
    static char large[70000];
    static char reason[65000];
    memset(reason, 'x', sizeof reason - 1);
    int result = 0;
    if (told && event->step < MKIT_ABORT) /* the call before said so: this must be another step */
        return MKIT_CONTINUE;
    switch (event->step) {
    case MKIT_NEGOTIATE:
        result = note(mkit_setsymlist(session, MKIT_STAGE_CONNECT, "j {x}"));
        result = result ? result : note(mkit_setsymlist(session, MKIT_STAGE_EOM, "i"));
        return result ? result : MKIT_ALL_OPTS;
    case MKIT_RCPT:
        result = note(mkit_setreply(session, "550", "5.7.1", lines, 2));
        return result ? result : MKIT_REJECT;
    case MKIT_EOM:
        if (!result)
            result = note(mkit_addheader(session, "X", "a\r\n b"));
        if (!result)
            result = note(mkit_replacebody(session, large, sizeof large));
        if (!result)
            result = note(mkit_chgheader(session, "Y", 1, "a\r\n b"));
        if (!result)
            result = note(mkit_quarantine(session, reason)); /* waits for the body's end */
        if (!result)
            result = note(mkit_addrcpt_par(session, "<x@y>", "NOTIFY=NEVER"));
        if (!result)
            result = note(mkit_progress(session));
        return result;
    default: return MKIT_CONTINUE;
    }
}

/* Runs a session with many small and large allocations. */
static void run_session(void)
{
    rig_start(&rig);
    if (!rig.session) {
        told = true;
        return;
    }
    static uint8_t bytes[1 << 18];
    size_t len = rig_bytes(&rig, "O 6:DCj\\0c\\0 C H M 7:DMi\\0Q1\\0 R big:B40000 E M", false,
                           bytes, sizeof bytes);
    for (size_t at = 0; at < len && rig.result >= 0;) { /* split everywhere, kept now and then */
        size_t part = at % 3 == 0 ? 1 : 977;
        if (part > len - at)
            part = len - at;
        if (mkit_session_feed(rig.session, bytes + at, part) == 0 && part == 1)
            told = mkit_session_keep_input(rig.session) == MKIT_ENOMEM || told;
        rig_run(&rig);
        at += part;
    }
    if (rig.result < 0) {
        told = told || rig.result == MKIT_ENOMEM;
        /* A negotiate callback that failed for want of memory ends the session by its own error. */
        assert_true(rig.result == MKIT_ENOMEM || rig.seen[MKIT_CONNECT] == 0);
    }
    rig_close(&rig);
    assert_int_equal(rig.seen[MKIT_CLOSE], 1);
}

static void every_allocation_fails_in_turn(void **state)
{
    const enum mkit_degree degree = *(const enum mkit_degree *)*state;
    size_t runs = 0;
    for (failing = 1;; failing++, runs++) {
        rig_open(&rig, degree);
        rig.filter.actions = MKIT_ALL_ACTIONS;
        rig.filter.on[MKIT_NEGOTIATE] = rig.filter.on[MKIT_CLOSE];
        rig.answer = use_everything;
        told = false;
        alive = 0;
        done = 0;
        counting = true;
        run_session();
        counting = false;
        assert_int_equal(alive, 0);
        assert_int_equal(told, done >= failing);
        if (done < failing)
            break;
    }
    assert_true(runs > 15);
    assert_int_equal(rig.seen[MKIT_EOM], 1); /* the last run had all it wanted */
    assert_int_equal(rig.seen[MKIT_MAIL], 2);
}

int main(void)
{
    static enum mkit_degree strict = MKIT_STRICT;
    static enum mkit_degree compatible = MKIT_COMPATIBLE;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(every_allocation_fails_in_turn, &strict),
        cmocka_unit_test_prestate(every_allocation_fails_in_turn, &compatible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
