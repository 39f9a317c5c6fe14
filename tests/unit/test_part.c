/* A session that goes on without a callback: what the new one takes over, and what the callback can
 * still do with the old one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include <cmocka.h>

#include "milterkit.h"

static int on_step(struct mkit_session *session, const struct mkit_event *event)
{
    (void)session;
    (void)event;
    return MKIT_CONTINUE;
}

static struct mkit_filter filter = {
    .actions = MKIT_ALL_ACTIONS,
    .on = {on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step, on_step,
           on_step, on_step},
};

/* Serves events until one of the step comes, which waits for its answer. */
static void serve_until(struct mkit_session *session, enum mkit_step step)
{
    struct mkit_event event;
    for (;;) {
        assert_int_equal(mkit_session_next(session, &event), MKIT_EVENT);
        if (event.step == step)
            return;
        assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), 0);
    }
}

static void expect_output(struct mkit_session *session, const char *bytes, size_t len)
{
    const uint8_t *data;
    assert_int_equal(mkit_session_output(session, &data), len);
    assert_memory_equal(data, bytes, len);
    mkit_session_sent(session, len);
}

/* Feeds all of a message and the next one's sender at once, and stops at its end. */
static struct mkit_session *stopped_in_eom(void)
{
    static const char input[] = "\0\0\0\rO\0\0\0\6\0\0\1\xff\0\x1f\xff\xff"
                                "\0\0\0\5M<a>\0"
                                "\0\0\0\5R<b>\0"
                                "\0\0\0\13DEi\0queue1\0"
                                "\0\0\0\1E"
                                "\0\0\0\5M<c>";
    struct mkit_session *session = mkit_session_new(&filter);
    assert_non_null(session);
    assert_int_equal(mkit_session_feed(session, input, sizeof input), 0); /* with its NUL */
    serve_until(session, MKIT_EOM);
    return session;
}

static void the_new_one_goes_on(void **state)
{
    (void)state;
    struct mkit_session *before = stopped_in_eom();
    mkit_set_private(before, &filter);
    assert_int_equal(mkit_addheader(before, "X", "1"), 0);
    assert_int_equal(mkit_setreply(before, "550", NULL, (const char *[]){"no"}, 1), 0);
    struct mkit_session *after = mkit_session_part(before);
    assert_non_null(after);
    assert_null(mkit_session_part(before)); /* once */
    assert_ptr_equal(mkit_private(after), &filter);
    assert_string_equal(mkit_getsymval(after, "i"), "queue1");
    assert_int_equal(mkit_session_actions(after), MKIT_ALL_ACTIONS);
    /* What waited before goes out, what the callback had begun does not. */
    assert_int_equal(mkit_session_answer(after, MKIT_ETIMEOUT), 0);
    const uint8_t *data;
    const size_t len = mkit_session_output(after, &data);
    assert_true(len > 15);
    assert_memory_equal(data + len - 15, "\0\0\0\1c\0\0\0\1c\0\0\0\1t", 15);
    mkit_session_sent(after, len);
    /* What came behind it is served. */
    serve_until(after, MKIT_MAIL);
    assert_int_equal(mkit_session_answer(after, MKIT_CONTINUE), 0);
    expect_output(after, "\0\0\0\1c", 5);
    mkit_session_free(before);
    mkit_session_free(after);
}

static void the_old_one_is_of_no_use(void **state)
{
    (void)state;
    struct mkit_session *before = stopped_in_eom();
    assert_false(mkit_mta_gone(before));
    struct mkit_session *after = mkit_session_part(before);
    assert_non_null(after);
    const uint8_t *data;
    const size_t waits = mkit_session_output(before, &data);
    assert_true(mkit_mta_gone(before));
    assert_int_equal(mkit_addheader(before, "X", "1"), MKIT_ECLOSED);
    assert_int_equal(mkit_replacebody(before, "x", 1), MKIT_ECLOSED);
    assert_int_equal(mkit_progress(before), MKIT_ECLOSED);
    assert_int_equal(mkit_setreply(before, "450", NULL, NULL, 0), MKIT_ECLOSED);
    assert_non_null(strstr(mkit_session_why(before), "deadline"));
    assert_string_equal(mkit_getsymval(before, "i"), "queue1"); /* reading is harmless */
    assert_int_equal(mkit_session_output(before, &data), waits);
    mkit_session_free(after);
    mkit_session_free(before);
}

/* Not while the callback is inside a call: its flush may be half done. */
static struct mkit_session *parted;

static int flush_and_part(struct mkit_session *session, void *arg)
{
    const uint8_t *data;
    (void)arg;
    parted = mkit_session_part(session);
    mkit_session_sent(session, mkit_session_output(session, &data));
    return 0;
}

static void not_within_a_call(void **state)
{
    (void)state;
    struct mkit_session *session = stopped_in_eom();
    mkit_session_on_flush(session, flush_and_part, NULL);
    parted = session;
    assert_int_equal(mkit_progress(session), 0);
    assert_null(parted);
    struct mkit_session *after = mkit_session_part(session);
    assert_non_null(after);
    const uint8_t *data;
    assert_int_equal(mkit_session_output(after, &data), 0); /* it has left */
    mkit_session_free(after);
    mkit_session_free(session);
}

static void not_without_an_event(void **state)
{
    (void)state;
    struct mkit_session *session = mkit_session_new(&filter);
    assert_null(mkit_session_part(session));
    mkit_session_eof(session);
    struct mkit_event event;
    assert_int_equal(mkit_session_next(session, &event), MKIT_EVENT);
    assert_int_equal(event.step, MKIT_CLOSE); /* has no answer that an MTA waits for */
    assert_null(mkit_session_part(session));
    assert_int_equal(mkit_session_answer(session, MKIT_CONTINUE), 0);
    mkit_session_free(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_new_one_goes_on),
        cmocka_unit_test(the_old_one_is_of_no_use),
        cmocka_unit_test(not_within_a_call),
        cmocka_unit_test(not_without_an_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
