/* Events: what a packet means to a filter. They point into the packet. */
#include <arpa/inet.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "session/session.h"

/* The number of a scope ("eth0", "2"): 0 for what is neither a number nor an interface here. */
static uint32_t scope_of(const char *name)
{
    char *end;
    const unsigned long long number = strtoull(name, &end, 10);
    if (name[0] >= '0' && name[0] <= '9' && *end == '\0')
        return number <= UINT32_MAX ? (uint32_t)number : 0;
    return if_nametoindex(name);
}

/* Reads "IPv6:fe80::1%eth0"; the prefix and the scope may be absent. */
static bool read_inet6(const char *text, struct sockaddr_in6 *in6)
{
    char address[INET6_ADDRSTRLEN];
    if (strncasecmp(text, "IPv6:", 5) == 0)
        text += 5;
    const size_t len = strcspn(text, "%");
    if (len >= sizeof address)
        return false;
    memcpy(address, text, len);
    address[len] = '\0';
    if (text[len])
        in6->sin6_scope_id = scope_of(text + len + 1);
    return inet_pton(AF_INET6, address, &in6->sin6_addr) == 1;
}

static int connect_event(struct mkit_session *session, const struct mkit_field *fields, int count,
                         struct mkit_event *event)
{
    event->of.connect.host = fields[0].text;
    uint32_t family = fields[1].number;
    event->of.connect.address.sa.sa_family = AF_UNSPEC;
    if (family == MKIT_FAMILY_UNKNOWN)
        return 0;
    if (family != MKIT_FAMILY_INET && family != MKIT_FAMILY_INET6 && family != MKIT_FAMILY_UNIX)
        return mkit_fail(session, MKIT_EPROTOCOL, "packet CONNECT (C): unknown family %u",
                         (unsigned)family);
    if (count < 4)
        return mkit_fail(session, MKIT_EPROTOCOL, "packet CONNECT (C): the address is missing");
    in_port_t port = htons((uint16_t)fields[2].number);
    const char *text = fields[3].text.at;
    if (family == MKIT_FAMILY_UNIX) {
        struct sockaddr_un *un = &event->of.connect.address.un;
        if (fields[3].text.len >= sizeof un->sun_path)
            return mkit_fail(session, MKIT_EPROTOCOL, "packet CONNECT (C): a path of %zu bytes",
                             fields[3].text.len);
        memset(un, 0, sizeof *un);
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, text, fields[3].text.len + 1);
        return 0;
    }
    if (family == MKIT_FAMILY_INET) {
        struct sockaddr_in *in = &event->of.connect.address.in;
        memset(in, 0, sizeof *in);
        in->sin_family = AF_INET;
        in->sin_port = port;
        if (inet_aton(text, &in->sin_addr))
            return 0;
    } else {
        struct sockaddr_in6 *in6 = &event->of.connect.address.in6;
        memset(in6, 0, sizeof *in6);
        in6->sin6_family = AF_INET6;
        in6->sin6_port = port;
        if (read_inet6(text, in6))
            return 0;
    }
    return mkit_fail(session, MKIT_EPROTOCOL, "packet CONNECT (C): \"%.40s\" is not an address",
                     text);
}

static size_t count_strings(struct mkit_text strings)
{
    size_t count = 0;
    while (mkit_next_string(&strings))
        count++;
    return count;
}

int mkit_packet_event(struct mkit_session *session, enum mkit_step step, struct mkit_event *event)
{
    struct mkit_field fields[MKIT_MAX_FIELDS];
    const char *wrong = NULL;
    int count = mkit_decode(MKIT_TO_FILTER, &session->packet, fields, &wrong);
    if (count < 0)
        return mkit_fail(session, MKIT_EPROTOCOL, "packet %s (%c): %s",
                         mkit_packet_kind(MKIT_TO_FILTER, session->packet.command)->name,
                         session->packet.command, wrong);
    switch (step) {
    case MKIT_CONNECT: return connect_event(session, fields, count, event);
    case MKIT_HELO:
    case MKIT_UNKNOWN: event->of.text = fields[0].text; return 0;
    case MKIT_MAIL:
    case MKIT_RCPT:
        event->of.args.all = fields[0].text;
        event->of.args.count = count_strings(fields[0].text);
        return 0;
    case MKIT_HEADER:
        event->of.header.name = fields[0].text;
        event->of.header.value = fields[1].text;
        if (fields[0].text.len == 0)
            return mkit_fail(session, MKIT_EPROTOCOL, "packet HEADER (L): the name is empty");
        return 0;
    case MKIT_BODY: event->of.body = fields[0].text; return 0;
    case MKIT_NEGOTIATE:
        event->of.options = &session->options;
        return mkit_negotiate_begin(session, fields);
    default: return 0;
    }
}
