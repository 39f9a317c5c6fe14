/* The C library's functions as a server under test gets them. */
#include "faults.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

/* Of functions that have several names, the linker wraps the one that is called: meson.build finds
 * out which, CALLED_name. */
#define JOIN(prefix, symbol) prefix##symbol
#define WITH(prefix, symbol) JOIN(prefix, symbol)
#define REAL(name)           WITH(__real_, CALLED_##name)
#define WRAP(name)           WITH(__wrap_, CALLED_##name)

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *at, size_t size);
void __real_free(void *at);
void *REAL(mmap)(void *at, size_t size, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t size);
int __real_accept4(int fd, struct sockaddr *address, socklen_t *len, int flags);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg);
ssize_t __real_recv(int fd, void *to, size_t len, int flags);
ssize_t REAL(recvmsg)(int fd, struct msghdr *message, int flags);
ssize_t __real_send(int fd, const void *from, size_t len, int flags);
int __real_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __real_epoll_wait(int epoll, struct epoll_event *events, int size, int timeout);
int __real_poll(struct pollfd *fds, nfds_t count, int timeout);
int REAL(clock_gettime)(clockid_t id, struct timespec *at);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *at, size_t size);
void __wrap_free(void *at);
void *WRAP(mmap)(void *at, size_t size, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t size);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *len, int flags);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg);
ssize_t __wrap_recv(int fd, void *to, size_t len, int flags);
ssize_t WRAP(recvmsg)(int fd, struct msghdr *message, int flags);
ssize_t __wrap_send(int fd, const void *from, size_t len, int flags);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int size, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout);
int WRAP(clock_gettime)(clockid_t id, struct timespec *at);

static _Thread_local enum faults_role here;

static struct {
    atomic_uint calls;
    atomic_uint failed;
    atomic_uint first; /* 0: none */
    atomic_uint end;
    atomic_uint one_in; /* 0: none */
    atomic_uint seed;
    atomic_int error;
} faults[FAULTS];

static atomic_long alive;
static _Atomic(uint64_t) received;
static _Atomic(int64_t) clock_at; /* milliseconds; 0: the real one */
static _Atomic(int64_t) wall_by;
static atomic_uint clock_reads;
static atomic_uint wall_reads;
static atomic_bool held;

void faults_here(enum faults_role role)
{
    here = role;
}

void faults_reset(void)
{
    for (int what = 0; what < FAULTS; what++) {
        atomic_store(&faults[what].first, 0);
        atomic_store(&faults[what].one_in, 0);
        atomic_store(&faults[what].calls, 0);
        atomic_store(&faults[what].failed, 0);
    }
    atomic_store(&alive, 0);
    atomic_store(&received, 0);
    atomic_store(&clock_at, 0);
    atomic_store(&wall_by, 0);
    atomic_store(&held, false);
}

void faults_at(enum fault what, unsigned first, unsigned count, int error)
{
    atomic_store(&faults[what].first, 0);
    atomic_store(&faults[what].calls, 0);
    atomic_store(&faults[what].failed, 0);
    atomic_store(&faults[what].error, error);
    atomic_store(&faults[what].end, count > UINT32_MAX - first ? UINT32_MAX : first + count);
    atomic_store(&faults[what].first, first);
}

void faults_by_chance(enum fault what, unsigned one_in, int error, uint32_t seed)
{
    atomic_store(&faults[what].error, error);
    atomic_store(&faults[what].seed, seed);
    atomic_store(&faults[what].one_in, one_in);
}

unsigned faults_calls(enum fault what)
{
    return atomic_load(&faults[what].calls);
}

unsigned faults_failed(enum fault what)
{
    return atomic_load(&faults[what].failed);
}

/* A number that looks like chance. */
static uint32_t mix(uint32_t x)
{
    x = (x ^ x >> 16) * 0x7feb352dU;
    x = (x ^ x >> 15) * 0x846ca68bU;
    return x ^ x >> 16;
}

/* Whether this call fails; errno says why. */
static bool fails(enum fault what)
{
    if (here == NOT_ITS)
        return false;
    const unsigned number = atomic_fetch_add(&faults[what].calls, 1) + 1;
    const unsigned first = atomic_load(&faults[what].first);
    const unsigned one_in = atomic_load(&faults[what].one_in);
    const bool chosen = first && number >= first && number < atomic_load(&faults[what].end);
    if (!chosen && !(one_in && mix(number + atomic_load(&faults[what].seed)) % one_in == 0))
        return false;
    (void)atomic_fetch_add(&faults[what].failed, 1);
    errno = atomic_load(&faults[what].error);
    return true;
}

/* ------------------------------------------------------------------------------------- memory */

static void *made(void *at)
{
    if (at)
        (void)atomic_fetch_add(&alive, 1);
    return at;
}

long faults_alive(void)
{
    return atomic_load(&alive);
}

void *__wrap_malloc(size_t size)
{
    return fails(FAULT_MEMORY) ? NULL : made(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails(FAULT_MEMORY) ? NULL : made(__real_calloc(count, size));
}

void *__wrap_realloc(void *at, size_t size)
{
    if (fails(FAULT_MEMORY))
        return NULL;
    const bool fresh = at == NULL;
    at = __real_realloc(at, size);
    return fresh ? made(at) : at;
}

void __wrap_free(void *at)
{
    if (at)
        (void)atomic_fetch_sub(&alive, 1);
    __real_free(at);
}

void *WRAP(mmap)(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (fails(FAULT_MEMORY))
        return MAP_FAILED;
    return made(REAL(mmap)(at, size, protection, flags, fd, offset));
}

int __wrap_munmap(void *at, size_t size)
{
    (void)atomic_fetch_sub(&alive, 1);
    return __real_munmap(at, size);
}

/* ------------------------------------------------------------------------------- the system's */

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *len, int flags)
{
    return fails(FAULT_ACCEPT) ? -1 : __real_accept4(fd, address, len, flags);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg)
{
    return fails(FAULT_THREAD) ? errno : __real_pthread_create(thread, attr, run, arg);
}

static ssize_t counted(ssize_t got, int flags)
{
    if (here != NOT_ITS && got > 0 && !(flags & MSG_PEEK))
        (void)atomic_fetch_add(&received, (uint64_t)got);
    return got;
}

ssize_t __wrap_recv(int fd, void *to, size_t len, int flags)
{
    return fails(FAULT_RECV) ? -1 : counted(__real_recv(fd, to, len, flags), flags);
}

ssize_t WRAP(recvmsg)(int fd, struct msghdr *message, int flags)
{
    return fails(FAULT_RECV) ? -1 : counted(REAL(recvmsg)(fd, message, flags), flags);
}

uint64_t faults_received(void)
{
    return atomic_load(&received);
}

ssize_t __wrap_send(int fd, const void *from, size_t len, int flags)
{
    return fails(FAULT_SEND) ? -1 : __real_send(fd, from, len, flags);
}

int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
    if (op == EPOLL_CTL_ADD && fails(FAULT_WATCH))
        return -1;
    return __real_epoll_ctl(epoll, op, fd, event);
}

/* ------------------------------------------------------------------------------------- waiting */

void faults_hold_poller(bool hold)
{
    atomic_store(&held, hold);
}

static int after_waiting(int result)
{
    const int error = errno;
    while (here == ITS_WORKER && atomic_load(&held)) {
        static const struct timespec moment = {.tv_nsec = 1000000};
        (void)nanosleep(&moment, NULL);
    }
    errno = error;
    return result;
}

int __wrap_epoll_wait(int epoll, struct epoll_event *events, int size, int timeout)
{
    return after_waiting(__real_epoll_wait(epoll, events, size, timeout));
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout)
{
    return after_waiting(__real_poll(fds, count, timeout));
}

/* -------------------------------------------------------------------------------------- clocks */

void faults_stop_clock(void)
{
    struct timespec at;
    (void)REAL(clock_gettime)(CLOCK_MONOTONIC, &at);
    atomic_store(&clock_at, (int64_t)at.tv_sec * 1000);
}

void faults_move_clock(int64_t by)
{
    (void)atomic_fetch_add(&clock_at, by);
}

void faults_jump_wall(int64_t by)
{
    (void)atomic_fetch_add(&wall_by, by);
}

unsigned faults_clock_reads(void)
{
    return atomic_load(&clock_reads);
}

unsigned faults_wall_reads(void)
{
    return atomic_load(&wall_reads);
}

int WRAP(clock_gettime)(clockid_t id, struct timespec *at)
{
    const int result = REAL(clock_gettime)(id, at);
    if (here == NOT_ITS || (id != CLOCK_REALTIME && id != CLOCK_MONOTONIC))
        return result; /* a thread's own clock stays */
    if (id == CLOCK_REALTIME) {
        (void)atomic_fetch_add(&wall_reads, 1);
        at->tv_sec += atomic_load(&wall_by);
        return result;
    }
    (void)atomic_fetch_add(&clock_reads, 1);
    const int64_t now = atomic_load(&clock_at);
    if (now) {
        at->tv_sec = (time_t)(now / 1000);
        at->tv_nsec = (long)(now % 1000) * 1000000;
    }
    return result;
}
