/* What Linux tells of this process. */
#include "procfs.h"

#include <stdio.h>
#include <sys/resource.h>

unsigned sleeps_of(pid_t tid)
{
    char path[64];
    char line[128];
    unsigned sleeps = 0;
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/status", (int)tid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        (void)sscanf(line, "voluntary_ctxt_switches: %u", &sleeps);
    if (file)
        (void)fclose(file);
    return sleeps;
}

unsigned allow_files(unsigned count)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return 0;
    if (files.rlim_max < count) { /* root may */
        struct rlimit more = {.rlim_cur = count, .rlim_max = count};
        if (setrlimit(RLIMIT_NOFILE, &more) == 0)
            return count;
    }
    files.rlim_cur = files.rlim_max < count ? files.rlim_max : count;
    return setrlimit(RLIMIT_NOFILE, &files) == 0 ? (unsigned)files.rlim_cur : 0;
}
