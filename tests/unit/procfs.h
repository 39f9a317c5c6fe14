/* What Linux tells of this process: its threads, and how many files it may open. */
#ifndef PROCFS_H
#define PROCFS_H

#include <sys/types.h>

/* How often a thread has gone to sleep since it began; what never wakes does so no more. */
unsigned sleeps_of(pid_t tid);

/* Lets the process have so many descriptors, or as many as it may. Returns how many. */
unsigned allow_files(unsigned count);

#endif
