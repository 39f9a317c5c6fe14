/* What the fuzz targets share: the check that stops a run, exact copies, and choices made by the
 * input. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Unlike assert it is never compiled away. The fuzzer keeps the input of a run that aborts. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition);          \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* A heap copy of exactly these bytes, so that a read past either end is seen. Also for 0 bytes. */
static inline uint8_t *exact_copy(const void *bytes, size_t len)
{
    uint8_t *copy = malloc(len);
    CHECK(copy || len == 0);
    if (len)
        memcpy(copy, bytes, len);
    return copy;
}

/* Decisions that the input makes. Behind its bytes they go on at random, from a seed that these
 * bytes give; an input without any always decides for 0. */
struct dice {
    const uint8_t *at;
    size_t left;
    uint32_t seed;
};

/* A number below `sides`. */
static inline uint32_t roll(struct dice *dice, uint32_t sides)
{
    if (dice->left) {
        dice->left--;
        dice->seed = dice->seed * 31 + *dice->at + 1;
        return *dice->at++ % sides;
    }
    dice->seed ^= dice->seed << 13;
    dice->seed ^= dice->seed >> 17;
    dice->seed ^= dice->seed << 5;
    return dice->seed % sides;
}

/* Splits an input into decisions and a stream of packets. Packets begin with a byte 0, so that a
 * recorded stream is an input as it is; another first byte is the number of decisions before it. */
static inline struct dice take_dice(const uint8_t **data, size_t *size)
{
    struct dice dice = {0};
    if (*size && **data) {
        dice.left = **data < *size ? **data : *size - 1;
        dice.at = *data + 1;
        *data += dice.left + 1;
        *size -= dice.left + 1;
    }
    return dice;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
