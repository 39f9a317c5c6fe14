/* The filter of waiting.py in C, on libmilter's API: for the system's libmilter, and for any other
 * library with that API. waiting.py says what it does. Usage: waiting PATH DEED */
#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <libmilter/mfapi.h>

enum { LOOKUPS = 2, LONG_US = 1000000, LONG_MESSAGE = 1000, PATIENCE_S = 5 };

static const uint8_t question[] = "\1\0\0\1\0\0\0\0\0\0\4mail\7example\3com\0\0\1\0"
                                  "\1";
static atomic_uint messages;
static long number;
static int (*deed)(long number); /* returns 0, or -1 after having said why */

static int sleep_for(long us)
{
    const struct timespec time = {us / 1000000, us % 1000000 * 1000};
    return nanosleep(&time, NULL);
}

static int64_t thread_time_ns(void)
{
    struct timespec used;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

static int spin(long us)
{
    const int64_t end = thread_time_ns() + (int64_t)us * 1000;
    while (thread_time_ns() < end)
        continue;
    return 0;
}

/* Asks once; fails if there is no right answer. */
static int ask(int fd, long port, uint8_t id)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons((uint16_t)port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval patience = {.tv_sec = PATIENCE_S};
    uint8_t bytes[512] = {0, id};
    const size_t len = 2 + sizeof question - 1; /* without the end of the string */
    (void)memcpy(bytes + 2, question, sizeof question - 1);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) ||
        connect(fd, (const struct sockaddr *)&address, sizeof address) ||
        send(fd, bytes, len, 0) < 0)
        return -1;
    const ssize_t got = recv(fd, bytes, sizeof bytes, 0);
    return got > (ssize_t)len && bytes[1] == id && bytes[7] == 1 ? 0 : -1;
}

static int look_up(long port)
{
    int result = 0;
    for (uint8_t i = 0; i < LOOKUPS && result == 0; i++) {
        const int fd = socket(AF_INET, SOCK_DGRAM, 0);
        result = fd < 0 ? -1 : ask(fd, port, i);
        if (result)
            (void)fprintf(stderr, "waiting: no answer from the DNS server: %s\n", strerror(errno));
        if (fd >= 0)
            (void)close(fd);
    }
    return result;
}

static int long_sleep(long us)
{
    return atomic_fetch_add(&messages, 1) + 1 == LONG_MESSAGE ? sleep_for(LONG_US) : spin(us);
}

static int long_spin(long us)
{
    return spin(atomic_fetch_add(&messages, 1) + 1 == LONG_MESSAGE ? LONG_US : us);
}

static sfsistat on_eom(SMFICTX *ctx)
{
    (void)ctx;
    return deed(number) ? SMFIS_TEMPFAIL : SMFIS_CONTINUE;
}

/* Reads the deed, NAME:NUMBER. Returns 0, or -1 if there is no such deed. */
static int parse(const char *text)
{
    static const struct {
        const char *name;
        int (*run)(long number);
    } deeds[] = {{"sleep", sleep_for},
                 {"lookup", look_up},
                 {"spin", spin},
                 {"long-sleep", long_sleep},
                 {"long-spin", long_spin}};
    const size_t len = strcspn(text, ":");
    if (text[len] != ':')
        return -1;
    number = strtol(text + len + 1, NULL, 10);
    for (size_t i = 0; i < sizeof deeds / sizeof *deeds; i++)
        if (strlen(deeds[i].name) == len && strncmp(deeds[i].name, text, len) == 0)
            deed = deeds[i].run;
    return deed ? 0 : -1;
}

int main(int argc, char **argv)
{
    char name[] = "waiting";
    if (argc != 3 || parse(argv[2])) {
        (void)fputs("usage: waiting PATH DEED\n", stderr);
        return 2;
    }
    struct smfiDesc filter = {.xxfi_name = name, .xxfi_version = SMFI_VERSION, .xxfi_eom = on_eom};
    if (smfi_setconn(argv[1]) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS)
        return 1;
    return smfi_main() == MI_SUCCESS ? 0 : 1;
}
