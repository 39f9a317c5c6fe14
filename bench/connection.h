/* One connection of the load generator: the MTA's side of the protocol over a socket. */
#ifndef BENCH_CONNECTION_H
#define BENCH_CONNECTION_H

#include <sys/un.h>

#include "check.h"
#include "script.h"
#include "times.h"

/* What to do, the same for all connections. */
struct load {
    struct sockaddr_storage address;
    socklen_t address_len;
    struct mail mail;
    struct options offered;
    bool aborts;      /* ABORT after each message */
    unsigned timeout; /* seconds without any reply */
    size_t piece;     /* bytes of one write, at most */
    uint64_t until;   /* times_now() from which no message is begun; 0: never */
    int epoll;
};

/* What came of it, over all connections. */
struct results {
    uint64_t connections;
    uint64_t at_once; /* the most connections with messages that were open together */
    uint64_t messages;
    uint64_t verdicts[128]; /* of messages, by the reply that decided them */
    uint64_t changes;       /* modification packets */
    uint64_t packets_sent;
    uint64_t packets_received;
    uint64_t bytes_sent;
    uint64_t bytes_received;
    uint64_t octets; /* of headers and bodies, of messages that were sent whole */
    uint64_t errors;
    uint64_t lost;         /* messages that were not sent because of an error */
    struct options asked;  /* by the last connection */
    uint64_t served;       /* connections with messages that got a verdict in time */
    uint64_t last_verdict; /* times_now() */
    uint64_t gap;          /* the longest time between two verdicts, ns */
    struct times message_times;
    struct times reply_times;
};

enum phase { NEGOTIATING, GREETING, READY, MESSAGE, QUITTING, CLOSED };

struct connection {
    unsigned number;
    int fd;
    enum phase phase;
    bool idle;              /* sends no messages */
    uint64_t messages_left; /* the one being sent included */
    bool served;            /* it got a verdict, before the time was over */

    struct options asked;
    const struct scripts *scripts;
    const struct script *script;
    size_t step;      /* awaited, or to be sent next */
    bool awaiting;    /* a reply to `step` */
    unsigned refused; /* recipients of this message */
    struct answer answer;
    uint64_t message_began;
    uint64_t group_began;

    const uint8_t *out; /* not yet written; shared, not owned */
    size_t out_len;
    bool polling_out;
    uint8_t *in;
    size_t in_len;
    size_t in_size;
};

/* Opens a connection that sends `messages` and then quits, or with 0 stays idle once it has
 * greeted (phase READY) until connection_quit. Errors are counted and printed, here and below;
 * phase is then CLOSED. */
void connection_open(struct connection *c, const struct load *load, struct results *results,
                     uint64_t messages);

/* Goes on after epoll said that it can. */
void connection_ready(struct connection *c, const struct load *load, struct results *results);

/* Ends an idle connection as an MTA does; the filter is to close it. */
void connection_quit(struct connection *c, const struct load *load, struct results *results);

/* Whether the time for beginning messages is over. */
bool load_is_over(const struct load *load);

/* Counts an error for having waited too long, and closes. */
void connection_timed_out(struct connection *c, const struct load *load, struct results *results);

#endif
