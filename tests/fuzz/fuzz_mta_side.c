/* The MTA's side: what a filter sends, any bytes, read as Milter.testing reads them.
 * Invariants: however the stream is cut, the same packets come out of it, and the same error ends
 * it at the same place; `need` never asks for more than the packet takes; what decodes obeys the
 * rules of the reply's kind (no data where there is none, negotiation lists in pairs). */
#include "fuzz.h"
#include "wire/protocol.h"

enum { MAX_DATA = 1 << 20, MAX_PACKETS = 1 << 12 };

/* What came out of a stream. */
struct result {
    size_t packets;
    size_t refused; /* of them: not decoded */
    ssize_t end;    /* 0, or the error */
    uint64_t hash;  /* of all fields */
};

static void mix(struct result *result, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < len; i++)
        result->hash = (result->hash ^ at[i]) * UINT64_C(1099511628211);
}

static void take_reply(struct result *result, const struct mkit_packet *packet)
{
    struct mkit_field fields[MKIT_MAX_FIELDS];
    const char *why = NULL;
    uint8_t *alone = exact_copy(packet->data, packet->len);
    const struct mkit_packet copy = {packet->command, alone, packet->len};
    const int count = mkit_decode(MKIT_TO_MTA, &copy, fields, &why);
    result->packets++;
    mix(result, &packet->command, 1);
    if (count < 0) {
        CHECK(why && *why);
        result->refused++;
    } else {
        if (strchr("acdfprst4", packet->command))
            CHECK(count == 0 && packet->len == 0);
        if (packet->command == MKIT_R_OPTNEG)
            CHECK(count >= 3 && count % 2 == 1);
        if (packet->command == MKIT_R_REPLYCODE)
            CHECK(count == 1 && packet->len == fields[0].text.len + 1);
        for (int i = 0; i < count; i++) {
            mix(result, &fields[i].number, sizeof fields[i].number);
            mix(result, &fields[i].text.len, sizeof fields[i].text.len);
            mix(result, fields[i].text.at, fields[i].text.len);
        }
    }
    free(alone);
}

/* Reads a stream that arrives in parts. `dice` NULL: all at once. */
static struct result read_stream(const uint8_t *data, size_t size, struct dice *dice)
{
    struct result result = {.hash = UINT64_C(14695981039346656037)};
    size_t done = 0;
    size_t arrived = dice ? 0 : size;
    for (;;) {
        uint8_t *buffer = exact_copy(data + done, arrived - done);
        struct mkit_packet packet;
        size_t need = 0;
        const ssize_t used = mkit_frame_read(buffer, arrived - done, MAX_DATA, &packet, &need);
        if (used > 0)
            take_reply(&result, &packet);
        free(buffer);
        if (used < 0 || result.packets == MAX_PACKETS) {
            result.end = used < 0 ? used : 0;
            return result;
        }
        done += (size_t)(used > 0 ? used : 0);
        if (used > 0)
            continue;
        CHECK(need == 0 || need > arrived - done);
        if (arrived == size)
            return result;
        size_t part = 1 + roll(dice, roll(dice, 2) ? 4096 : 7);
        arrived += part < size - arrived ? part : size - arrived;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dice dice = take_dice(&data, &size);
    dice.seed |= 1; /* also without decisions the cuts are to differ */
    const struct result whole = read_stream(data, size, NULL);
    const struct result cut = read_stream(data, size, &dice);
    CHECK(whole.packets == cut.packets && whole.refused == cut.refused);
    CHECK(whole.end == cut.end && whole.hash == cut.hash);
    return 0;
}
