/* Socket specifications, any text. Nothing is looked up outside the process: the linker puts the
 * stub below in place of getaddrinfo (-Wl,--wrap).
 * Invariant: a specification is refused with a reason, or it gives a descriptor, or an address
 * whose family, length and port are what its text says. Twice the same text, twice the same. */
#include "fuzz.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <strings.h>

#include "server/spec.h"

/* The linker's names. */
int __real_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **found);
int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **found);

/* Literals are read by the real one. Of names it knows those that begin with h, and services that
 * begin with s. */
int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **found)
{
    struct addrinfo numeric = *hints;
    numeric.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
    CHECK(!node || strlen(node) < NI_MAXHOST);
    if (service)
        return *service == 's' ? __real_getaddrinfo(NULL, "2525", &numeric, found) : EAI_SERVICE;
    int error = __real_getaddrinfo(node, NULL, &numeric, found);
    if (error && *node == 'h' && !(hints->ai_flags & AI_NUMERICHOST))
        error = __real_getaddrinfo(hints->ai_family == AF_INET ? "192.0.2.1" : "2001:db8::1", NULL,
                                   &numeric, found);
    return error;
}

static bool has_type(const char *text, const char *type)
{
    const size_t len = strlen(type);
    return strncasecmp(text, type, len) == 0 && text[len] == ':';
}

/* The port that a text begins with; -1: it is a name. */
static long port_of(const char *text)
{
    return *text >= '0' && *text <= '9' ? strtol(text, NULL, 10) : -1;
}

static void check_inet(const char *rest, int family, const struct spec *spec)
{
    const long port = port_of(rest);
    CHECK(port >= 0 || (*rest >= 'a' && *rest <= 'z') || (*rest >= 'A' && *rest <= 'Z'));
    CHECK(!strpbrk(rest, " \t\r\n"));
    CHECK(spec->address.sa.sa_family == family);
    CHECK(spec->len == (family == AF_INET ? sizeof spec->address.in : sizeof spec->address.in6));
    const unsigned got =
        ntohs(family == AF_INET ? spec->address.in.sin_port : spec->address.in6.sin6_port);
    CHECK(got == (port < 0 ? 2525U : (unsigned)port));
    if (!strpbrk(rest, "@:")) {
        if (family == AF_INET)
            CHECK(spec->address.in.sin_addr.s_addr == htonl(INADDR_ANY));
        else
            CHECK(IN6_IS_ADDR_UNSPECIFIED(&spec->address.in6.sin6_addr));
    }
}

static void check_spec(const char *text, const struct spec *spec)
{
    const char *colon = strchr(text, ':');
    const char *rest = colon ? colon + 1 : text;
    if (has_type(text, "fd")) {
        CHECK(spec->fd >= 0 && spec->fd == strtol(rest, NULL, 10) && spec->len == 0);
        return;
    }
    CHECK(spec->fd == -1);
    if (has_type(text, "inet") || has_type(text, "inet6")) {
        check_inet(rest, has_type(text, "inet") ? AF_INET : AF_INET6, spec);
        return;
    }
    CHECK(!colon || colon == text || has_type(text, "unix") || has_type(text, "local"));
    CHECK(spec->address.sa.sa_family == AF_UNIX && spec->len == sizeof spec->address.un);
    CHECK(strspn(rest, "0123456789") < strlen(rest) || (colon && colon != text));
    CHECK(strlen(rest) <= 106 && *rest && strcmp(rest, spec->address.un.sun_path) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = (char *)malloc(size + 1);
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    struct spec spec;
    struct spec again;
    const char *why = NULL;
    const int error = spec_parse(text, &spec, &why);
    if (error)
        CHECK(error == MKIT_ESPEC && why && *why);
    else
        check_spec(text, &spec);
    CHECK(spec_parse(text, &again, &why) == error);
    CHECK(error || memcmp(&spec, &again, sizeof spec) == 0);
    CHECK(mkit_check_spec(text, NULL) == error);
    free(text);
    return 0;
}
