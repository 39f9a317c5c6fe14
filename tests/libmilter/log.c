/* Preloaded into a filter: what it writes to the system's log goes to standard error as well. */

#include <syslog.h>

__attribute__((constructor)) static void begin(void)
{
    openlog("filter", LOG_PERROR, LOG_MAIL);
}
