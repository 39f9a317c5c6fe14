/* What a filter's steps do when they are called: compute, or wait. It is measured, so that the
 * next connection can be taken by another runner before a callback that will wait has begun. */
#ifndef MKIT_SERVER_HABIT_H
#define MKIT_SERVER_HABIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* One step's habit. Any runner writes it; a lost update is one sample less. */
struct habit {
    atomic_uint waited;   /* nanoseconds of a call without the processor, on average */
    atomic_uint computed; /* nanoseconds of a call with it, on average */
    atomic_bool waits;    /* what follows from the two */
};

/* A thread's clocks at one moment. */
struct clocks {
    int64_t wall; /* nanoseconds */
    int64_t cpu;  /* nanoseconds that this thread has computed */
    long sleeps;  /* how often it has gone to sleep by itself */
};

int64_t habit_wall(void);
struct clocks habit_clocks(void);

/* How long of the time since then the thread slept; 0 if it never went to sleep by itself: the
 * machine was busy with others then. */
int64_t habit_slept(const struct clocks *from, const struct clocks *to);

/* Learns from one call: nanoseconds that it waited and computed. */
void habit_learn(struct habit *habit, int64_t waited, int64_t computed);

static inline bool habit_waits(const struct habit *habit)
{
    return atomic_load_explicit(&habit->waits, memory_order_relaxed);
}

#endif
