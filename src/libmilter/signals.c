/* The signals that end a filter. They are blocked wherever callbacks run, and taken by a thread
 * that does nothing but wait for them: a later one may ask for more than the first. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "libmilter/smfi.h"

static pthread_t waiter;
static void (*got_signal)(int signal);
static atomic_bool ended;

static void ending_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
}

static void *wait_for_signal(void *arg)
{
    (void)arg;
    sigset_t set;
    int signal;
    ending_signals(&set);
    while (sigwait(&set, &signal) == 0 && !atomic_load(&ended))
        got_signal(signal);
    return NULL;
}

int mkit_signals_start(void (*got)(int signal))
{
    sigset_t set;
    ending_signals(&set);
    int error = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (error)
        return error;
    got_signal = got;
    atomic_store(&ended, false);
    return pthread_create(&waiter, NULL, wait_for_signal, NULL);
}

void mkit_signals_end(void)
{
    atomic_store(&ended, true);
    (void)pthread_kill(waiter, SIGHUP); /* for that thread alone: it wakes it */
    (void)pthread_join(waiter, NULL);
}
