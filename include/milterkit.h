/* milterkit.h: the C API of the Milterkit engine: filter, session, server.
 * The only header a program on the engine needs; libmilter's own API is another one.
 *
 * A *filter* says what to do at each step of a message. A *session* is the protocol of one MTA
 * connection, without any I/O. A *server* owns sockets and threads and runs sessions.
 * "Sheet" in the comments is docs/protocol.md. All text is bytes; nothing assumes a charset. */
#ifndef MILTERKIT_H
#define MILTERKIT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MKIT_API __attribute__((visibility("default")))
#else
#define MKIT_API
#endif

/* ------------------------------------------------------------------------------- errors */

/* Every function that can fail returns 0 or one of these. */
enum mkit_error {
    MKIT_OK = 0,         /* it did not fail */
    MKIT_ENOMEM = -1,    /* no memory */
    MKIT_EINVAL = -2,    /* an argument is not valid */
    MKIT_ESTEP = -3,     /* not allowed at this step of the session */
    MKIT_EACTION = -4,   /* the action was not negotiated with the MTA */
    MKIT_ETEXT = -5,     /* a text that the MTA would refuse or misread */
    MKIT_ETOOBIG = -6,   /* larger than a packet can be */
    MKIT_EPROTOCOL = -7, /* the MTA broke the protocol */
    MKIT_ELIMIT = -8,    /* the MTA passed a limit of the filter */
    MKIT_ECLOSED = -9,   /* the MTA has closed the connection */
    MKIT_ETIMEOUT = -10, /* the MTA did not read or write in time */
    MKIT_ESPEC = -11,    /* not a socket specification */
    MKIT_ESOCKET = -12,  /* the operating system refused a socket operation; see errno */
    MKIT_EBUSY = -13,    /* already running, or still in use */
    MKIT_ETHREAD = -14   /* no thread could be started */
};

/* Returns the name of an error code, such as "MKIT_EINVAL". Never NULL; static. */
MKIT_API const char *mkit_error_name(int error);

/* Returns a short text for an error code. Never NULL; static. */
MKIT_API const char *mkit_error_text(int error);

/* The engine's version, "major.minor.patch". Static. */
MKIT_API const char *mkit_version(void);

/* ----------------------------------------------------------------- constants of the field */

/* Actions: what a filter may do to a message (sheet 2.2). */
enum mkit_action {
    MKIT_ADDHDRS = 0x001,     /* add and insert headers */
    MKIT_CHGBODY = 0x002,     /* replace the body */
    MKIT_ADDRCPT = 0x004,     /* add recipients */
    MKIT_DELRCPT = 0x008,     /* remove recipients */
    MKIT_CHGHDRS = 0x010,     /* change and delete headers */
    MKIT_QUARANTINE = 0x020,  /* have the message held */
    MKIT_CHGFROM = 0x040,     /* change the sender */
    MKIT_ADDRCPT_PAR = 0x080, /* add recipients with ESMTP parameters */
    MKIT_SETSYMLIST = 0x100,  /* ask for macros */
    MKIT_V1_ACTIONS = 0x00f,  /* those of the protocol's version 1 */
    MKIT_V2_ACTIONS = 0x03f,  /* those of version 2 */
    MKIT_ALL_ACTIONS = 0x1ff  /* all that there are */
};

/* Protocol options (sheet 2.3): `NO*` the MTA does not send the step, `NR_*` it awaits no reply. */
enum mkit_protocol {
    MKIT_NOCONNECT = 0x00000001,   /* the MTA does not send the client */
    MKIT_NOHELO = 0x00000002,      /* the MTA does not send HELO and EHLO */
    MKIT_NOMAIL = 0x00000004,      /* the MTA does not send the sender */
    MKIT_NORCPT = 0x00000008,      /* the MTA does not send a recipient */
    MKIT_NOBODY = 0x00000010,      /* the MTA does not send a chunk of the body */
    MKIT_NOHDRS = 0x00000020,      /* the MTA does not send a header */
    MKIT_NOEOH = 0x00000040,       /* the MTA does not send the end of the headers */
    MKIT_NR_HDR = 0x00000080,      /* no reply to a header */
    MKIT_NOUNKNOWN = 0x00000100,   /* the MTA does not send an unknown command */
    MKIT_NODATA = 0x00000200,      /* the MTA does not send DATA */
    MKIT_SKIPPING = 0x00000400,    /* the filter may answer SKIP */
    MKIT_RCPT_REJ = 0x00000800,    /* the MTA also sends recipients that it rejected */
    MKIT_NR_CONN = 0x00001000,     /* no reply to the client */
    MKIT_NR_HELO = 0x00002000,     /* no reply to HELO and EHLO */
    MKIT_NR_MAIL = 0x00004000,     /* no reply to the sender */
    MKIT_NR_RCPT = 0x00008000,     /* no reply to a recipient */
    MKIT_NR_DATA = 0x00010000,     /* no reply to DATA */
    MKIT_NR_UNKN = 0x00020000,     /* no reply to an unknown command */
    MKIT_NR_EOH = 0x00040000,      /* no reply to the end of the headers */
    MKIT_NR_BODY = 0x00080000,     /* no reply to a chunk of the body */
    MKIT_HDR_LEADSPC = 0x00100000, /* header values keep their leading space */
    MKIT_NR_BITS = 0x000ff080,     /* all `NR_*` together */
    MKIT_V1_PROTOCOL = 0x3f,       /* those of the protocol's version 1 */
    MKIT_ALL_PROTOCOL = 0x1fffff   /* all that there are */
};

/* The steps of a session, each with its callback. */
enum mkit_step {
    MKIT_CONNECT,   /* a client has connected to the MTA */
    MKIT_HELO,      /* HELO or EHLO */
    MKIT_MAIL,      /* MAIL FROM: a message begins */
    MKIT_RCPT,      /* RCPT TO, each */
    MKIT_DATA,      /* DATA */
    MKIT_HEADER,    /* each header */
    MKIT_EOH,       /* the headers are over */
    MKIT_BODY,      /* each chunk of the body */
    MKIT_EOM,       /* the message is whole, and can be changed */
    MKIT_UNKNOWN,   /* a command that the MTA does not know */
    MKIT_ABORT,     /* the message ended before its end of message */
    MKIT_CLOSE,     /* the connection has ended */
    MKIT_NEGOTIATE, /* the MTA's offer; comes first */
    MKIT_STEPS      /* how many there are */
};

/* What a callback returns (sheet 3.2); the numbers are libmilter's. */
enum mkit_verdict {
    MKIT_CONTINUE = 0, /* go on */
    MKIT_REJECT = 1,   /* refuse it for good: this recipient, the message, or the client */
    MKIT_DISCARD = 2,  /* take the message and drop it */
    MKIT_ACCEPT = 3,   /* take it without asking the filter any more */
    MKIT_TEMPFAIL = 4, /* refuse it for now */
    MKIT_NOREPLY = 7,  /* no answer, where none was negotiated */
    MKIT_SKIP = 8,     /* header, eoh, body: no more of that kind of this message; STRICT: CONTINUE
                          at all other steps */
    MKIT_ALL_OPTS = 10 /* negotiate only: everything that the MTA offers */
};

/* Returns a step's name for logs, such as "envfrom". NULL if there is none. */
MKIT_API const char *mkit_step_name(enum mkit_step step);

/* Returns a verdict's name for logs, such as "TEMPFAIL". NULL if there is none. */
MKIT_API const char *mkit_verdict_name(int verdict);

/* Stages of macro lists (sheet 2.6). */
enum mkit_stage {
    MKIT_STAGE_CONNECT, /* before connect */
    MKIT_STAGE_HELO,    /* before HELO */
    MKIT_STAGE_MAIL,    /* before MAIL */
    MKIT_STAGE_RCPT,    /* before RCPT */
    MKIT_STAGE_DATA,    /* before DATA */
    MKIT_STAGE_EOM,     /* before the end of the message */
    MKIT_STAGE_EOH,     /* before the end of the headers */
    MKIT_STAGES         /* how many there are */
};

/* Log levels; the numbers are syslog's. */
enum mkit_level {
    MKIT_LOG_ERROR = 3,   /* mail is not served as it should be */
    MKIT_LOG_WARNING = 4, /* a peer or the filter did something wrong */
    MKIT_LOG_INFO = 6,    /* what its owner may want to know */
    MKIT_LOG_DEBUG = 7    /* what only its author wants to know */
};

/* --------------------------------------------------------------------------------- events */

/* Bytes in the session's input: not a copy. Texts that were strings on the wire have a NUL at
 * `at[len]`, so they can be used as C strings. Valid until the next call of mkit_session_next. */
struct mkit_text {
    const char *at; /* the first byte */
    size_t len;     /* bytes, without a NUL at the end */
};

/* What the MTA offered, and what the filter asks for (sheet 2.4, 2.5). In a negotiate callback
 * `actions` and `protocol` may be changed; they count if it returns MKIT_CONTINUE. */
struct mkit_options {
    uint32_t version;          /* of the MTA, as sent */
    uint32_t offered_actions;  /* of the MTA */
    uint32_t offered_protocol; /* of the MTA, and all `NR_*` bits: those it lacks are emulated */
    uint32_t actions;          /* in: all offered. out: asked for */
    uint32_t protocol; /* in: `NO*` of missing callbacks, SKIPPING if offered. out: asked for */
};

/* One step of the session, as a callback gets it. Which member counts depends on `step`; steps
 * not named below have none. */
struct mkit_event {
    enum mkit_step step;           /* which step it is */
    union {                        /* what came with it */
        struct {                   /* CONNECT */
            struct mkit_text host; /* as the MTA named the client; may be empty */
            union {                /* family AF_UNSPEC: the MTA does not know the address. A scope
                                      that is neither a number nor an interface here is 0 */
                struct sockaddr sa;
                struct sockaddr_in in;
                struct sockaddr_in6 in6;
                struct sockaddr_un un;
            } address;
        } connect;
        struct mkit_text text;    /* HELO: the name; UNKNOWN: the SMTP line */
        struct {                  /* MAIL, RCPT */
            struct mkit_text all; /* NUL-terminated strings, the address first */
            size_t count;         /* how many; at least one */
        } args;
        struct {                    /* HEADER */
            struct mkit_text name;  /* never empty */
            struct mkit_text value; /* lines of a folded value are joined by LF */
        } header;
        struct mkit_text body;        /* BODY: not terminated */
        struct mkit_options *options; /* NEGOTIATE */
    } of;
};

/* Steps through strings that follow each other. `rest` is advanced past the one returned.
 * Returns the next string, or NULL when there is none. */
MKIT_API const char *mkit_next_string(struct mkit_text *rest);

/* --------------------------------------------------------------------------------- filter */

struct mkit_session;

/* A callback: returns an enum mkit_verdict, or a negative mkit_error when the filter failed; the
 * step is then answered by the filter's `on_failure`. What ABORT and CLOSE return is ignored.
 * A session's callbacks never overlap; they may come from different threads. */
typedef int mkit_callback(struct mkit_session *session, const struct mkit_event *event);

/* How strictly what the filter sends is checked (docs/differences.md). */
enum mkit_degree {
    MKIT_STRICT,    /* nothing that an MTA would refuse or misread goes out */
    MKIT_COMPATIBLE /* libmilter's own checks and bytes */
};

/* Bounds for what a peer may make the engine hold. 0 stands for the default. */
struct mkit_limits {
    size_t packet;       /* bytes of data in one packet; default 1 MiB, COMPATIBLE 65535 */
    size_t macros;       /* bytes of one macro packet; default 64 KiB */
    size_t recipients;   /* of one message; default 65536 */
    size_t header_bytes; /* of all headers of one message; default no limit: they are handed on */
    size_t output;       /* bytes that may wait for the MTA before a call writes, and before packets
                            wait as well; default 256 KiB */
};

/* How a step is answered whose callback failed. */
enum mkit_on_failure {
    MKIT_FAIL_TEMPFAIL, /* the default: the MTA tries again later */
    MKIT_FAIL_REJECT,   /* refused for good */
    MKIT_FAIL_ACCEPT,   /* taken, without asking the filter any more */
    MKIT_FAIL_CONTINUE  /* as if it had not been asked */
};

/* What a filter is: data for the engine, which never changes it. It must outlive its sessions. */
struct mkit_filter {
    const char *name;        /* for logs; NULL: "milter" */
    void *data;              /* handed to the hooks below; see also mkit_filter_data */
    uint32_t actions;        /* asked for when there is no negotiate callback; 0 asks for none */
    enum mkit_degree degree; /* how strictly it is checked */
    enum mkit_on_failure on_failure; /* how a step is answered whose callback failed */
    struct mkit_limits limits;       /* what a peer may make the engine hold */
    mkit_callback *on[MKIT_STEPS];   /* NULL: the step is not asked for (its `NO*` bit) */

    /* Hooks, each may be NULL: the first thing that a worker thread calls. */
    void (*thread_start)(void *data);
    void (*thread_end)(void *data); /* the last one */
    /* Comes before a run of callbacks of any number of sessions. */
    void (*enter_batch)(void *data);
    void (*leave_batch)(void *data); /* comes after it */
    int log_level; /* the least severe MKIT_LOG_* that `log` gets; 0: MKIT_LOG_INFO. With
                      MKIT_LOG_DEBUG each answer to the MTA is a line */
    /* A line for the log, without line end. `session` is NULL if none is concerned. Called from
     * any thread, inside or outside a batch. */
    void (*log)(void *data, int level, const struct mkit_session *session, const char *line);
    /* A callback of the step has not returned by the server's deadline: says what the step is
     * answered, as a callback does; NULL: a line is logged, and on_failure answers. `session` is
     * the one that goes on (mkit_session_part), with the private pointer that the late callback
     * uses as well: what it points to must last until both are done with it. In a batch. */
    int (*expired)(struct mkit_session *session, enum mkit_step step);
    /* Says in a few words where a callback of the session stands that does not return, for the line
     * about it. Called from any thread, outside a batch. */
    void (*where)(void *data, const struct mkit_session *session, char *text, size_t size);
};

/* -------------------------------------------------------------------------------- session */

/* What mkit_session_next returns besides an error. */
enum mkit_next {
    MKIT_NEED_INPUT = 0, /* feed it more */
    MKIT_EVENT = 1,      /* an event to be answered */
    MKIT_CLOSED = 2,     /* the session has ended as it should */
    MKIT_NEED_OUTPUT = 3 /* write what waits for the MTA first, then call again */
};

/* Makes the session of one connection. Returns NULL without memory. `filter` is borrowed. */
MKIT_API struct mkit_session *mkit_session_new(const struct mkit_filter *filter);

/* Frees a session; NULL is fine. Sends no events: end it by mkit_session_eof first. */
MKIT_API void mkit_session_free(struct mkit_session *session);

/* Hands over bytes from the MTA. They are borrowed until mkit_session_next returns something
 * else than MKIT_EVENT and MKIT_NEED_OUTPUT; only an incomplete packet at the end is then copied.
 * All earlier bytes must have been used up. Returns 0, MKIT_EBUSY if they were not, or the
 * session's error. */
MKIT_API int mkit_session_feed(struct mkit_session *session, const void *data, size_t len);

/* Copies input that is still borrowed into the session, so that the caller may reuse its memory.
 * Returns 0, MKIT_EBUSY if an event waits for its answer, or MKIT_ENOMEM; then nothing changed. */
MKIT_API int mkit_session_keep_input(struct mkit_session *session);

/* Offers room for the rest of a packet of which a part has come, so that it can be read to where it
 * belongs: `*at` takes as many bytes as are returned, until the next call on the session, to which
 * mkit_session_filled then tells how many came. Borrowed bytes of that packet are copied first; the
 * rest of what comes is fed. 0: nothing has come, or mkit_session_next has work first. */
MKIT_API size_t mkit_session_room(struct mkit_session *session, uint8_t **at);

/* Tells how many bytes were read into the room that mkit_session_room offered. */
MKIT_API void mkit_session_filled(struct mkit_session *session, size_t len);

/* Tells the session that no more bytes will come: what was fed is still served, then abort (if
 * inside a message) and close follow. */
MKIT_API void mkit_session_eof(struct mkit_session *session);

/* Ends the session now, whatever input is left: abort (if inside a message) and close follow. */
MKIT_API void mkit_session_end(struct mkit_session *session);

/* Gets the next event. Returns MKIT_EVENT (answer it by mkit_session_answer; until then every
 * call returns MKIT_EBUSY), MKIT_NEED_INPUT, MKIT_NEED_OUTPUT, MKIT_CLOSED after a regular end, or
 * the error that ended the session. Abort and close events come before the end is told. No packet
 * is begun while more than limits.output waits, so replies take at most that and one packet; input
 * then stays borrowed (see mkit_session_keep_input). */
MKIT_API int mkit_session_next(struct mkit_session *session, struct mkit_event *event);

/* Goes on without the callback of the event that waits for its answer, because it takes too long.
 * Returns a new session for the connection, in which that event is still to be answered, without
 * what the callback has said or changed so far; output that waits and input that was kept are
 * copied, the hooks (mkit_session_on_flush, _on_gone) are to be set. Whatever the callback calls on
 * the old session from then on fails by MKIT_ECLOSED; it is freed when the callback has returned,
 * and never answered. The private pointer is that of both. From another thread than the callback's;
 * NULL, and nothing changed, while that is inside a call on the session, without memory, and for
 * NEGOTIATE, ABORT and CLOSE. */
MKIT_API struct mkit_session *mkit_session_part(struct mkit_session *session);

/* Answers the event with a verdict or a negative error (see mkit_callback). Returns 0;
 * MKIT_ESTEP if there is no event; MKIT_EINVAL for a verdict that the step does not know: then
 * the filter's on_failure was used. */
MKIT_API int mkit_session_answer(struct mkit_session *session, int verdict);

/* Gives the bytes that wait for the MTA: `*data` is valid until the next call on the session.
 * Returns how many. */
MKIT_API size_t mkit_session_output(const struct mkit_session *session, const uint8_t **data);

/* Drops the first `len` bytes of those that wait: they were written. */
MKIT_API void mkit_session_sent(struct mkit_session *session, size_t len);

/* Sets who writes the output when it must leave before the end of the turn (progress, or more
 * than limits.output waiting). `flush` writes what mkit_session_output gives and returns 0 or an
 * error, which ends the session. Without it output simply waits. */
MKIT_API void mkit_session_on_flush(struct mkit_session *session,
                                    int (*flush)(struct mkit_session *, void *arg), void *arg);

/* Whether a PROGRESS packet may be put on the wire now, ahead of what waits: an end of message is
 * being served, what has left ends with a whole packet, and no chunk of a new body is among it.
 * Once true it holds until more output leaves or the event is answered, whatever the callback
 * queues. */
MKIT_API bool mkit_session_may_progress(const struct mkit_session *session);

/* Sets who knows whether the MTA has closed the connection; see mkit_mta_gone. */
MKIT_API void mkit_session_on_gone(struct mkit_session *session,
                                   bool (*gone)(const struct mkit_session *, void *arg), void *arg);

/* Whether an action with `len` bytes of data might write at once (see mkit_session_on_flush). */
MKIT_API bool mkit_session_will_flush(const struct mkit_session *session, size_t len);

/* Gives back memory that an idle session need not hold. */
MKIT_API void mkit_session_trim(struct mkit_session *session);

/* Whether a message is open (MAIL seen, neither finished nor aborted). */
MKIT_API bool mkit_session_in_message(const struct mkit_session *session);

/* Why the last failing call on this session failed, or why it ended: one line that says what was
 * wrong and what to do. Never NULL; valid until the next call on the session. */
MKIT_API const char *mkit_session_why(const struct mkit_session *session);

/* The actions that were negotiated; 0 before. */
MKIT_API uint32_t mkit_session_actions(const struct mkit_session *session);

/* The protocol options that were negotiated, as callbacks see them (emulated `NR_*` bits included);
 * 0 before. */
MKIT_API uint32_t mkit_session_protocol(const struct mkit_session *session);

/* Keeps a pointer of the filter's own; the engine neither reads nor frees it. */
MKIT_API void mkit_set_private(struct mkit_session *session, void *pointer);

/* The pointer that mkit_set_private kept; NULL before. */
MKIT_API void *mkit_private(const struct mkit_session *session);

/* The `data` of the session's filter. */
MKIT_API void *mkit_filter_data(const struct mkit_session *session);

/* -------------------------------------------- what a callback may call on its session */

/* Looks a macro up: "i" and "{i}" are the same, longer names are given with their braces (sheet
 * 4.2). Any step. Returns NULL if the MTA sent none; valid until the callback returns. */
MKIT_API const char *mkit_getsymval(const struct mkit_session *session, const char *name);

/* Asks for macros at a stage, names separated by spaces (sheet 2.6). Negotiate only (compatible: at
 * any step, without effect later), once per stage. MKIT_ESTEP, MKIT_EINVAL, MKIT_EACTION (strict:
 * the MTA does not offer it). */
MKIT_API int mkit_setsymlist(struct mkit_session *session, int stage, const char *names);

/* Sets the reply text of a following REJECT (5yz) or TEMPFAIL (4yz); any step (sheet 5.3).
 * rcode: three digits; xcode: enhanced code of RFC 3463 or NULL; lines: 0 to 32, each up to 980
 * bytes without CR or LF. With several lines and no xcode, x.0.0 is put in (strict: also before a
 * line that begins with a digit of another class). `%` must be doubled.
 * MKIT_EINVAL or MKIT_ETEXT leave an earlier text in place. */
MKIT_API int mkit_setreply(struct mkit_session *session, const char *rcode, const char *xcode,
                           const char *const *lines, size_t count);

/* Adds a header; the MTA chooses the place. What follows holds for all changes to the message, the
 * functions down to mkit_replacebody: end of message only (sheet 5.4), else MKIT_ESTEP.
 * MKIT_EACTION if the action was not negotiated, MKIT_EINVAL or MKIT_ETEXT for arguments that
 * cannot be sent, MKIT_ETOOBIG past 65535 bytes, MKIT_ECLOSED or MKIT_ETIMEOUT if the MTA is gone.
 * A failing call sends nothing. Values use LF and white space for folds; strict: CR LF is taken as
 * LF, and a line of white space alone is refused. */
MKIT_API int mkit_addheader(struct mkit_session *session, const char *name, const char *value);

/* Inserts a header: index 0 is above all headers, the MTA's own Received included. */
MKIT_API int mkit_insheader(struct mkit_session *session, int32_t index, const char *name,
                            const char *value);

/* Changes a header; index counts from 1 among headers of that name. A value of NULL or "" deletes
 * it. */
MKIT_API int mkit_chgheader(struct mkit_session *session, const char *name, int32_t index,
                            const char *value);

/* Adds a recipient. */
MKIT_API int mkit_addrcpt(struct mkit_session *session, const char *rcpt);

/* Adds a recipient; args: ESMTP parameters or NULL. */
MKIT_API int mkit_addrcpt_par(struct mkit_session *session, const char *rcpt, const char *args);

/* Removes a recipient, spelled as the MTA sent it. */
MKIT_API int mkit_delrcpt(struct mkit_session *session, const char *rcpt);

/* Changes the sender; args: ESMTP parameters or NULL. */
MKIT_API int mkit_chgfrom(struct mkit_session *session, const char *sender, const char *args);

/* Has the message held by the MTA; to be followed by MKIT_CONTINUE or MKIT_ACCEPT. */
MKIT_API int mkit_quarantine(struct mkit_session *session, const char *reason);

/* Replaces the body; further calls append. Any length; 0 empties it. Writes as it goes when more
 * than limits.output waits, and waits for the MTA to take it: so much and one chunk (65540 bytes)
 * is held at most, in a buffer of up to twice that size. Do nothing else between two calls (Postfix
 * ends the new body there). */
MKIT_API int mkit_replacebody(struct mkit_session *session, const void *data, size_t len);

/* Tells the MTA to go on waiting; sent at once. Strict: end of message only (Sendmail knows it
 * nowhere else), and after a chunk of a new body it is that body which is sent, as far as it waits.
 * A server does this by itself; see mkit_server_options. */
MKIT_API int mkit_progress(struct mkit_session *session);

/* Whether the MTA has closed the connection: what the callback does has no effect any more. Any
 * step, at any time. Costs a system call at most. Never true for a session without a server that
 * was not told the end of its input. */
MKIT_API bool mkit_mta_gone(const struct mkit_session *session);

/* --------------------------------------------------------------------------------- server */

struct mkit_server;

/* How a server waits for its sockets. */
enum mkit_poller {
    MKIT_POLLER_BEST,  /* the best there is */
    MKIT_POLLER_EPOLL, /* epoll; Linux only */
    MKIT_POLLER_POLL   /* poll(2) */
};

/* Settings of a server; 0 stands for the default. */
struct mkit_server_options {
    unsigned timeout;         /* seconds an MTA may be silent or refuse to read; default 7210 */
    int drain;                /* seconds that stop waits for open messages; default 30, -1 none */
    unsigned max_threads;     /* default 512 */
    unsigned max_connections; /* past it: accepted and closed at once, and said so in the log once a
                                 second; default no limit */
    unsigned runners;         /* threads that may compute at once; default 1 with enter_batch,
                                 else the number of processors */
    int linger;   /* seconds that a worker thread without work stays; default 10, -1 none */
    int progress; /* milliseconds; an end of message callback that wrote nothing for so
                     long gets progress sent for it; default 30000, -1 none */
    int grace; /* seconds that callbacks may still take when all connections are ended; what has not
                  returned by then is left behind: see mkit_server_abort; default 5, -1 none */
    int deadline; /* milliseconds that a callback may take; then its step is answered by the
                     filter's on_failure, and the connection goes on without it: see `expired` of
                     mkit_filter. A callback that the server is not told of (it keeps the lock of
                     enter_batch) is answered when it is. default none */
    enum mkit_poller poller; /* how it waits for its sockets */
    bool adopts; /* connections may be adopted while it runs: it runs without a socket, too */
};

/* Settings of a listening socket. */
struct mkit_listen_options {
    int backlog;       /* 0: the system's largest */
    bool remove_stale; /* unix: remove a socket file that nobody answers on */
    bool replace;      /* unix: take the path over also from a server that answers there, which
                          keeps its connections; see mkit_server_retire */
    bool set_mode;     /* unix: chmod to `mode`; else the umask decides */
    mode_t mode;       /* see set_mode */
    bool set_owner;    /* unix: chown to uid and gid, (uid_t)-1 and (gid_t)-1 leave them */
    uid_t uid;         /* see set_owner */
    gid_t gid;         /* see set_owner */
};

/* Numbers of a server. */
struct mkit_server_stats {
    uint64_t accepted; /* connections since the server was made */
    uint64_t refused;  /* of them, closed at once for max_connections */
    uint64_t messages; /* end-of-message steps that were answered */
    uint64_t failures; /* sessions that ended by an error */
    unsigned open;     /* connections now */
    unsigned threads;  /* worker threads now */
    unsigned left;     /* threads that were left behind and have not returned */
};

/* Makes a server that runs `filter` (borrowed). `options` may be NULL. NULL without memory or
 * descriptors; errno says which. */
MKIT_API struct mkit_server *mkit_server_new(const struct mkit_filter *filter,
                                             const struct mkit_server_options *options);

/* Sets options.timeout anew, 0 for the default. Not while the server runs. */
MKIT_API void mkit_server_set_timeout(struct mkit_server *server, unsigned seconds);

/* Frees a server that is not running, and closes its sockets. NULL is fine. */
MKIT_API void mkit_server_free(struct mkit_server *server);

/* Checks a socket specification without opening it. Returns 0 or MKIT_ESPEC; `*why` (if not NULL)
 * gets a static text. */
MKIT_API int mkit_check_spec(const char *spec, const char **why);

/* Whether two specifications, such as unix:/run/x and local:/run/x, stand for the same socket.
 * False if one of them cannot be understood. May look host and service names up. */
MKIT_API bool mkit_same_spec(const char *one, const char *other);

/* Binds and listens: unix:PATH, local:PATH, PATH, inet:PORT[@HOST], inet6:PORT[@HOST], fd:N (sheet
 * 5.2). May be called several times, also while the server runs: it then accepts there at once.
 * Of programs that open the same unix socket at the same time one succeeds: the socket's folder is
 * locked (flock) meanwhile. With `replace` it listens at PATH.new and renames that to PATH: no MTA
 * finds nobody there. `options` may be NULL. Returns 0, MKIT_ESPEC, MKIT_ESOCKET (errno is
 * set), MKIT_ENOMEM, or MKIT_EBUSY if the server is ending; mkit_server_why says more. */
MKIT_API int mkit_server_listen(struct mkit_server *server, const char *spec,
                                const struct mkit_listen_options *options);

/* Gives the sockets that `from` has opened to `to`, with a stop that `from` was told. Neither may
 * run. Returns 0, or MKIT_EBUSY if `from` runs. */
MKIT_API int mkit_server_hand_over(struct mkit_server *from, struct mkit_server *to);

/* Serves one connection that exists already, a socketpair's end for example. The server owns the
 * descriptor from now on and closes it, unless this fails: MKIT_EBUSY if it is served already or
 * the server is ending, MKIT_ENOMEM, MKIT_ESOCKET. Before or during mkit_server_run. */
MKIT_API int mkit_server_adopt(struct mkit_server *server, int fd);

/* Serves until mkit_server_stop or mkit_server_abort, in this thread and workers. Returns 0 after
 * it, MKIT_EINVAL if there is nothing to serve (neither a socket nor a connection, and
 * options.adopts is not set), MKIT_EBUSY if it runs already, MKIT_ETHREAD, MKIT_ESOCKET,
 * MKIT_ENOMEM. Connections that end are shut down, for copies in other processes as well; so are
 * sockets that this process has opened, when a stop closes them. Otherwise sockets stay open for a
 * new run unless the stop closed them. `poke`, if not NULL, is called in this thread whenever
 * mkit_server_poke_fd was written to; a nonzero return aborts the server. Workers block the signals
 * that this thread blocks, and no others. */
MKIT_API int mkit_server_run(struct mkit_server *server, int (*poke)(void *arg), void *arg);

/* In a child that was forked while the server ran: closes the child's copies of its sockets and
 * connections, which the parent goes on with, and touches no files. The child's server is then of
 * no use, not even to be freed: what the thread that forked still does with a connection there (a
 * callback's calls, for example) fails and reaches nobody. */
MKIT_API void mkit_server_forked(struct mkit_server *server);

/* Forgets a stop or abort that was asked for while the server did not run: else the next run ends
 * at once. MKIT_EBUSY if it runs. */
MKIT_API int mkit_server_renew(struct mkit_server *server);

/* Lets another server take over without a trace: accepts no new connections (those that wait
 * already are taken; the sockets are closed and their paths removed, unless another program has put
 * its own there), and keeps each connection until its MTA ends it, `seconds` at most, 0 for 3600;
 * then drains as mkit_server_stop does. The other server listens first: on the same path, with
 * mkit_listen_options.replace, or on the same open socket, as fd:N. No MTA connects again within an
 * SMTP session: one whose connection is closed between messages answers its next MAIL with 451.
 * Returns at once; from any thread and callback. */
MKIT_API void mkit_server_retire(struct mkit_server *server, unsigned seconds);

/* Ends a server gracefully: no new connections (the sockets are closed and their paths removed, for
 * the next program to take), those outside a message are closed, those inside one finish, at most
 * `drain` seconds; then they are ended as by mkit_server_abort. Returns at once; from any thread
 * and callback, and from a signal handler. A second stop changes nothing. */
MKIT_API void mkit_server_stop(struct mkit_server *server);

/* Ends all connections at once, also those that a stop lets finish; each gets its abort and close
 * callbacks. A callback that runs is waited for, `grace` seconds at most. One that has not returned
 * by then is left behind: its connection is closed, a line is logged, mkit_server_run returns
 * without it. What it uses stays: its session, and the server, which mkit_server_free then leaves
 * alone. The filter must stay as long as stats.left is not 0. If it returns after all, abort and
 * close follow in its thread. Returns at once; from any thread and callback, and from a signal
 * handler. */
MKIT_API void mkit_server_abort(struct mkit_server *server);

/* Goes one step further towards the end: stop; if that was called already, abort; if that was, what
 * is still in a callback is left behind at once. For a second signal. Called as mkit_server_abort.
 */
MKIT_API void mkit_server_hurry(struct mkit_server *server);

/* A descriptor: any byte written to it wakes mkit_server_run (for signal handlers). */
MKIT_API int mkit_server_poke_fd(const struct mkit_server *server);

/* Puts the address of listening socket `index` as a specification into `text`, with the real port
 * if the system chose it; fd:N for an inherited one that is neither a unix socket with a path nor
 * inet or inet6. Returns 0, or MKIT_EINVAL if there is no such socket. */
MKIT_API int mkit_server_address(struct mkit_server *server, size_t index, char *text, size_t size);

/* Why the last call of this thread failed on this server: one line. "" if none did; valid until the
 * thread's next call that fails. */
MKIT_API const char *mkit_server_why(const struct mkit_server *server);

/* Fills `stats` with the numbers of this moment. From any thread and callback. */
MKIT_API void mkit_server_get_stats(struct mkit_server *server, struct mkit_server_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
