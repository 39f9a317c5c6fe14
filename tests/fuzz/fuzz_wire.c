/* The wire codec, both directions, any bytes. A packet, in a buffer of exactly its size, decodes
 * without a read outside; fields lie within the packet; strings have their NUL there.
 * Invariant: what decodes and is encoded again decodes to the same fields; a reply even to the same
 * bytes, because replies have nothing left over. */
#include "fuzz.h"
#include "wire/protocol.h"

/* Whether a field lies in the packet, and ends as its layout says. */
static void check_text(const struct mkit_packet *packet, struct mkit_text text, char letter)
{
    const char *data = (const char *)packet->data;
    if (text.len == 0 && letter != 'z')
        return;
    CHECK(text.at >= data && text.at + text.len <= data + packet->len);
    if (letter == 'z')
        CHECK(text.at + text.len < data + packet->len && strlen(text.at) == text.len);
    if (letter == 'a') {
        const char *string;
        size_t total = 0;
        while ((string = mkit_next_string(&text)))
            total += strlen(string) + 1;
        CHECK(text.len == 0 && total > 0 && total <= packet->len);
    }
}

/* Checks all fields of a packet by its layout, and counts them again. */
static void check_fields(const struct mkit_packet *packet, const char *layout,
                         const struct mkit_field *fields, int count)
{
    const char *again = NULL;
    int seen = 0;
    for (const char *letter = layout; seen < count; letter++) {
        if (*letter == '\0') {
            CHECK(again);
            letter = again;
        } else if (*letter == '&') {
            again = letter;
        } else if (*letter != '?') {
            const struct mkit_field *field = &fields[seen++];
            if (strchr("uwcf", *letter))
                CHECK(*letter == 'u' || field->number <= (*letter == 'w' ? 0xffff : 0xff));
            else
                check_text(packet, field->text, *letter);
        }
    }
}

static void check_same(const struct mkit_field *a, const struct mkit_field *b, int count)
{
    for (int i = 0; i < count; i++) {
        CHECK(a[i].number == b[i].number && a[i].text.len == b[i].text.len);
        CHECK(a[i].text.len == 0 || memcmp(a[i].text.at, b[i].text.at, a[i].text.len) == 0);
    }
}

/* Decodes, encodes into too little and enough room, decodes again. */
static void round_trip(enum mkit_direction direction, const struct mkit_packet *packet)
{
    struct mkit_field fields[MKIT_MAX_FIELDS];
    struct mkit_field fields2[MKIT_MAX_FIELDS];
    const char *why = NULL;
    const struct mkit_packet_kind *kind = mkit_packet_kind(direction, packet->command);
    int count = mkit_decode(direction, packet, fields, &why);
    if (count < 0) {
        CHECK(count == MKIT_EPROTOCOL && why && *why);
        return;
    }
    CHECK(kind && kind->command == packet->command && count <= MKIT_MAX_FIELDS);
    check_fields(packet, kind->layout, fields, count);

    const size_t len = mkit_encode(direction, packet->command, fields, (size_t)count, NULL, 0);
    CHECK(len >= MKIT_HEADER_LEN);
    for (size_t room = len > 8 ? len - 8 : 0; room < len; room++) {
        uint8_t *small = malloc(room);
        CHECK(mkit_encode(direction, packet->command, fields, (size_t)count, small, room) == len);
        free(small);
    }
    uint8_t *bytes = malloc(len);
    CHECK(mkit_encode(direction, packet->command, fields, (size_t)count, bytes, len) == len);
    struct mkit_packet packet2;
    CHECK(mkit_frame_read(bytes, len, len, &packet2, NULL) == (ssize_t)len);
    CHECK(packet2.command == packet->command);
    CHECK(mkit_decode(direction, &packet2, fields2, &why) == count);
    check_same(fields, fields2, count);
    if (direction == MKIT_TO_MTA)
        CHECK(packet2.len == packet->len &&
              (packet->len == 0 || memcmp(packet2.data, packet->data, packet->len) == 0));
    free(bytes);
}

/* The packets of a stream, each decoded in a copy of its own. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dice dice = take_dice(&data, &size);
    const size_t max_data = roll(&dice, 4) == 1 ? roll(&dice, 256) : 1 << 20;
    while (size) {
        uint8_t *stream = exact_copy(data, size);
        struct mkit_packet packet = {0};
        size_t need = 0;
        const ssize_t used = mkit_frame_read(stream, size, max_data, &packet, &need);
        CHECK(used <= (ssize_t)size);
        if (used > 0) {
            CHECK(packet.data + packet.len == stream + used && packet.len <= max_data);
            uint8_t *alone = exact_copy(packet.data, packet.len);
            const struct mkit_packet copy = {packet.command, alone, packet.len};
            round_trip(MKIT_TO_FILTER, &copy);
            round_trip(MKIT_TO_MTA, &copy);
            free(alone);
        } else if (used == 0) {
            CHECK(need > size || size < MKIT_HEADER_LEN);
        } else {
            CHECK(used == MKIT_EPROTOCOL || (used == MKIT_ELIMIT && packet.len > max_data));
        }
        free(stream);
        if (used <= 0)
            return 0;
        data += used;
        size -= (size_t)used;
    }
    return 0;
}
