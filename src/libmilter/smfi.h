/* What the parts of libmilter share. */
#ifndef MKIT_LIBMILTER_SMFI_H
#define MKIT_LIBMILTER_SMFI_H

#include <libmilter/mfapi.h>

#include "milterkit.h"

/* A context is a session under another name. */
static inline struct mkit_session *session_of(SMFICTX *ctx)
{
    return (struct mkit_session *)(void *)ctx;
}

static inline SMFICTX *context_of(struct mkit_session *session)
{
    return (SMFICTX *)(void *)session;
}

/* callbacks.c: gives the engine's filter the callbacks that a program's has; filter->data then
 * points to it. */
void mkit_smfi_callbacks(struct mkit_filter *filter, struct smfiDesc *desc);

/* signals.c: blocks SIGHUP, SIGTERM and SIGINT in this thread, for good, and starts a thread that
 * calls `got` with each of them that comes, until mkit_signals_end. Returns 0 or an errno. */
int mkit_signals_start(void (*got)(int signal));
/* Ends that thread. */
void mkit_signals_end(void);

#endif
