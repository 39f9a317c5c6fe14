/* Learns which steps wait. A step's habit is a running average over its last calls, so it follows a
 * filter that changes: a server that turns slow, and recovers. */
#include "server/habit.h"

#include <sys/resource.h>
#include <time.h>

enum {
    WAITS_NS = 60000,       /* a step that waits so long is worth another runner's wake-up */
    COMPUTES_NS = 3000000,  /* one that computes so long loses the interpreter's lock to others in
                               its middle: its waits for that would be taken for its own */
    WEIGHT = 8,             /* a sample counts one eighth: a habit is left within 30 calls */
    SAMPLE_NS = 1000000000, /* a sample counts as no more, however long the call was */
    NS_PER_US = 1000
};

static int64_t nanoseconds(const struct timespec *time)
{
    return (int64_t)time->tv_sec * 1000000000 + time->tv_nsec;
}

int64_t habit_wall(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return nanoseconds(&now);
}

struct clocks habit_clocks(void)
{
    struct clocks clocks = {.wall = habit_wall()};
#ifdef RUSAGE_THREAD
    /* One system call for both; that of the thread's clock alone costs twice as much. */
    struct rusage usage;
    (void)getrusage(RUSAGE_THREAD, &usage);
    clocks.cpu = ((int64_t)usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000 +
                 ((int64_t)usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * NS_PER_US;
    clocks.sleeps = usage.ru_nvcsw;
#else
    struct timespec cpu;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    clocks.cpu = nanoseconds(&cpu);
    clocks.sleeps = (long)(clocks.wall / NS_PER_US); /* not known: every pause counts as a sleep */
#endif
    return clocks;
}

int64_t habit_slept(const struct clocks *from, const struct clocks *to)
{
    const int64_t off = (to->wall - from->wall) - (to->cpu - from->cpu);
    return to->sleeps == from->sleeps || off < 0 ? 0 : off;
}

static unsigned average(atomic_uint *of, int64_t sample)
{
    const int64_t bounded = sample < 0 ? 0 : sample > SAMPLE_NS ? SAMPLE_NS : sample;
    const int64_t before = atomic_load_explicit(of, memory_order_relaxed);
    const unsigned after = (unsigned)(before + (bounded - before) / WEIGHT);
    atomic_store_explicit(of, after, memory_order_relaxed);
    return after;
}

void habit_learn(struct habit *habit, int64_t waited, int64_t computed)
{
    const unsigned waits = average(&habit->waited, waited);
    const unsigned computes = average(&habit->computed, computed);
    atomic_store_explicit(&habit->waits,
                          waits > WAITS_NS && waits > computes / 4 && computes < COMPUTES_NS,
                          memory_order_relaxed);
}
