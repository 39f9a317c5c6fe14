/* Packets in a stream of bytes: where one ends, and whether its length can be true. */
#include "wire/bytes.h"
#include "wire/protocol.h"

ssize_t mkit_frame_read(const uint8_t *buffer, size_t len, size_t max_data,
                        struct mkit_packet *packet, size_t *need)
{
    size_t length = len < MKIT_LENGTH_LEN ? 1 : get_u32(buffer);
    if (length == 0) {
        *packet = (struct mkit_packet){0};
        return MKIT_EPROTOCOL;
    }
    if (len < MKIT_HEADER_LEN) { /* the command as well, so that an error can name it */
        if (need)
            *need = MKIT_HEADER_LEN;
        return 0;
    }
    *packet = (struct mkit_packet){.command = buffer[MKIT_LENGTH_LEN], .len = length - 1};
    if (packet->len > max_data)
        return MKIT_ELIMIT;
    size_t whole = MKIT_LENGTH_LEN + length;
    if (need)
        *need = whole;
    if (len < whole)
        return 0;
    packet->data = buffer + MKIT_HEADER_LEN;
    return (ssize_t)whole;
}
