/* Growing runs of bytes, for input and output. */
#include <stdlib.h>
#include <string.h>

#include "session/session.h"

enum { SMALL_BUFFER = 256 }; /* bytes; where buffers start */

void mkit_forget(struct bytes *bytes)
{
    free(bytes->at);
    *bytes = (struct bytes){0};
}

bool mkit_reserve(struct bytes *bytes, size_t more)
{
    if (bytes->size - bytes->len >= more)
        return true;
    size_t size = bytes->size ? bytes->size : SMALL_BUFFER;
    while (size - bytes->len < more) {
        if (size > SIZE_MAX / 2)
            return false;
        size *= 2;
    }
    uint8_t *at = realloc(bytes->at, size);
    if (!at)
        return false;
    bytes->at = at;
    bytes->size = size;
    return true;
}

bool mkit_append(struct bytes *bytes, const uint8_t *data, size_t len)
{
    if (len == 0)
        return true;
    if (!mkit_reserve(bytes, len))
        return false;
    memcpy(bytes->at + bytes->len, data, len);
    bytes->len += len;
    return true;
}

void mkit_trim(struct bytes *bytes)
{
    if (bytes->len == 0 && bytes->size > SMALL_BUFFER)
        mkit_forget(bytes);
}
