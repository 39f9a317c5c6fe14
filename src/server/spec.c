/* Socket specifications: text to address (sheet 5.2, and what programs write beyond it). */
#include "server/spec.h"

#include <arpa/inet.h>
#include <limits.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int fail(const char **why, const char *text)
{
    *why = text;
    return MKIT_ESPEC;
}

/* Whether there is nothing but digits, and at least one. */
static bool is_number(const char *text)
{
    return *text && text[strspn(text, "0123456789")] == '\0';
}

static int parse_unix(const char *path, struct spec *spec, const char **why)
{
    struct sockaddr_un *un = &spec->address.un;
    size_t len = strlen(path);
    if (len == 0)
        return fail(why, "the path is missing");
    if (len + 1 >= sizeof un->sun_path)
        return fail(why, "the path is longer than 106 bytes");
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, len + 1);
    spec->len = sizeof *un;
    return 0;
}

/* A decimal number up to `max` that ends at `end`. Returns -1 if it is none. */
static long parse_number(const char *text, const char *end, long max)
{
    long long value = 0; /* one more digit than `max` fits in */
    if (text == end)
        return -1;
    for (; text < end; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        value = value * 10 + (*text - '0');
        if (value > max)
            return -1;
    }
    return (long)value;
}

/* A number, or the name of a service, which begins with a letter: the system's own functions take
 * blanks and signs for the start of a number, and numbers modulo 65536. */
static int parse_port(const char *text, const char *end, in_port_t *port, const char **why)
{
    if (text == end)
        return fail(why, "the port is missing");
    long number = parse_number(text, end, UINT16_MAX);
    if (number >= 0) {
        *port = htons((uint16_t)number);
        return 0;
    }
    char name[64];
    size_t len = (size_t)(end - text);
    const bool is_name = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z');
    if (!is_name || len >= sizeof name)
        return fail(why, "the port is not a number from 0 to 65535");
    memcpy(name, text, len);
    name[len] = '\0';
    const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    if (getaddrinfo(NULL, name, &hints, &found) != 0)
        return fail(why, "no service of that name is known: give the port as a number");
    *port = ((const struct sockaddr_in *)(const void *)found->ai_addr)->sin_port;
    freeaddrinfo(found);
    return 0;
}

static void any_address(int family, struct spec *spec)
{
    if (family == AF_INET) {
        spec->address.in = (struct sockaddr_in){.sin_family = AF_INET};
        spec->len = sizeof spec->address.in;
    } else {
        spec->address.in6 =
            (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = in6addr_any};
        spec->len = sizeof spec->address.in6;
    }
}

/* A host's address of the family. A literal stands in brackets, or alone. */
static int parse_host(int family, const char *host, struct spec *spec, const char **why)
{
    char literal[NI_MAXHOST];
    size_t len = strlen(host);
    bool brackets = len > 1 && host[0] == '[' && host[len - 1] == ']';
    if (brackets) {
        host++;
        len -= 2;
    }
    if (len == 0 || len >= sizeof literal)
        return fail(why, "the host is missing or too long");
    memcpy(literal, host, len);
    literal[len] = '\0';
    const char *text = literal;
    if (brackets && family == AF_INET6 && strncasecmp(text, "IPv6:", 5) == 0)
        text += 5;
    const struct addrinfo hints = {
        .ai_family = family,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = brackets ? AI_NUMERICHOST : 0,
    };
    struct addrinfo *found;
    if (getaddrinfo(text, NULL, &hints, &found) != 0)
        return fail(why, brackets ? "the address in brackets is not one of this family"
                                  : "the host has no address of this family");
    memcpy(&spec->address, found->ai_addr, found->ai_addrlen);
    spec->len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

/* Whether it is HOST:PORT, as Postfix writes it. */
static bool is_postfix_order(const char *rest)
{
    const char *colon = strrchr(rest, ':');
    return colon && colon != rest && is_number(colon + 1);
}

/* PORT, PORT@HOST; some programs write PORT:HOST. */
static int parse_inet(int family, const char *rest, struct spec *spec, const char **why)
{
    for (const char *at = rest; *at; at++)
        if ((unsigned char)*at <= ' ' || *at == 0x7f)
            return fail(why, "there are blanks in it");
    size_t port_len = strcspn(rest, "@:");
    in_port_t port;
    int error = parse_port(rest, rest + port_len, &port, why);
    if (error)
        return is_postfix_order(rest)
                   ? fail(why, "the port comes before the host: write inet:8894@127.0.0.1")
                   : error;
    any_address(family, spec);
    if (rest[port_len])
        error = parse_host(family, rest + port_len + 1, spec, why);
    if (error)
        return error;
    if (family == AF_INET)
        spec->address.in.sin_port = port;
    else
        spec->address.in6.sin6_port = port;
    return 0;
}

static int parse_fd(const char *rest, struct spec *spec, const char **why)
{
    long fd = parse_number(rest, rest + strlen(rest), INT_MAX);
    if (fd < 0)
        return fail(why, "the descriptor is not a number");
    spec->fd = (int)fd;
    return 0;
}

int spec_parse(const char *text, struct spec *spec, const char **why)
{
    *spec = (struct spec){.fd = -1};
    if (!text || !*text)
        return fail(why, "it is empty: write unix:PATH, inet:PORT@HOST, inet6:PORT@HOST or fd:N");
    const char *colon = strchr(text, ':');
    if (is_number(colon == text ? text + 1 : text))
        return fail(why, "a port needs its type: write inet:8894@127.0.0.1 (or unix:8894, a file)");
    if (!colon)
        return parse_unix(text, spec, why);
    const char *rest = colon + 1;
    size_t len = (size_t)(colon - text);
    struct {
        const char *name;
        int kind;
    } kinds[] = {{"", 'u'},     {"unix", 'u'},  {"local", 'u'},
                 {"inet", '4'}, {"inet6", '6'}, {"fd", 'f'}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strlen(kinds[i].name) != len || strncasecmp(kinds[i].name, text, len) != 0)
            continue;
        switch (kinds[i].kind) {
        case 'u': return parse_unix(rest, spec, why);
        case 'f': return parse_fd(rest, spec, why);
        default: return parse_inet(kinds[i].kind == '4' ? AF_INET : AF_INET6, rest, spec, why);
        }
    }
    return fail(why, "the socket type is unknown: write unix:, inet:, inet6: or fd:");
}

bool mkit_same_spec(const char *one, const char *other)
{
    struct spec specs[2];
    const char *ignored;
    return spec_parse(one, &specs[0], &ignored) == 0 &&
           spec_parse(other, &specs[1], &ignored) == 0 && specs[0].fd == specs[1].fd &&
           specs[0].len == specs[1].len &&
           memcmp(&specs[0].address, &specs[1].address, specs[0].len) == 0;
}

int mkit_check_spec(const char *text, const char **why)
{
    struct spec spec;
    const char *ignored;
    return spec_parse(text, &spec, why ? why : &ignored);
}
