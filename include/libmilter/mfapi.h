/* mfapi.h: libmilter's API for mail filters in C, on the Milterkit engine. Source and binary
 * compatible: a program built with another libmilter's header runs with this library, and the other
 * way round. One filter and one server for the process; milterkit.h has no such limit.
 * What each call does on the wire: docs/protocol.md, section 5. Where it differs from Sendmail's
 * library: docs/differences.md. */
#ifndef _LIBMILTER_MFAPI_H
#define _LIBMILTER_MFAPI_H 1

#include <libmilter/mfdef.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

/* The version of this API: of the header here, of the library from smfi_version. */
#define SMFI_VERSION       0x01000001
#define SM_LM_VRS_MAJOR(v) (((v)&0x7f000000) >> 24)
#define SM_LM_VRS_MINOR(v) (((v)&0x007fff00) >> 8)
#define SM_LM_VRS_PLVL(v)  ((v)&0x0000007f)

#ifndef LIBMILTER_API
#if defined(__GNUC__)
#define LIBMILTER_API extern __attribute__((visibility("default")))
#else
#define LIBMILTER_API extern
#endif
#endif

#ifndef _SOCK_ADDR
#define _SOCK_ADDR struct sockaddr
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What every function below returns if nothing else is said. */
#define MI_SUCCESS 0
#define MI_FAILURE (-1)

/* What a callback returns. */
typedef int sfsistat;
#define SMFIS_CONTINUE 0
#define SMFIS_REJECT   1
#define SMFIS_DISCARD  2
#define SMFIS_ACCEPT   3
#define SMFIS_TEMPFAIL 4
#define SMFIS_NOREPLY  7
#define SMFIS_SKIP     8
#define SMFIS_ALL_OPTS 10 /* negotiate only: everything that the MTA offers */

/* Actions: what the filter may do to a message. */
#define SMFIF_NONE        0x00000000L
#define SMFIF_ADDHDRS     0x00000001L
#define SMFIF_CHGBODY     0x00000002L
#define SMFIF_MODBODY     SMFIF_CHGBODY
#define SMFIF_ADDRCPT     0x00000004L
#define SMFIF_DELRCPT     0x00000008L
#define SMFIF_CHGHDRS     0x00000010L
#define SMFIF_QUARANTINE  0x00000020L
#define SMFIF_CHGFROM     0x00000040L
#define SMFIF_ADDRCPT_PAR 0x00000080L
#define SMFIF_SETSYMLIST  0x00000100L

/* All actions of the first, the second and the present version. */
#define SMFI_V1_ACTS   0x0000000FL
#define SMFI_V2_ACTS   0x0000003FL
#define SMFI_CURR_ACTS 0x000001FFL

/* Stages of smfi_setsymlist. */
#define SMFIM_NOMACROS (-1)
#define SMFIM_FIRST    0
#define SMFIM_CONNECT  0
#define SMFIM_HELO     1
#define SMFIM_ENVFROM  2
#define SMFIM_ENVRCPT  3
#define SMFIM_DATA     4
#define SMFIM_EOM      5
#define SMFIM_EOH      6
#define SMFIM_LAST     6

/* One MTA's connection, as callbacks know it. */
typedef struct smfi_str SMFICTX;
typedef struct smfi_str *SMFICTX_PTR;

/* A filter. A callback that is NULL stands for "not interested". Texts that callbacks get are valid
 * until they return; so is the address, which is NULL if the MTA does not know it. argv ends with
 * NULL and starts with the address. A chunk of a body is not terminated. What abort and close
 * return is ignored. Callbacks of one connection follow each other, from any thread; those of
 * several connections run at the same time. */
struct smfiDesc {
    char *xxfi_name;
    int xxfi_version;         /* SMFI_VERSION; 2 to 4 stand for older shapes of this struct */
    unsigned long xxfi_flags; /* `SMFIF_*`; without negotiate */
    sfsistat (*xxfi_connect)(SMFICTX *ctx, char *hostname, _SOCK_ADDR *address);
    sfsistat (*xxfi_helo)(SMFICTX *ctx, char *name);
    sfsistat (*xxfi_envfrom)(SMFICTX *ctx, char **argv);
    sfsistat (*xxfi_envrcpt)(SMFICTX *ctx, char **argv);
    sfsistat (*xxfi_header)(SMFICTX *ctx, char *name, char *value);
    sfsistat (*xxfi_eoh)(SMFICTX *ctx);
    sfsistat (*xxfi_body)(SMFICTX *ctx, unsigned char *chunk, size_t len);
    sfsistat (*xxfi_eom)(SMFICTX *ctx);
    sfsistat (*xxfi_abort)(SMFICTX *ctx);
    sfsistat (*xxfi_close)(SMFICTX *ctx);
    sfsistat (*xxfi_unknown)(SMFICTX *ctx, const char *line); /* from version 3 */
    sfsistat (*xxfi_data)(SMFICTX *ctx);                      /* from version 4 */
    /* From SMFI_VERSION. f0, f1: the MTA's actions and options; `*pf0`, `*pf1`: those asked for,
     * which count with SMFIS_CONTINUE. f2, f3, `*pf2`, `*pf3` are 0. */
    sfsistat (*xxfi_negotiate)(SMFICTX *ctx, unsigned long f0, unsigned long f1, unsigned long f2,
                               unsigned long f3, unsigned long *pf0, unsigned long *pf1,
                               unsigned long *pf2, unsigned long *pf3);
};
typedef struct smfiDesc smfiDesc_str;
typedef struct smfiDesc *smfiDesc_ptr;

/* ----------------------------------------------------------------- the filter and its server */

/* Sets the filter; the name is copied. Again: replaces it. Fails for an unknown version, without
 * memory, and while smfi_main runs. */
LIBMILTER_API int smfi_register(struct smfiDesc filter);

/* Sets where to listen: unix:PATH, local:PATH, PATH, inet:PORT@HOST, inet6:PORT@HOST, fd:N. Copied,
 * and looked at when the socket is opened. Fails for NULL and "". */
LIBMILTER_API int smfi_setconn(char *spec);

/* Sets how many seconds an MTA may be silent; 7210 if never called. Less than 0: for ever. Counts
 * from the next smfi_main. */
LIBMILTER_API int smfi_settimeout(int seconds);

/* Sets how many connections may wait to be accepted; fails below 1. Before the socket is opened. */
LIBMILTER_API int smfi_setbacklog(int connections);

/* Sets how much is logged: above 0 also what is of use to a filter's author only. */
LIBMILTER_API int smfi_setdbg(int level);

/* Sets the most bytes of data in a packet from the MTA, at first 65535, for the next smfi_main.
 * Returns the bound it was before. */
LIBMILTER_API size_t smfi_setmaxdatasize(size_t bytes);

/* Opens the socket; smfi_main does it else. `rmsocket`: removes a unix socket's file that an
 * earlier run left. Fails before smfi_register and smfi_setconn; the log says why. */
LIBMILTER_API int smfi_opensocket(bool rmsocket);

/* Serves until smfi_stop, SIGTERM or SIGHUP, which let open messages finish for some seconds, or
 * SIGINT, which does not. These signals are blocked in the calling thread from then on, SIGPIPE is
 * ignored. Fails if the socket cannot be opened or no thread be started; the log says why. */
LIBMILTER_API int smfi_main(void);

/* Ends smfi_main. From any thread, callback or signal handler. */
LIBMILTER_API int smfi_stop(void);

/* Tells the version of the library at run time; pointers may be NULL. */
LIBMILTER_API int smfi_version(unsigned int *major, unsigned int *minor, unsigned int *patch);

/* ------------------------------------------------------------------------------ any callback */

/* Looks a macro up: names of more than one letter are given with their braces. Returns NULL if the
 * MTA sent none. Valid until the callback returns. */
LIBMILTER_API char *smfi_getsymval(SMFICTX *ctx, char *name);

/* The pointer of the program's own for this connection; NULL at first. */
LIBMILTER_API void *smfi_getpriv(SMFICTX *ctx);

/* Sets that pointer. The program frees what it points to, in close at the latest. */
LIBMILTER_API int smfi_setpriv(SMFICTX *ctx, void *pointer);

/* Sets the text of the next SMFIS_REJECT (rcode 5yz) or SMFIS_TEMPFAIL (4yz). xcode: an enhanced
 * code of RFC 3463 or NULL. message: up to 980 bytes without CR and LF, or NULL; `%` doubled.
 * A failure leaves an earlier text in place. */
LIBMILTER_API int smfi_setreply(SMFICTX *ctx, char *rcode, char *xcode, char *message);

/* The same with 1 to 32 lines; NULL ends them. Without xcode 4.0.0 or 5.0.0 is sent. */
LIBMILTER_API int smfi_setmlreply(SMFICTX *ctx, const char *rcode, const char *xcode, ...);

/* Tells the MTA to go on waiting. Sendmail knows it in eom only. */
LIBMILTER_API int smfi_progress(SMFICTX *ctx);

/* Asks for macros at a stage (`SMFIM_*`), names separated by spaces, once for each; "" for none.
 * In negotiate; without effect later. */
LIBMILTER_API int smfi_setsymlist(SMFICTX *ctx, int stage, char *names);

/* ---------------------------------------------------------------- changes to the message */

/* In eom only, each with its action. args are ESMTP parameters or NULL. Values use LF and white
 * space for folds. */

/* Adds a header; the MTA chooses the place. */
LIBMILTER_API int smfi_addheader(SMFICTX *ctx, char *name, char *value);

/* Inserts a header. 0 is above all headers, the MTA's own included. */
LIBMILTER_API int smfi_insheader(SMFICTX *ctx, int index, char *name, char *value);

/* Changes a header; index counts from 1 among those of that name. A value of NULL or "" deletes. */
LIBMILTER_API int smfi_chgheader(SMFICTX *ctx, char *name, int index, char *value);

/* Changes the sender. */
LIBMILTER_API int smfi_chgfrom(SMFICTX *ctx, char *sender, char *args);

/* Adds a recipient. */
LIBMILTER_API int smfi_addrcpt(SMFICTX *ctx, char *rcpt);

/* Adds a recipient, with ESMTP parameters. */
LIBMILTER_API int smfi_addrcpt_par(SMFICTX *ctx, char *rcpt, char *args);

/* Removes a recipient, spelled as envrcpt got it. */
LIBMILTER_API int smfi_delrcpt(SMFICTX *ctx, char *rcpt);

/* Replaces the body; further calls append. 0 bytes make the body empty. */
LIBMILTER_API int smfi_replacebody(SMFICTX *ctx, unsigned char *bytes, int len);

/* Has the MTA hold the message. */
LIBMILTER_API int smfi_quarantine(SMFICTX *ctx, char *reason);

#ifdef __cplusplus
}
#endif
#endif
