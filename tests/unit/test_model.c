/* Looks at every state that the scheduler's model (model.h) can come to, nearest first. The right
 * model never breaks a rule; each faulty one does, so the rules can see such faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model.h"

enum { FIRST_SLOTS = 1 << 16 };

struct entry {
    struct model_key key;
    uint32_t from;    /* the entry before it */
    const char *move; /* that led here */
};

/* The states that were found, in order, and a hash table of their numbers + 1. */
struct search {
    const struct model_setting *setting;
    struct entry *entries;
    uint32_t *slots;
    size_t count;
    size_t slots_count; /* a power of 2, twice the room for entries */
    uint32_t from;      /* the state whose moves are being told */
    unsigned moves;     /* of it */
};

static size_t hash(const struct model_key *key)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof key->words / sizeof *key->words; i++) {
        sum = (sum ^ key->words[i]) * UINT64_C(0x9e3779b97f4a7c15);
        sum ^= sum >> 32;
    }
    return (size_t)sum;
}

/* The slot that holds a key, or that is free for it. */
static uint32_t *slot_of(const struct search *search, const struct model_key *key)
{
    size_t at = hash(key) & (search->slots_count - 1);
    while (search->slots[at] &&
           memcmp(&search->entries[search->slots[at] - 1].key, key, sizeof *key) != 0)
        at = (at + 1) & (search->slots_count - 1);
    return &search->slots[at];
}

static void grow(struct search *search)
{
    const size_t slots = search->slots_count ? search->slots_count * 2 : FIRST_SLOTS;
    free(search->slots);
    search->slots_count = slots;
    search->slots = calloc(slots, sizeof *search->slots);
    struct entry *entries = realloc(search->entries, slots / 2 * sizeof *entries);
    if (entries)
        search->entries = entries;
    assert_non_null(search->slots);
    assert_non_null(entries);
    for (size_t i = 0; i < search->count; i++)
        *slot_of(search, &search->entries[i].key) = (uint32_t)i + 1;
}

static void found(void *arg, const struct model_state *state, const char *move)
{
    struct search *search = arg;
    const struct model_key key = model_pack(state);
    if (search->count == search->slots_count / 2)
        grow(search);
    search->moves++;
    uint32_t *slot = slot_of(search, &key);
    if (*slot)
        return;
    search->entries[search->count++] = (struct entry){key, search->from, move};
    *slot = (uint32_t)search->count;
}

/* Prints how a state is come to. */
static void print_way(const struct search *search, uint32_t to)
{
    if (to)
        print_way(search, search->entries[to].from);
    print_message("  %s\n", search->entries[to].move);
}

/* How many states there are, and from how many of them no other follows. */
struct extent {
    size_t states;
    size_t ends;
};

/* Looks at all states. Returns what is wrong in the nearest that breaks a rule; NULL: none does. */
static const char *explore(const struct model_setting *setting, bool tell, struct extent *extent)
{
    struct search search = {.setting = setting};
    struct model_state state;
    const char *wrong = NULL;
    model_begin(setting, &state);
    found(&search, &state, "the beginning");
    for (size_t at = 0; at < search.count && !wrong; at++) {
        const struct model_key key = search.entries[at].key;
        model_unpack(&key, &state);
        search.from = (uint32_t)at;
        search.moves = 0;
        model_moves(setting, &state, found, &search);
        extent->ends += search.moves == 0;
        wrong = model_wrong(setting, &state, search.moves == 0);
        if (wrong && tell)
            print_way(&search, (uint32_t)at);
    }
    extent->states = search.count;
    free(search.slots);
    free(search.entries);
    return wrong;
}

static const char *const pollers[] = {[BY_EPOLL] = "epoll", [BY_POLL] = "poll"};

#define TWO   .conns = 2, .packets = 2, .slow = true
#define THREE .conns = 3, .packets = 1

/* Each state of the right model keeps the rules. */
static void nothing_is_forgotten(void **state)
{
    static const struct {
        const char *name;
        struct model_setting setting;
    } rows[] = {
        {"two connections", {TWO}},
        {"three connections", {THREE}},
        {"a callback that never returns", {THREE, .hangs = true}},
        {"an abort", {.conns = 2, .packets = 1, .slow = true, .aborts = true}},
    };
    (void)state;
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        struct model_setting setting = rows[i / 2].setting;
        struct extent extent = {0};
        setting.poller = i % 2 ? BY_POLL : BY_EPOLL;
        const char *wrong = explore(&setting, true, &extent);
        print_message("%s, %s: %zu states, %zu ends\n", rows[i / 2].name, pollers[setting.poller],
                      extent.states, extent.ends);
        assert_string_equal(wrong ? wrong : "", "");
        assert_int_in_range(extent.ends, 1, extent.states);
    }
}

/* Each fault breaks the rule that it should. With poll a connection is not reported while it is
 * served, and reported again as long as it has bytes: two of the faults make no difference there.
 */
static void faults_are_found(void **state)
{
    static const struct {
        const char *name;
        struct model_setting setting;
        const char *wrong[2]; /* by poller; NULL: nothing */
    } rows[] = {
        {"kept_input cleared in write_batch",
         {THREE, .fault = KEPT_CLEARED_EARLY},
         {"a whole packet was forgotten", "a whole packet was forgotten"}},
        {"again not looked at", {TWO, .fault = AGAIN_IGNORED}, {"nobody will read", NULL}},
        {"more cleared without room",
         {THREE, .fault = MORE_CLEARED},
         {"nobody will read", "a whole packet was forgotten"}},
        {"kept_input not set",
         {TWO, .fault = KEPT_NOT_SET},
         {"a whole packet was forgotten", "a whole packet was forgotten"}},
        {"blocked not set",
         {TWO, .fault = BLOCKED_NOT_SET},
         {"an older reply waits for a callback", "an older reply waits for a callback"}},
        {"more not set for one that is blocked",
         {TWO, .fault = BLOCKED_NOT_READ},
         {"nobody will read", NULL}},
    };
    (void)state;
    assert_int_equal(sizeof rows / sizeof *rows, FAULTS - 1);
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        struct model_setting setting = rows[i / 2].setting;
        struct extent extent = {0};
        setting.poller = i % 2 ? BY_POLL : BY_EPOLL;
        const char *expected = rows[i / 2].wrong[setting.poller];
        const char *wrong = explore(&setting, false, &extent);
        print_message("%s, %s: %s\n", rows[i / 2].name, pollers[setting.poller],
                      wrong ? wrong : "makes no difference");
        assert_string_equal(wrong ? wrong : "", expected ? expected : "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_forgotten),
        cmocka_unit_test(faults_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
