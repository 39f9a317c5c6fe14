/* The MTA's end of a connection to a server. */
#include "client.h"

#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "rig.h"
#include "wire/bytes.h"

int client_connect(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    (void)snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&un, sizeof un) == 0)
        return fd;
    if (fd >= 0)
        (void)close(fd);
    return -1;
}

bool say(int fd, const char *notation)
{
    static const struct rig none;
    uint8_t bytes[1 << 12];
    const size_t len = rig_bytes(&none, notation, false, bytes, sizeof bytes);
    return send(fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static bool read_all(int fd, void *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        struct pollfd readable = {.fd = fd, .events = POLLIN};
        if (poll(&readable, 1, DEADLINE_S * 1000) != 1)
            return false;
        const ssize_t got = recv(fd, (char *)to + done, len - done, 0);
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

bool hear(int fd, char *letter)
{
    uint8_t head[5];
    uint8_t data[256];
    if (!read_all(fd, head, sizeof head) || get_u32(head) > sizeof data ||
        !read_all(fd, data, get_u32(head) - 1))
        return false;
    *letter = (char)head[4];
    return true;
}

bool hears(int fd, const char *letters)
{
    while (*letters) {
        char letter;
        if (!hear(fd, &letter))
            return false;
        if (letter != 'h' && letter != *letters++)
            return false;
    }
    return true;
}

bool hears_end(int fd)
{
    char byte;
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    return poll(&readable, 1, DEADLINE_S * 1000) == 1 && recv(fd, &byte, 1, 0) <= 0;
}
