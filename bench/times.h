/* Durations, collected: a histogram of fixed size, however many there are. */
#ifndef BENCH_TIMES_H
#define BENCH_TIMES_H

#include <stdint.h>

/* Each power of two of nanoseconds is divided into this many buckets: 1.6 per cent of error. */
enum { TIMES_FINE = 64, TIMES_BUCKETS = 48 * TIMES_FINE };

struct times {
    uint64_t count;
    uint64_t max; /* exact, ns */
    uint64_t buckets[TIMES_BUCKETS];
};

/* Monotonic time in nanoseconds. */
uint64_t times_now(void);

/* Adds a duration in nanoseconds. */
void times_add(struct times *times, uint64_t ns);

/* The duration in microseconds that `share` (0 to 1) of all are not longer than; 0 if none. */
double times_percentile(const struct times *times, double share);

#endif
