/* Whether what a filter sends is legal where it stands. */
#ifndef BENCH_CHECK_H
#define BENCH_CHECK_H

#include "wire/protocol.h"

/* What was offered to the filter, or what it asked for. */
struct options {
    uint32_t version;
    uint32_t actions;
    uint32_t protocol;
};

/* What a legal packet from the filter is. */
enum reply_kind { REPLY_WRONG, REPLY_FINAL, REPLY_CHANGE, REPLY_PROGRESS };

/* Checks the filter's answer to OPTNEG against what was offered, and fills `asked` (sheet 2.7).
 * Returns NULL, or what is wrong. */
const char *check_negotiation(const struct mkit_packet *packet, const struct options *offered,
                              struct options *asked);

/* What came for a command so far; all zero when it is sent. */
struct answer {
    uint8_t last;  /* the packet before, 0 for none */
    bool replaced; /* a new body has begun */
};

/* Checks a packet that came in answer to `command`. Returns its kind; for REPLY_WRONG *why says
 * what is wrong. */
enum reply_kind check_reply(const struct mkit_packet *packet, uint8_t command,
                            const struct options *asked, struct answer *so_far, const char **why);

#endif
