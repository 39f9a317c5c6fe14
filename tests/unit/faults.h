/* Faults that a test puts in the way of a server. The linker lets functions of the C library be
 * called through faults.c (-Wl,--wrap), where they fail as the test says; in threads of the server
 * only. Clocks are the test's as well. */
#ifndef FAULTS_H
#define FAULTS_H

#include <stdbool.h>
#include <stdint.h>

enum fault {
    FAULT_MEMORY, /* malloc, calloc, realloc, mmap */
    FAULT_ACCEPT,
    FAULT_THREAD, /* pthread_create; counted are also those that work */
    FAULT_RECV,
    FAULT_SEND,
    FAULT_WATCH, /* epoll_ctl(ADD) */
    FAULTS
};

/* Says what the calling thread is to the server. */
enum faults_role { NOT_ITS, ITS_CALLER, ITS_WORKER };
void faults_here(enum faults_role role);

/* No faults, real clocks, all counters 0. */
void faults_reset(void);

/* Lets calls fail with `error`, from the one with number `first` (1: the next one) on, `count` of
 * them. For RECV and SEND EINTR and EAGAIN count as well as what ends a connection. */
void faults_at(enum fault what, unsigned first, unsigned count, int error);

/* Lets one in `one_in` calls fail, by chance from `seed`. */
void faults_by_chance(enum fault what, unsigned one_in, int error, uint32_t seed);

/* How many calls there were, and how many of them failed. */
unsigned faults_calls(enum fault what);
unsigned faults_failed(enum fault what);

/* Allocations that were not freed, of all threads, since the reset. */
long faults_alive(void);

/* Bytes that the server has received. */
uint64_t faults_received(void);

/* Stops the clock that only goes forward, and moves it; in milliseconds. */
void faults_stop_clock(void);
void faults_move_clock(int64_t by);
/* Lets the wall's clock jump, in seconds. */
void faults_jump_wall(int64_t by);
/* How often the calling server threads have read the first of these, and any other. */
unsigned faults_clock_reads(void);
unsigned faults_wall_reads(void);

/* Holds the thread that waits for connections, once something has come for it. */
void faults_hold_poller(bool hold);

#endif
