/* What the load generator says to a filter: made once, as bytes, and shared by all connections
 * that negotiated the same. */
#ifndef BENCH_SCRIPT_H
#define BENCH_SCRIPT_H

#include "wire/protocol.h"

/* The messages to send; they are all alike. */
struct mail {
    unsigned headers;    /* how many */
    unsigned recipients; /* how many */
    size_t body;         /* bytes */
};

/* One command with the macros before it. */
struct step {
    uint8_t command;
    bool reply;       /* the filter answers it */
    unsigned packets; /* macros and command */
    size_t begin;     /* its bytes in the script */
    size_t end;
};

/* Commands in the order they are sent. */
struct script {
    uint8_t *bytes;
    size_t len;
    size_t size;
    struct step *steps;
    size_t count;
};

/* Both parts of a connection, for what one filter asked for. */
struct scripts {
    uint32_t version;
    uint32_t protocol;
    size_t octets; /* of header names and values and of body that a message's filter sees */
    struct script greeting; /* connect, helo */
    struct script message;  /* envfrom to end of message */
    struct scripts *next;
};

/* Finds or makes the scripts for what was negotiated: steps with a NO* bit or unknown to the
 * version are left out (the macros that an MTA sends all the same stay), those with an NR_* bit
 * expect no reply. They live until the program ends. Ends the program without memory. */
const struct scripts *scripts_for(const struct mail *mail, uint32_t version, uint32_t protocol);

/* The step that follows `step` when the filter wants no more of its command (SKIP). */
size_t script_skip(const struct script *script, size_t step);

#endif
