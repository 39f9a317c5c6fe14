/* A DNS server on loopback that answers every question with one address, a fixed time after it
 * came, many at once. It reads no more of a question than it must. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "times.h"

enum {
    HEADER = 12,
    QUESTION = 400,
    KEPT = 1 << 14, /* questions that wait for their answers, at most */
    BUFFER = 1 << 22,
    MAX_DELAY_US = 10000000
};

/* The answer's record: the question's name, A, IN, one minute, 192.0.2.1. */
static const uint8_t record[] = {0xC0, HEADER, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1};

struct question {
    uint64_t due; /* times_now() */
    struct sockaddr_in from;
    size_t len;
    uint8_t bytes[QUESTION + sizeof record];
};

/* The delay is the same for all, so the first that came is the first that is due. */
static struct question kept[KEPT];
static size_t first, count;

static void fail(const char *text)
{
    (void)fprintf(stderr, "resolver: %s: %s\n", text, strerror(errno));
    exit(1);
}

/* Makes a question the answer to itself. */
static void make_answer(struct question *q)
{
    static const uint8_t flags_and_counts[] = {0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0};
    (void)memcpy(q->bytes + 2, flags_and_counts, sizeof flags_and_counts);
    (void)memcpy(q->bytes + q->len, record, sizeof record);
    q->len += sizeof record;
}

/* Takes all questions that have come. */
static void take_questions(int fd, uint64_t delay)
{
    while (count < KEPT) {
        struct question *q = &kept[(first + count) % KEPT];
        socklen_t size = sizeof q->from;
        const ssize_t got = recvfrom(fd, q->bytes, QUESTION, 0, (struct sockaddr *)&q->from, &size);
        if (got < 0) {
            if (errno != EAGAIN && errno != EINTR)
                fail("recvfrom");
            return;
        }
        if (got <= HEADER)
            continue;
        q->len = (size_t)got;
        q->due = times_now() + delay;
        make_answer(q);
        count++;
    }
}

/* Sends the answers that are due. */
static void send_answers(int fd)
{
    while (count && kept[first].due <= times_now()) {
        const struct question *q = &kept[first];
        /* One that asked and is gone gets no answer. */
        (void)sendto(fd, q->bytes, q->len, 0, (const struct sockaddr *)&q->from, sizeof q->from);
        first = (first + 1) % KEPT;
        count--;
    }
}

/* Waits for a question, or until an answer is due. Returns whether the standard input has ended. */
static int wait_for_work(int fd)
{
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    struct timespec left = {0};
    if (count) {
        const uint64_t now = times_now();
        const uint64_t ns = kept[first].due > now ? kept[first].due - now : 0;
        left.tv_sec = (time_t)(ns / 1000000000U);
        left.tv_nsec = (long)(ns % 1000000000U);
    }
    char bytes[64];
    if (ppoll(fds, 2, count ? &left : NULL, NULL) < 0 && errno != EINTR)
        fail("ppoll");
    return fds[1].revents && read(STDIN_FILENO, bytes, sizeof bytes) <= 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    char *end = NULL;
    const unsigned long delay_us = argc == 2 ? strtoul(argv[1], &end, 10) : 0;
    if (!end || end == argv[1] || *end || delay_us > MAX_DELAY_US) {
        (void)fputs(
            "usage: resolver MICROSECONDS\n"
            "Answers DNS questions by UDP on a port of 127.0.0.1, which it prints, each so\n"
            "long (at most 10 seconds) after it came; ends when the standard input ends.\n",
            stderr);
        return 2;
    }
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int buffer = BUFFER; /* as far as the system allows */
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) ||
        getsockname(fd, (struct sockaddr *)&address, &size))
        fail("no socket");
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    (void)prctl(PR_SET_TIMERSLACK, 1UL); /* wakes up when it is time, not 50 us later */
    (void)printf("%u\n", (unsigned)ntohs(address.sin_port));
    (void)fflush(stdout);
    while (!wait_for_work(fd)) {
        take_questions(fd, delay_us * 1000);
        send_answers(fd);
    }
    return 0;
}
