/* The wire: frames, every packet in both directions, and the tables of names. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wire/bytes.h"
#include "wire/protocol.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* A literal that may hold NULs, with its length. */
#define BYTES(literal) literal, sizeof(literal) - 1

/* A field as a test writes it: a number, or a text. */
struct field {
    uint32_t number;
    const char *at;
    size_t len;
};
#define NUM(n)                                                                                     \
    {                                                                                              \
        .number = (n)                                                                              \
    }
#define TEXT(literal)                                                                              \
    {                                                                                              \
        .at = (literal), .len = sizeof(literal) - 1                                                \
    }

/* A packet's data, and the fields that it stands for. */
struct packet_case {
    enum mkit_direction direction;
    uint8_t command;
    const char *data;
    size_t len;
    size_t count;
    struct field fields[8];
};

/* Every packet of the sheet's sections 1.3 and 1.5, in all its shapes. */
static const struct packet_case cases[] = {
    {MKIT_TO_FILTER, 'A', BYTES(""), 0, {{0}}},
    {MKIT_TO_FILTER, 'B', BYTES("body\r\n\0\xff"), 1, {TEXT("body\r\n\0\xff")}},
    {MKIT_TO_FILTER, 'B', BYTES("\0"), 1, {TEXT("\0")}},
    {MKIT_TO_FILTER,
     'C',
     BYTES("localhost\0"
           "4\x04\xd2"
           "127.0.0.1\0"),
     4,
     {TEXT("localhost"), NUM('4'), NUM(1234), TEXT("127.0.0.1")}},
    {MKIT_TO_FILTER,
     'C',
     BYTES("h\0"
           "6\xff\xff"
           "IPv6:::1\0"),
     4,
     {TEXT("h"), NUM('6'), NUM(65535), TEXT("IPv6:::1")}},
    {MKIT_TO_FILTER,
     'C',
     BYTES("h\0L\0\0/run/x\0"),
     4,
     {TEXT("h"), NUM('L'), NUM(0), TEXT("/run/x")}},
    {MKIT_TO_FILTER, 'C', BYTES("\0U"), 2, {TEXT(""), NUM('U')}},
    {MKIT_TO_FILTER, 'D', BYTES("C"), 2, {NUM('C'), TEXT("")}},
    {MKIT_TO_FILTER, 'D', BYTES("Mi\0Q1\0"), 2, {NUM('M'), TEXT("i\0Q1\0")}},
    {MKIT_TO_FILTER, 'E', BYTES(""), 1, {TEXT("")}},
    {MKIT_TO_FILTER, 'E', BYTES("last"), 1, {TEXT("last")}},
    {MKIT_TO_FILTER, 'H', BYTES("me\0"), 1, {TEXT("me")}},
    {MKIT_TO_FILTER, 'H', BYTES("\0"), 1, {TEXT("")}},
    {MKIT_TO_FILTER, 'K', BYTES(""), 0, {{0}}},
    {MKIT_TO_FILTER, 'L', BYTES("Subject\0hi\0"), 2, {TEXT("Subject"), TEXT("hi")}},
    {MKIT_TO_FILTER, 'L', BYTES("Subject\0\0"), 2, {TEXT("Subject"), TEXT("")}},
    {MKIT_TO_FILTER, 'M', BYTES("<a@b>\0SIZE=1\0"), 1, {TEXT("<a@b>\0SIZE=1\0")}},
    {MKIT_TO_FILTER, 'M', BYTES("\0"), 1, {TEXT("\0")}},
    {MKIT_TO_FILTER, 'N', BYTES(""), 0, {{0}}},
    {MKIT_TO_FILTER,
     'O',
     BYTES("\0\0\0\6\0\0\1\xff\0\x1f\xff\xff"),
     3,
     {NUM(6), NUM(0x1ff), NUM(0x1fffff)}},
    {MKIT_TO_FILTER, 'Q', BYTES(""), 0, {{0}}},
    {MKIT_TO_FILTER, 'R', BYTES("<c@d>\0"), 1, {TEXT("<c@d>\0")}},
    {MKIT_TO_FILTER, 'T', BYTES(""), 0, {{0}}},
    {MKIT_TO_FILTER, 'U', BYTES("FOO bar\0"), 1, {TEXT("FOO bar")}},

    {MKIT_TO_MTA, '+', BYTES("<a@b>\0"), 1, {TEXT("<a@b>")}},
    {MKIT_TO_MTA, '-', BYTES("<a@b>\0"), 1, {TEXT("<a@b>")}},
    {MKIT_TO_MTA, '2', BYTES("<a@b>\0"), 1, {TEXT("<a@b>")}},
    {MKIT_TO_MTA, '2', BYTES("<a@b>\0\0"), 2, {TEXT("<a@b>"), TEXT("")}},
    {MKIT_TO_MTA, '2', BYTES("<a@b>\0NOTIFY=NEVER\0"), 2, {TEXT("<a@b>"), TEXT("NOTIFY=NEVER")}},
    {MKIT_TO_MTA, '4', BYTES(""), 0, {{0}}},
    {MKIT_TO_MTA, 'O', BYTES("\0\0\0\6\0\0\1\xff\0\0\4\0"), 3, {NUM(6), NUM(0x1ff), NUM(0x400)}},
    {MKIT_TO_MTA,
     'O',
     BYTES("\0\0\0\6\0\0\1\xff\0\0\4\0\0\0\0\0j {x}\0\0\0\0\5\0"),
     7,
     {NUM(6), NUM(0x1ff), NUM(0x400), NUM(0), TEXT("j {x}"), NUM(5), TEXT("")}},
    {MKIT_TO_MTA, 'a', BYTES(""), 0, {{0}}},
    {MKIT_TO_MTA, 'b', BYTES("new\0body"), 1, {TEXT("new\0body")}},
    {MKIT_TO_MTA, 'b', BYTES(""), 1, {TEXT("")}},
    {MKIT_TO_MTA, 'c', BYTES(""), 0, {{0}}},
    {MKIT_TO_MTA, 'd', BYTES(""), 0, {{0}}},
    {MKIT_TO_MTA, 'e', BYTES("<>\0"), 1, {TEXT("<>")}},
    {MKIT_TO_MTA, 'e', BYTES("<x@y>\0RET=HDRS\0"), 2, {TEXT("<x@y>"), TEXT("RET=HDRS")}},
    {MKIT_TO_MTA, 'f', BYTES(""), 0, {{0}}},
    {MKIT_TO_MTA, 'h', BYTES("X\0v\0"), 2, {TEXT("X"), TEXT("v")}},
    {MKIT_TO_MTA, 'i', BYTES("\0\0\0\1X\0v\0"), 3, {NUM(1), TEXT("X"), TEXT("v")}},
    {MKIT_TO_MTA, 'l', BYTES("\0\0\0\0j\0"), 1, {TEXT("\0\0\0\0j\0")}},
    {MKIT_TO_MTA, 'm', BYTES("\xff\xff\xff\xffX\0\0"), 3, {NUM(0xffffffff), TEXT("X"), TEXT("")}},
    {MKIT_TO_MTA, 'p', BYTES(""), 0, {{0}}},
    {MKIT_TO_MTA, 'q', BYTES("why\0"), 1, {TEXT("why")}},
    {MKIT_TO_MTA, 'r', BYTES(""), 0, {{0}}},
    {MKIT_TO_MTA, 's', BYTES(""), 0, {{0}}},
    {MKIT_TO_MTA, 't', BYTES(""), 0, {{0}}},
    {MKIT_TO_MTA, 'y', BYTES("550 5.7.1 no\0"), 1, {TEXT("550 5.7.1 no")}},
};

/* Puts a packet together by hand. */
static size_t whole_packet(const struct packet_case *c, uint8_t *to)
{
    put_u32(to, (uint32_t)c->len + 1);
    to[4] = c->command;
    memcpy(to + 5, c->data, c->len);
    return 5 + c->len;
}

static void check_fields(const struct packet_case *c, const struct mkit_packet *packet)
{
    struct mkit_field fields[MKIT_MAX_FIELDS];
    const char *why = NULL;
    int count = mkit_decode(c->direction, packet, fields, &why);
    assert_null(why);
    assert_int_equal(count, c->count);
    for (size_t i = 0; i < c->count; i++) {
        assert_int_equal(fields[i].number, c->fields[i].number);
        assert_int_equal(fields[i].text.len, c->fields[i].len);
        if (c->fields[i].len)
            assert_memory_equal(fields[i].text.at, c->fields[i].at, c->fields[i].len);
    }
}

static void every_packet_is_in_the_table(void **state)
{
    (void)state;
    static const char *const all[] = {
        [MKIT_TO_FILTER] = "ABCDEHKLMNOQRTU", [MKIT_TO_MTA] = "+-24Oabcdefhilmpqrsty"};
    for (int direction = 0; direction < 2; direction++) {
        for (int command = 0; command < 256; command++) {
            const struct mkit_packet_kind *kind =
                mkit_packet_kind((enum mkit_direction)direction, (uint8_t)command);
            if (command == 0 || !strchr(all[direction], command)) {
                assert_null(kind);
                continue;
            }
            assert_non_null(kind);
            assert_int_equal(kind->command, command);
            bool tested = false;
            for (size_t i = 0; i < COUNT(cases); i++)
                tested = tested || ((int)cases[i].direction == direction &&
                                    cases[i].command == kind->command);
            assert_true(tested);
        }
    }
}

static void packets_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct packet_case *c = &cases[i];
        uint8_t *bytes = malloc(c->len + 5); /* its end is the packet's end */
        assert_non_null(bytes);
        size_t len = whole_packet(c, bytes);
        struct mkit_packet packet;
        assert_int_equal(mkit_frame_read(bytes, len, 65535, &packet, NULL), len);
        assert_int_equal(packet.command, c->command);
        assert_int_equal(packet.len, c->len);
        assert_ptr_equal(packet.data, bytes + 5);
        check_fields(c, &packet);
        free(bytes);
    }
}

static void packets_come_byte_by_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint8_t bytes[100];
        size_t len = whole_packet(&cases[i], bytes);
        for (size_t n = 0; n < len; n++) {
            struct mkit_packet packet;
            size_t need = 0;
            uint8_t *part = malloc(n ? n : 1);
            assert_non_null(part);
            memcpy(part, bytes, n);
            assert_int_equal(mkit_frame_read(part, n, 65535, &packet, &need), 0);
            assert_int_equal(need, n < 5 ? 5 : len);
            assert_int_equal(mkit_frame_read(part, n, 65535, &packet, NULL), 0);
            free(part);
        }
    }
}

static void packets_follow_each_other(void **state)
{
    (void)state;
    for (size_t i = 0; i + 1 < COUNT(cases); i++) {
        uint8_t bytes[200];
        size_t first = whole_packet(&cases[i], bytes);
        size_t second = whole_packet(&cases[i + 1], bytes + first);
        struct mkit_packet packet;
        assert_int_equal(mkit_frame_read(bytes, first + second, 65535, &packet, NULL), first);
        check_fields(&cases[i], &packet);
        assert_int_equal(mkit_frame_read(bytes + first, second, 65535, &packet, NULL), second);
        check_fields(&cases[i + 1], &packet);
    }
}

static void packets_are_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct packet_case *c = &cases[i];
        struct mkit_field fields[8];
        for (size_t f = 0; f < c->count; f++)
            fields[f] = (struct mkit_field){.number = c->fields[f].number,
                                            .text = {c->fields[f].at, c->fields[f].len}};
        uint8_t want[100];
        uint8_t got[100];
        size_t len = whole_packet(c, want);
        assert_int_equal(mkit_encode(c->direction, c->command, fields, c->count, NULL, 0), len);
        for (size_t room = 0; room <= len; room++) { /* never past its room, always the length */
            memset(got, 0xee, sizeof got);
            assert_int_equal(mkit_encode(c->direction, c->command, fields, c->count, got, room),
                             len);
            for (size_t n = room; n < sizeof got; n++)
                assert_int_equal(got[n], 0xee);
        }
        assert_memory_equal(got, want, len);
    }
}

static void fields_that_do_not_suit_are_not_written(void **state)
{
    (void)state;
    static const struct {
        enum mkit_direction direction;
        uint8_t command;
        size_t count;
    } bad[] = {
        {MKIT_TO_FILTER, 'Z', 0}, {MKIT_TO_MTA, 'B', 1},    {MKIT_TO_FILTER, 'A', 1},
        {MKIT_TO_FILTER, 'B', 0}, {MKIT_TO_FILTER, 'C', 1}, {MKIT_TO_FILTER, 'C', 3},
        {MKIT_TO_FILTER, 'C', 5}, {MKIT_TO_FILTER, 'L', 1}, {MKIT_TO_FILTER, 'L', 3},
        {MKIT_TO_FILTER, 'O', 2}, {MKIT_TO_FILTER, 'O', 5}, {MKIT_TO_MTA, 'O', 2},
        {MKIT_TO_MTA, 'O', 4},    {MKIT_TO_MTA, 'O', 6},    {MKIT_TO_MTA, 'c', 1},
        {MKIT_TO_MTA, 'e', 0},    {MKIT_TO_MTA, 'e', 3},    {MKIT_TO_MTA, 'm', 2},
    };
    struct mkit_field fields[8] = {{0}};
    uint8_t bytes[100];
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(
            mkit_encode(bad[i].direction, bad[i].command, fields, bad[i].count, bytes, 100), 0);
    if (SIZE_MAX > UINT32_MAX) { /* more than a length can say; nothing of it is read */
        struct mkit_field huge = {.text = {"", (size_t)UINT32_MAX}};
        assert_int_equal(mkit_encode(MKIT_TO_MTA, 'b', &huge, 1, bytes, 100), 0);
        huge.text.len--;
        assert_int_equal(mkit_encode(MKIT_TO_MTA, 'b', &huge, 1, bytes, 100),
                         (size_t)UINT32_MAX + 4);
    }
}

static void bad_frames(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        ssize_t result;
        uint8_t command;
        size_t data;
    } bad[] = {
        {BYTES("\0\0\0\0"), MKIT_EPROTOCOL, 0, 0},
        {BYTES("\0\0\0\0N"), MKIT_EPROTOCOL, 0, 0},
        {BYTES("\0\0\0\x0cL"), MKIT_ELIMIT, 'L', 11},
        {BYTES("\0\0\0\x0c"), 0, 0, 0}, /* not before its name is known */
        {BYTES("\0\0\0\x0bL"), 0, 'L', 10},
        {BYTES("\xff\xff\xff\xffN"), MKIT_ELIMIT, 'N', 0xfffffffe},
        {BYTES("\x80\0\0\2H"), MKIT_ELIMIT, 'H', 0x80000001},
        {BYTES("GET / HTTP/1.1\r\n"), MKIT_ELIMIT, '/', 1195725856 - 1},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct mkit_packet packet = {0};
        size_t need = 0;
        ssize_t result =
            mkit_frame_read((const uint8_t *)bad[i].bytes, bad[i].len, 10, &packet, &need);
        assert_int_equal(result, bad[i].result);
        assert_int_equal(packet.command, bad[i].command);
        assert_int_equal(packet.len, bad[i].data);
        assert_null(packet.data);
    }
}

static void bad_packets(void **state)
{
    (void)state;
    static const struct {
        enum mkit_direction direction;
        uint8_t command;
        const char *data;
        size_t len;
        const char *why;
    } bad[] = {
        {MKIT_TO_FILTER, 'Z', BYTES(""), "there is no such packet"},
        {MKIT_TO_MTA, 'B', BYTES("x"), "there is no such packet"},
        {MKIT_TO_FILTER, 'c', BYTES(""), "there is no such packet"},
        {MKIT_TO_FILTER, 'B', BYTES(""), "it is empty"},
        {MKIT_TO_FILTER, 'C', BYTES(""), "it is too short"},
        {MKIT_TO_FILTER, 'C', BYTES("h"), "a string in it is not terminated"},
        {MKIT_TO_FILTER, 'C', BYTES("h\0"), "it is too short"},
        {MKIT_TO_FILTER, 'C', BYTES("h\0004\0"), "it is too short"},
        {MKIT_TO_FILTER, 'C', BYTES("h\0004\0\x19"), "it is too short"},
        {MKIT_TO_FILTER, 'C',
         BYTES("h\0004\0\x19"
               "1.2.3.4"),
         "a string in it is not terminated"},
        {MKIT_TO_FILTER, 'C',
         BYTES("h\0004\0\x19"
               "1.2.3.4\0x"),
         "a string in it is not terminated"},
        {MKIT_TO_FILTER, 'D', BYTES(""), "it is too short"},
        {MKIT_TO_FILTER, 'H', BYTES(""), "it is too short"},
        {MKIT_TO_FILTER, 'H', BYTES("abc"), "a string in it is not terminated"},
        {MKIT_TO_FILTER, 'H', BYTES("a\0b"), "a string in it is not terminated"},
        {MKIT_TO_FILTER, 'L', BYTES("abc\0"), "it is too short"},
        {MKIT_TO_FILTER, 'L', BYTES("abc\0v"), "a string in it is not terminated"},
        {MKIT_TO_FILTER, 'M', BYTES(""), "it is too short"},
        {MKIT_TO_FILTER, 'M', BYTES("abc"), "a string in it is not terminated"},
        {MKIT_TO_FILTER, 'R', BYTES("abc"), "a string in it is not terminated"},
        {MKIT_TO_FILTER, 'O', BYTES("\0\0\0\6\0\0\1\xff\0\x1f\xff"), "it is too short"},
        {MKIT_TO_FILTER, 'U', BYTES("FOO"), "a string in it is not terminated"},
        {MKIT_TO_MTA, 'c', BYTES("x"), "it has data left over"},
        {MKIT_TO_MTA, 'a', BYTES("\0"), "it has data left over"},
        {MKIT_TO_MTA, '+', BYTES("<a@b>\0x\0"), "it has data left over"},
        {MKIT_TO_MTA, '+', BYTES("<a@b>"), "a string in it is not terminated"},
        {MKIT_TO_MTA, '2', BYTES("<a@b>\0x"), "a string in it is not terminated"},
        {MKIT_TO_MTA, '2', BYTES("<a@b>\0x\0y\0"), "it has data left over"},
        {MKIT_TO_MTA, 'h', BYTES("X\0v\0w\0"), "it has data left over"},
        {MKIT_TO_MTA, 'm', BYTES("\0\0\0"), "it is too short"},
        {MKIT_TO_MTA, 'm', BYTES("\0\0\0\1X\0"), "it is too short"},
        {MKIT_TO_MTA, 'y', BYTES("550 no"), "a string in it is not terminated"},
        {MKIT_TO_MTA, 'O', BYTES("\0\0\0\6\0\0\1\xff\0\0\4"), "it is too short"},
        {MKIT_TO_MTA, 'O', BYTES("\0\0\0\6\0\0\1\xff\0\0\4\0\0\0\0\0j"),
         "a string in it is not terminated"},
        {MKIT_TO_MTA, 'O', BYTES("\0\0\0\6\0\0\1\xff\0\0\4\0\0\0\0\0"), "it is too short"},
        {MKIT_TO_MTA, 'O',
         BYTES("\0\0\0\6\0\0\1\xff\0\0\4\0" /* 15 lists */
               "\0\0\0\0\0\0\0\0\1\0\0\0\0\2\0\0\0\0\3\0\0\0\0\4\0\0\0\0\5\0\0\0\0\6\0\0\0\0\7\0"
               "\0\0\0\0\0\0\0\0\1\0\0\0\0\2\0\0\0\0\3\0\0\0\0\4\0\0\0\0\5\0\0\0\0\6\0"),
         "it has too many fields"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        uint8_t *data = malloc(bad[i].len ? bad[i].len : 1);
        assert_non_null(data);
        memcpy(data, bad[i].data, bad[i].len);
        const struct mkit_packet packet = {bad[i].command, data, bad[i].len};
        struct mkit_field fields[MKIT_MAX_FIELDS];
        const char *why = "";
        assert_int_equal(mkit_decode(bad[i].direction, &packet, fields, &why), MKIT_EPROTOCOL);
        assert_string_equal(why, bad[i].why);
        free(data);
    }
}

/* What an MTA sends beyond the layout is ignored, as libmilter does. */
static void commands_may_have_more(void **state)
{
    (void)state;
    static const struct packet_case more[] = {
        {MKIT_TO_FILTER, 'A', BYTES("x"), 0, {{0}}},
        {MKIT_TO_FILTER, 'T', BYTES("x"), 0, {{0}}},
        {MKIT_TO_FILTER, 'C', BYTES("h\0Uabc"), 2, {TEXT("h"), NUM('U')}},
        {MKIT_TO_FILTER, 'H', BYTES("a\0b\0"), 1, {TEXT("a")}},
        {MKIT_TO_FILTER, 'L', BYTES("a\0b\0c\0"), 2, {TEXT("a"), TEXT("b")}},
        {MKIT_TO_FILTER, 'M', BYTES("a\0SIZE=1"), 1, {TEXT("a\0")}},
        {MKIT_TO_FILTER,
         'O',
         BYTES("\0\0\0\6\0\0\1\xff\0\x1f\xff\xff more"),
         3,
         {NUM(6), NUM(0x1ff), NUM(0x1fffff)}},
    };
    for (size_t i = 0; i < COUNT(more); i++) {
        const struct mkit_packet packet = {more[i].command, (const uint8_t *)more[i].data,
                                           more[i].len};
        check_fields(&more[i], &packet);
    }
}

static void strings_are_stepped_through(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        const char *strings[4];
    } runs[] = {
        {BYTES(""), {NULL}},    {BYTES("a\0"), {"a"}},
        {BYTES("\0"), {""}},    {BYTES("<a>\0\0B=8\0"), {"<a>", "", "B=8"}},
        {BYTES("a\0b"), {"a"}}, {BYTES("b"), {NULL}},
    };
    for (size_t i = 0; i < COUNT(runs); i++) {
        struct mkit_text rest = {runs[i].bytes, runs[i].len};
        for (size_t n = 0; runs[i].strings[n]; n++) {
            const char *string = mkit_next_string(&rest);
            assert_non_null(string);
            assert_string_equal(string, runs[i].strings[n]);
        }
        assert_null(mkit_next_string(&rest));
        assert_null(mkit_next_string(&rest));
        assert_int_equal(rest.len, 0);
    }
}

static void names(void **state)
{
    (void)state;
    static const struct {
        uint32_t bit;
        const char *name;
    } actions[] = {{MKIT_ADDHDRS, "ADDHDRS"},      {MKIT_CHGBODY, "CHGBODY"},
                   {MKIT_ADDRCPT, "ADDRCPT"},      {MKIT_DELRCPT, "DELRCPT"},
                   {MKIT_CHGHDRS, "CHGHDRS"},      {MKIT_QUARANTINE, "QUARANTINE"},
                   {MKIT_CHGFROM, "CHGFROM"},      {MKIT_ADDRCPT_PAR, "ADDRCPT_PAR"},
                   {MKIT_SETSYMLIST, "SETSYMLIST"}},
      options[] = {{MKIT_NOCONNECT, "NOCONNECT"},
                   {MKIT_NOHELO, "NOHELO"},
                   {MKIT_NOMAIL, "NOMAIL"},
                   {MKIT_NORCPT, "NORCPT"},
                   {MKIT_NOBODY, "NOBODY"},
                   {MKIT_NOHDRS, "NOHDRS"},
                   {MKIT_NOEOH, "NOEOH"},
                   {MKIT_NR_HDR, "NR_HDR"},
                   {MKIT_NOUNKNOWN, "NOUNKNOWN"},
                   {MKIT_NODATA, "NODATA"},
                   {MKIT_SKIPPING, "SKIP"},
                   {MKIT_RCPT_REJ, "RCPT_REJ"},
                   {MKIT_NR_CONN, "NR_CONN"},
                   {MKIT_NR_HELO, "NR_HELO"},
                   {MKIT_NR_MAIL, "NR_MAIL"},
                   {MKIT_NR_RCPT, "NR_RCPT"},
                   {MKIT_NR_DATA, "NR_DATA"},
                   {MKIT_NR_UNKN, "NR_UNKN"},
                   {MKIT_NR_EOH, "NR_EOH"},
                   {MKIT_NR_BODY, "NR_BODY"},
                   {MKIT_HDR_LEADSPC, "HDR_LEADSPC"}},
      verdicts[] = {{MKIT_CONTINUE, "CONTINUE"}, {MKIT_REJECT, "REJECT"},
                    {MKIT_DISCARD, "DISCARD"},   {MKIT_ACCEPT, "ACCEPT"},
                    {MKIT_TEMPFAIL, "TEMPFAIL"}, {MKIT_NOREPLY, "NOREPLY"},
                    {MKIT_SKIP, "SKIP"},         {MKIT_ALL_OPTS, "ALL_OPTS"}},
      steps[] = {{MKIT_CONNECT, "connect"},
                 {MKIT_HELO, "helo"},
                 {MKIT_MAIL, "envfrom"},
                 {MKIT_RCPT, "envrcpt"},
                 {MKIT_DATA, "data"},
                 {MKIT_HEADER, "header"},
                 {MKIT_EOH, "eoh"},
                 {MKIT_BODY, "body"},
                 {MKIT_EOM, "eom"},
                 {MKIT_UNKNOWN, "unknown"},
                 {MKIT_ABORT, "abort"},
                 {MKIT_CLOSE, "close"},
                 {MKIT_NEGOTIATE, "negotiate"}};
    uint32_t all_actions = 0;
    uint32_t all_options = 0;
    for (size_t i = 0; i < COUNT(actions); i++) {
        assert_string_equal(mkit_action_name(actions[i].bit), actions[i].name);
        all_actions |= actions[i].bit;
    }
    for (size_t i = 0; i < COUNT(options); i++) {
        assert_string_equal(mkit_protocol_name(options[i].bit), options[i].name);
        all_options |= options[i].bit;
    }
    assert_int_equal(all_actions, MKIT_ALL_ACTIONS);
    assert_int_equal(all_options, MKIT_ALL_PROTOCOL);
    for (size_t i = 0; i < COUNT(verdicts); i++)
        assert_string_equal(mkit_verdict_name((int)verdicts[i].bit), verdicts[i].name);
    assert_int_equal(COUNT(steps), MKIT_STEPS);
    for (size_t i = 0; i < COUNT(steps); i++)
        assert_string_equal(mkit_step_name((enum mkit_step)steps[i].bit), steps[i].name);

    assert_null(mkit_action_name(0));
    assert_null(mkit_action_name(0x200));
    assert_null(mkit_action_name(MKIT_ADDHDRS | MKIT_CHGBODY));
    assert_null(mkit_protocol_name(0x10000000));
    assert_null(mkit_verdict_name(-1));
    assert_null(mkit_verdict_name(5));
    assert_null(mkit_verdict_name(MKIT_ALL_OPTS + 1));
    assert_null(mkit_verdict_name(INT_MAX));
    assert_null(mkit_step_name(MKIT_STEPS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_packet_is_in_the_table),
        cmocka_unit_test(packets_are_read),
        cmocka_unit_test(packets_come_byte_by_byte),
        cmocka_unit_test(packets_follow_each_other),
        cmocka_unit_test(packets_are_written),
        cmocka_unit_test(fields_that_do_not_suit_are_not_written),
        cmocka_unit_test(bad_frames),
        cmocka_unit_test(bad_packets),
        cmocka_unit_test(commands_may_have_more),
        cmocka_unit_test(strings_are_stepped_through),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
