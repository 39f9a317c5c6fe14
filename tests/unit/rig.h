/* A session on a test bench: bytes go in by the protocol sheet's notation, events and output are
 * recorded, verdicts come from the test. The rig itself allocates nothing, so that tests can let
 * every allocation fail. */
#ifndef RIG_H
#define RIG_H

#include "milterkit.h"

struct rig {
    struct mkit_filter filter;
    struct mkit_session *session;
    int (*answer)(struct rig *rig, const struct mkit_event *event); /* NULL: always CONTINUE */
    void *data;                                                     /* of the test */
    int result;                                                     /* of the last next */
    int answered;                                                   /* result of the last answer */
    unsigned seen[MKIT_STEPS];                                      /* events so far */
    uint8_t out[1 << 20];                                           /* all that was sent */
    size_t out_len;
    char events[1 << 16]; /* one text after the other: "envfrom(<a@b>)" */
    size_t events_len;
    char log[1 << 13]; /* one line after the other */
    size_t log_len;
};

/* Readies a filter that is asked at every step but negotiate. The test may change rig->filter
 * until rig_start makes the session. */
void rig_open(struct rig *rig, enum mkit_degree degree);
void rig_start(struct rig *rig);

/* Feeds bytes, or what a notation stands for, and serves all events. */
void rig_feed(struct rig *rig, const void *bytes, size_t len);
void rig_in(struct rig *rig, const char *notation);

/* Serves events until there is none. */
void rig_run(struct rig *rig);

/* Asserts what was sent and seen since the last such call. An expected event without parentheses
 * stands for any arguments. */
void rig_expect_out(struct rig *rig, const char *notation);
void rig_expect_events(struct rig *rig, const char *expected);

/* Ends the session and frees it. Asserts that the filter's last event was close. */
void rig_close(struct rig *rig);

/* Turns a notation into bytes. Words, separated by white space:
 *   13:O\0\0...   a packet; the number is the length of what follows, which is checked
 *   hex:0000      raw bytes
 *   big:B65535    a packet of command B and that many bytes x; bigz: a NUL follows them
 *   G M R T ...   packets that the sheet's section 9 has letters for (`to_mta` false), or
 *   c a r t d s p the replies without data (`to_mta` true); G is the prefix in both directions.
 * Escapes: \0 \r \n \t \\ \xNN. */
size_t rig_bytes(const struct rig *rig, const char *notation, bool to_mta, uint8_t *to,
                 size_t size);

/* Undoes the escapes of `len` characters at `from`. Returns how many bytes it wrote to `to`. */
size_t rig_unescape(const char *from, size_t len, uint8_t *to);

#endif
