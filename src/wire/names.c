/* Tables of what exists in the protocol: packets with their layouts, and the names of all codes. */
#include "wire/protocol.h"

static const struct mkit_packet_kind commands[] = {
    {MKIT_C_ABORT, "ABORT", ""},          {MKIT_C_BODY, "BODY", "b"},
    {MKIT_C_CONNECT, "CONNECT", "zf?wz"}, {MKIT_C_MACRO, "MACRO", "c*"},
    {MKIT_C_BODYEOB, "BODYEOB", "*"},     {MKIT_C_HELO, "HELO", "z"},
    {MKIT_C_QUIT_NC, "QUIT_NC", ""},      {MKIT_C_HEADER, "HEADER", "zz"},
    {MKIT_C_MAIL, "MAIL", "a"},           {MKIT_C_EOH, "EOH", ""},
    {MKIT_C_OPTNEG, "OPTNEG", "uuu"},     {MKIT_C_QUIT, "QUIT", ""},
    {MKIT_C_RCPT, "RCPT", "a"},           {MKIT_C_DATA, "DATA", ""},
    {MKIT_C_UNKNOWN, "UNKNOWN", "z"},     {0, NULL, NULL},
};

static const struct mkit_packet_kind replies[] = {
    {MKIT_R_ADDRCPT, "ADDRCPT", "z"},
    {MKIT_R_DELRCPT, "DELRCPT", "z"},
    {MKIT_R_ADDRCPT_PAR, "ADDRCPT_PAR", "z?z"},
    {MKIT_R_SHUTDOWN, "SHUTDOWN", ""},
    {MKIT_R_OPTNEG, "OPTNEG", "uuu&uz"},
    {MKIT_R_ACCEPT, "ACCEPT", ""},
    {MKIT_R_REPLBODY, "REPLBODY", "*"},
    {MKIT_R_CONTINUE, "CONTINUE", ""},
    {MKIT_R_DISCARD, "DISCARD", ""},
    {MKIT_R_CHGFROM, "CHGFROM", "z?z"},
    {MKIT_R_CONN_FAIL, "CONN_FAIL", ""},
    {MKIT_R_ADDHEADER, "ADDHEADER", "zz"},
    {MKIT_R_INSHEADER, "INSHEADER", "uzz"},
    {MKIT_R_SETSYMLIST, "SETSYMLIST", "*"},
    {MKIT_R_CHGHEADER, "CHGHEADER", "uzz"},
    {MKIT_R_PROGRESS, "PROGRESS", ""},
    {MKIT_R_QUARANTINE, "QUARANTINE", "z"},
    {MKIT_R_REJECT, "REJECT", ""},
    {MKIT_R_SKIP, "SKIP", ""},
    {MKIT_R_TEMPFAIL, "TEMPFAIL", ""},
    {MKIT_R_REPLYCODE, "REPLYCODE", "z"},
    {0, NULL, NULL},
};

static const char *const action_names[] = {
    "ADDHDRS",    "CHGBODY", "ADDRCPT",     "DELRCPT",    "CHGHDRS",
    "QUARANTINE", "CHGFROM", "ADDRCPT_PAR", "SETSYMLIST",
};

static const char *const protocol_names[] = {
    "NOCONNECT", "NOHELO",    "NOMAIL",  "NORCPT",  "NOBODY",   "NOHDRS",  "NOEOH",
    "NR_HDR",    "NOUNKNOWN", "NODATA",  "SKIP",    "RCPT_REJ", "NR_CONN", "NR_HELO",
    "NR_MAIL",   "NR_RCPT",   "NR_DATA", "NR_UNKN", "NR_EOH",   "NR_BODY", "HDR_LEADSPC",
};

static const char *const step_names[MKIT_STEPS] = {
    [MKIT_CONNECT] = "connect",
    [MKIT_HELO] = "helo",
    [MKIT_MAIL] = "envfrom",
    [MKIT_RCPT] = "envrcpt",
    [MKIT_DATA] = "data",
    [MKIT_HEADER] = "header",
    [MKIT_EOH] = "eoh",
    [MKIT_BODY] = "body",
    [MKIT_EOM] = "eom",
    [MKIT_UNKNOWN] = "unknown",
    [MKIT_ABORT] = "abort",
    [MKIT_CLOSE] = "close",
    [MKIT_NEGOTIATE] = "negotiate",
};

static const char *const verdict_names[] = {
    [MKIT_CONTINUE] = "CONTINUE", [MKIT_REJECT] = "REJECT",     [MKIT_DISCARD] = "DISCARD",
    [MKIT_ACCEPT] = "ACCEPT",     [MKIT_TEMPFAIL] = "TEMPFAIL", [MKIT_NOREPLY] = "NOREPLY",
    [MKIT_SKIP] = "SKIP",         [MKIT_ALL_OPTS] = "ALL_OPTS",
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

const struct mkit_packet_kind *mkit_packet_kinds(enum mkit_direction direction)
{
    return direction == MKIT_TO_FILTER ? commands : replies;
}

const struct mkit_packet_kind *mkit_packet_kind(enum mkit_direction direction, uint8_t command)
{
    for (const struct mkit_packet_kind *kind = mkit_packet_kinds(direction); kind->name; kind++)
        if (kind->command == command)
            return kind;
    return NULL;
}

static const char *bit_name(uint32_t bit, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (bit == UINT32_C(1) << i)
            return names[i];
    return NULL;
}

const char *mkit_action_name(uint32_t bit)
{
    return bit_name(bit, action_names, COUNT(action_names));
}

const char *mkit_protocol_name(uint32_t bit)
{
    return bit_name(bit, protocol_names, COUNT(protocol_names));
}

const char *mkit_step_name(enum mkit_step step)
{
    return (unsigned)step < COUNT(step_names) ? step_names[step] : NULL;
}

const char *mkit_verdict_name(int verdict)
{
    return verdict >= 0 && (size_t)verdict < COUNT(verdict_names) ? verdict_names[verdict] : NULL;
}
