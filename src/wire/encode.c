/* From fields to a packet's bytes, by the layout of its kind. */
#include <string.h>

#include "wire/bytes.h"
#include "wire/protocol.h"

/* Where a packet is written to; `at` counts on when it no longer fits. */
struct writer {
    uint8_t *buffer;
    size_t size;
    size_t at;
};

static void put(struct writer *w, const void *bytes, size_t len)
{
    if (len && w->at <= w->size && len <= w->size - w->at)
        memcpy(w->buffer + w->at, bytes, len);
    w->at += len;
}

static void write_field(char letter, const struct mkit_field *field, struct writer *w)
{
    uint8_t number[4];
    switch (letter) {
    case 'u':
        put_u32(number, field->number);
        put(w, number, 4);
        break;
    case 'w':
        put_u16(number, field->number);
        put(w, number, 2);
        break;
    case 'c':
    case 'f':
        number[0] = (uint8_t)field->number;
        put(w, number, 1);
        break;
    case 'z':
        put(w, field->text.at, field->text.len);
        put(w, "", 1);
        break;
    default: /* a, b, * */ put(w, field->text.at, field->text.len); break;
    }
}

size_t mkit_encode(enum mkit_direction direction, uint8_t command, const struct mkit_field *fields,
                   size_t count, uint8_t *buffer, size_t size)
{
    const struct mkit_packet_kind *kind = mkit_packet_kind(direction, command);
    if (!kind)
        return 0;
    struct writer w = {buffer, size, MKIT_LENGTH_LEN};
    put(&w, &command, 1);
    const char *again = NULL;
    size_t used = 0;
    for (const char *letter = kind->layout;; letter++) {
        if (*letter == '?' || *letter == '&') {
            again = *letter == '&' ? letter : again;
            if (used == count)
                break;
            continue;
        }
        if (*letter == '\0') {
            if (!again || used == count)
                break;
            letter = again;
            continue;
        }
        if (used == count)
            return 0;
        write_field(*letter, &fields[used++], &w);
    }
    if (used != count || w.at - MKIT_LENGTH_LEN > UINT32_MAX)
        return 0;
    if (size >= MKIT_LENGTH_LEN)
        put_u32(buffer, (uint32_t)(w.at - MKIT_LENGTH_LEN));
    return w.at;
}
