/* The milter protocol's packets: codes, layouts, and the functions from bytes to fields and back.
 * Both directions, the milter's and the MTA's. No I/O, no allocation, no state. Flags and verdicts
 * that filters see are in milterkit.h. Source: docs/protocol.md, section 1. */
#ifndef MKIT_WIRE_PROTOCOL_H
#define MKIT_WIRE_PROTOCOL_H

#include "milterkit.h"

enum {
    MKIT_VERSION_MIN = 2,
    MKIT_VERSION_MAX = 6,
    MKIT_HEADER_LEN = 5,   /* length and command */
    MKIT_LENGTH_LEN = 4,   /* the length alone */
    MKIT_CHUNK = 65535,    /* bytes of body in one packet, both ways */
    MKIT_MAX_SEND = 65535, /* bytes of data in one packet that we send */
    MKIT_OPTNEG_LEN = 12,  /* version, actions, protocol */
    MKIT_MAX_FIELDS = 32
};

/* Commands, MTA to filter. */
enum mkit_command {
    MKIT_C_ABORT = 'A',
    MKIT_C_BODY = 'B',
    MKIT_C_CONNECT = 'C',
    MKIT_C_MACRO = 'D',
    MKIT_C_BODYEOB = 'E',
    MKIT_C_HELO = 'H',
    MKIT_C_QUIT_NC = 'K',
    MKIT_C_HEADER = 'L',
    MKIT_C_MAIL = 'M',
    MKIT_C_EOH = 'N',
    MKIT_C_OPTNEG = 'O',
    MKIT_C_QUIT = 'Q',
    MKIT_C_RCPT = 'R',
    MKIT_C_DATA = 'T',
    MKIT_C_UNKNOWN = 'U'
};

/* Replies, filter to MTA. */
enum mkit_reply {
    MKIT_R_ADDRCPT = '+',
    MKIT_R_DELRCPT = '-',
    MKIT_R_ADDRCPT_PAR = '2',
    MKIT_R_SHUTDOWN = '4',
    MKIT_R_OPTNEG = 'O',
    MKIT_R_ACCEPT = 'a',
    MKIT_R_REPLBODY = 'b',
    MKIT_R_CONTINUE = 'c',
    MKIT_R_DISCARD = 'd',
    MKIT_R_CHGFROM = 'e',
    MKIT_R_CONN_FAIL = 'f',
    MKIT_R_ADDHEADER = 'h',
    MKIT_R_INSHEADER = 'i',
    MKIT_R_SETSYMLIST = 'l',
    MKIT_R_CHGHEADER = 'm',
    MKIT_R_PROGRESS = 'p',
    MKIT_R_QUARANTINE = 'q',
    MKIT_R_REJECT = 'r',
    MKIT_R_SKIP = 's',
    MKIT_R_TEMPFAIL = 't',
    MKIT_R_REPLYCODE = 'y'
};

/* The client's address family in a CONNECT packet. */
enum mkit_family {
    MKIT_FAMILY_INET = '4',
    MKIT_FAMILY_INET6 = '6',
    MKIT_FAMILY_UNIX = 'L',
    MKIT_FAMILY_UNKNOWN = 'U'
};

enum mkit_direction { MKIT_TO_FILTER, MKIT_TO_MTA };

/* A packet in a buffer: not a copy. */
struct mkit_packet {
    uint8_t command;
    const uint8_t *data;
    size_t len;
};

/* One field of a packet: a number, or bytes. Which, the packet's layout tells. */
struct mkit_field {
    uint32_t number;
    struct mkit_text text;
};

/* What a packet is. `layout` has one letter a field:
 *   u  32-bit number          w  16-bit number         c  one byte, as a number
 *   f  one byte, an address family: after `U` nothing more is read
 *   z  NUL-terminated string  a  one or more NUL-terminated strings, as one text
 *   *  all that is left, raw  b  the same, but at least one byte
 *   ?  what follows may be absent as a whole
 *   &  what follows may be repeated, or absent */
struct mkit_packet_kind {
    uint8_t command;
    const char *name; /* as the protocol's own constants are called, without prefix */
    const char *layout;
};

/* names.c ---------------------------------------------------------------------------------- */

/* Finds a packet's kind. NULL if there is no such command in that direction. */
const struct mkit_packet_kind *mkit_packet_kind(enum mkit_direction direction, uint8_t command);

/* Names of flag bits ("ADDHDRS", "NR_HDR"), for logs. NULL for a bit without a name. */
const char *mkit_action_name(uint32_t bit);
const char *mkit_protocol_name(uint32_t bit);

/* frame.c ---------------------------------------------------------------------------------- */

/* Reads one packet from the front of `buffer`. Returns the bytes that it takes, 0 if there are not
 * enough yet (then *need, if not NULL, is how many it takes as far as known), MKIT_EPROTOCOL for a
 * length of 0, MKIT_ELIMIT for more than `max_data` bytes of data (then packet->command and
 * packet->len are set). The packet points into the buffer. */
ssize_t mkit_frame_read(const uint8_t *buffer, size_t len, size_t max_data,
                        struct mkit_packet *packet, size_t *need);

/* decode.c --------------------------------------------------------------------------------- */

/* Splits a packet's data into fields by its kind's layout. Replies must have nothing left over;
 * with commands what is left over is ignored, as libmilter does (sheet 1.4), but strings must be
 * terminated. Returns the number of fields, or MKIT_EPROTOCOL with *why a static text. Fields
 * that are absent are not counted. They point into the packet. */
int mkit_decode(enum mkit_direction direction, const struct mkit_packet *packet,
                struct mkit_field fields[MKIT_MAX_FIELDS], const char **why);

/* encode.c --------------------------------------------------------------------------------- */

/* Writes a packet, header included, if it fits into `size` bytes. Texts need no NUL of their own:
 * layout letter z adds it. Fewer fields than the layout names stand for absent ones. Returns the
 * packet's full length whether it fitted or not, 0 if the fields do not suit the layout. */
size_t mkit_encode(enum mkit_direction direction, uint8_t command, const struct mkit_field *fields,
                   size_t count, uint8_t *buffer, size_t size);

#endif
