/* What a filter may send, as the two MTAs see it: stricter than each of them where they differ. */
#include <ctype.h>
#include <string.h>

#include "check.h"

const char *check_negotiation(const struct mkit_packet *packet, const struct options *offered,
                              struct options *asked)
{
    struct mkit_field fields[MKIT_MAX_FIELDS];
    const char *why;
    if (packet->command != MKIT_R_OPTNEG)
        return "it is no OPTNEG (O)";
    if (mkit_decode(MKIT_TO_MTA, packet, fields, &why) < 0)
        return why;
    *asked = (struct options){fields[0].number, fields[1].number, fields[2].number};
    if (asked->version < MKIT_VERSION_MIN || asked->version > offered->version)
        return "it asks for a version that was not offered";
    if (asked->actions & ~offered->actions)
        return "it asks for actions that were not offered";
    if (asked->protocol & ~offered->protocol)
        return "it asks for protocol options that were not offered";
    return NULL;
}

/* Packets that may come; a change needs its action to be negotiated. */
static const struct {
    uint8_t reply;
    enum reply_kind kind;
    uint32_t action;
} replies[] = {
    {MKIT_R_CONTINUE, REPLY_FINAL, 0},
    {MKIT_R_ACCEPT, REPLY_FINAL, 0},
    {MKIT_R_REJECT, REPLY_FINAL, 0},
    {MKIT_R_TEMPFAIL, REPLY_FINAL, 0},
    {MKIT_R_DISCARD, REPLY_FINAL, 0},
    {MKIT_R_REPLYCODE, REPLY_FINAL, 0},
    {MKIT_R_SKIP, REPLY_FINAL, 0},
    {MKIT_R_PROGRESS, REPLY_PROGRESS, 0},
    {MKIT_R_ADDHEADER, REPLY_CHANGE, MKIT_ADDHDRS},
    {MKIT_R_INSHEADER, REPLY_CHANGE, MKIT_ADDHDRS},
    {MKIT_R_CHGHEADER, REPLY_CHANGE, MKIT_CHGHDRS},
    {MKIT_R_REPLBODY, REPLY_CHANGE, MKIT_CHGBODY},
    {MKIT_R_ADDRCPT, REPLY_CHANGE, MKIT_ADDRCPT},
    {MKIT_R_ADDRCPT_PAR, REPLY_CHANGE, MKIT_ADDRCPT_PAR},
    {MKIT_R_DELRCPT, REPLY_CHANGE, MKIT_DELRCPT},
    {MKIT_R_CHGFROM, REPLY_CHANGE, MKIT_CHGFROM},
    {MKIT_R_QUARANTINE, REPLY_CHANGE, MKIT_QUARANTINE},
};

/* A reply code: 4yz or 5yz, then a space or, with lines to follow, a hyphen. */
static bool good_code(const struct mkit_text *text)
{
    const char *at = text->at;
    return text->len >= 4 && (at[0] == '4' || at[0] == '5') && isdigit((unsigned char)at[1]) &&
           isdigit((unsigned char)at[2]) && (at[3] == ' ' || at[3] == '-');
}

static const char *check_final(const struct mkit_packet *packet, uint8_t command,
                               const struct mkit_field *fields, const struct options *asked)
{
    const bool greeting = command == MKIT_C_CONNECT || command == MKIT_C_HELO;
    const bool repeats =
        command == MKIT_C_RCPT || command == MKIT_C_HEADER || command == MKIT_C_BODY;
    switch (packet->command) {
    case MKIT_R_DISCARD: return greeting ? "there is nothing to discard yet" : NULL;
    case MKIT_R_REPLYCODE: return good_code(&fields[0].text) ? NULL : "the code is malformed";
    case MKIT_R_SKIP:
        if (!(asked->protocol & MKIT_SKIPPING))
            return "SKIP was not negotiated";
        return repeats ? NULL : "this command does not repeat";
    default: return NULL;
    }
}

/* A new body must come in one run: Postfix takes what follows a gap for an error. */
static const char *check_change(const struct mkit_packet *packet, uint8_t command, uint32_t action,
                                const struct options *asked, struct answer *so_far)
{
    if (command != MKIT_C_BODYEOB)
        return "changes belong to the end of message";
    if (!(asked->actions & action))
        return "the action was not negotiated";
    if (packet->command != MKIT_R_REPLBODY)
        return NULL;
    if (so_far->replaced && so_far->last != MKIT_R_REPLBODY)
        return "the new body was ended by another packet";
    so_far->replaced = true;
    return NULL;
}

enum reply_kind check_reply(const struct mkit_packet *packet, uint8_t command,
                            const struct options *asked, struct answer *so_far, const char **why)
{
    struct mkit_field fields[MKIT_MAX_FIELDS];
    if (mkit_decode(MKIT_TO_MTA, packet, fields, why) < 0)
        return REPLY_WRONG;
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) {
        if (replies[i].reply != packet->command)
            continue;
        *why = NULL;
        if (replies[i].kind == REPLY_FINAL)
            *why = check_final(packet, command, fields, asked);
        else if (replies[i].kind == REPLY_CHANGE)
            *why = check_change(packet, command, replies[i].action, asked, so_far);
        so_far->last = packet->command;
        return *why ? REPLY_WRONG : replies[i].kind;
    }
    *why = "it is no reply to a command";
    return REPLY_WRONG;
}
