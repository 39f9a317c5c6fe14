/* What a session has to do, told a second time: by the letters of the protocol sheet, section 3,
 * and by docs/differences.md, without a look at src/session. It sees the same bytes and verdicts
 * and says which event must come next and what must be answered. */
#ifndef MODEL_H
#define MODEL_H

#include "milterkit.h"

enum { MODEL_FINALS = 1 << 16 };

struct model {
    const struct mkit_filter *filter;
    struct mkit_limits limits; /* with the defaults filled in */
    bool strict;

    const uint8_t *stream; /* all bytes of the connection ... */
    size_t arrived;        /* ... of which so many have been fed */
    size_t taken;          /* ... and so many were served */
    bool eof;

    char state;      /* the last command that was accepted; I before any */
    char before;     /* U: the state inside a message that it interrupted, else I */
    uint8_t command; /* the packet that is being served */
    const uint8_t *data;
    size_t len;
    enum mkit_step todo[4];
    unsigned todo_count;
    enum mkit_step asked; /* MKIT_STEPS: nothing */
    bool ending;
    bool close_owed;
    int error;
    int held; /* a verdict that is still to be said; -1: none */
    bool held_always;
    size_t recipients;
    size_t header_bytes;

    uint32_t version; /* to be answered */
    uint32_t actions; /* as asked for */
    uint32_t protocol;
    uint32_t emulated;
    struct mkit_options options; /* as the filter must see them */
    char reply;                  /* class of the text that is set; 0: none */

    char finals[MODEL_FINALS]; /* replies that must come out now, in order */
    size_t finals_count;
};

void model_init(struct model *model, const struct mkit_filter *filter, const uint8_t *stream);

/* What the next call of mkit_session_next must return; *step is the event's. */
int model_next(struct model *model, enum mkit_step *step);

/* Tells the filter's answer. In negotiate `options` is what it asks for. Returns 0, or the error
 * that must end the session by it; say so by model_end. */
int model_answer(struct model *model, int verdict, const struct mkit_options *options);

/* Tells that the session was ended; `error` is why, or 0. */
void model_end(struct model *model, int error);

/* Whether a command of this step awaits a reply, as an MTA sees it that keeps to what was
 * negotiated on the wire. */
bool model_awaits(const struct model *model, enum mkit_step step);

#endif
