/* Durations, collected in a histogram whose buckets grow with the value. */
#include <time.h>

#include "times.h"

uint64_t times_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* Values up to 2 * TIMES_FINE have a bucket each; above it `shift` low bits are left out. */
static unsigned shift_of(uint64_t ns)
{
    unsigned shift = 0;
    while (ns >> shift >= (uint64_t)2 * TIMES_FINE)
        shift++;
    return shift;
}

void times_add(struct times *times, uint64_t ns)
{
    const unsigned shift = shift_of(ns);
    uint64_t bucket = (uint64_t)shift * TIMES_FINE + (ns >> shift);
    if (bucket >= TIMES_BUCKETS)
        bucket = TIMES_BUCKETS - 1;
    times->buckets[bucket]++;
    times->count++;
    if (ns > times->max)
        times->max = ns;
}

/* The largest value of a bucket, ns. */
static uint64_t upper_end(uint64_t bucket)
{
    if (bucket < (uint64_t)2 * TIMES_FINE)
        return bucket;
    const uint64_t shift = bucket / TIMES_FINE - 1;
    return ((bucket - shift * TIMES_FINE + 1) << shift) - 1;
}

double times_percentile(const struct times *times, double share)
{
    const double wanted = (double)times->count * share;
    uint64_t seen = 0;
    for (uint64_t bucket = 0; bucket < TIMES_BUCKETS && times->count; bucket++) {
        seen += times->buckets[bucket];
        if ((double)seen >= wanted && seen) {
            const uint64_t end = upper_end(bucket);
            return (double)(end < times->max ? end : times->max) / 1000;
        }
    }
    return (double)times->max / 1000;
}
