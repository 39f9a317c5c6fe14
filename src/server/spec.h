/* What a socket specification stands for. */
#ifndef MKIT_SERVER_SPEC_H
#define MKIT_SERVER_SPEC_H

#include "milterkit.h"

struct spec {
    int fd; /* an inherited listening socket; -1: none, the address counts */
    socklen_t len;
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    } address;
};

/* Reads a specification. May look host and service names up. Returns 0, or MKIT_ESPEC with *why
 * a static text. */
int spec_parse(const char *text, struct spec *spec, const char **why);

#endif
