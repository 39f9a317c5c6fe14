/* Tables of what exists in the protocol: packets with their layouts, and the names of all codes. */
#include "wire/protocol.h"

/* Both tables are indexed by the packet's command. */
#define KIND(command, name, layout) [command] = {command, name, layout}

static const struct mkit_packet_kind commands[] = {
    KIND(MKIT_C_ABORT, "ABORT", ""),          KIND(MKIT_C_BODY, "BODY", "b"),
    KIND(MKIT_C_CONNECT, "CONNECT", "zf?wz"), KIND(MKIT_C_MACRO, "MACRO", "c*"),
    KIND(MKIT_C_BODYEOB, "BODYEOB", "*"),     KIND(MKIT_C_HELO, "HELO", "z"),
    KIND(MKIT_C_QUIT_NC, "QUIT_NC", ""),      KIND(MKIT_C_HEADER, "HEADER", "zz"),
    KIND(MKIT_C_MAIL, "MAIL", "a"),           KIND(MKIT_C_EOH, "EOH", ""),
    KIND(MKIT_C_OPTNEG, "OPTNEG", "uuu"),     KIND(MKIT_C_QUIT, "QUIT", ""),
    KIND(MKIT_C_RCPT, "RCPT", "a"),           KIND(MKIT_C_DATA, "DATA", ""),
    KIND(MKIT_C_UNKNOWN, "UNKNOWN", "z"),
};

static const struct mkit_packet_kind replies[] = {
    KIND(MKIT_R_ADDRCPT, "ADDRCPT", "z"),
    KIND(MKIT_R_DELRCPT, "DELRCPT", "z"),
    KIND(MKIT_R_ADDRCPT_PAR, "ADDRCPT_PAR", "z?z"),
    KIND(MKIT_R_SHUTDOWN, "SHUTDOWN", ""),
    KIND(MKIT_R_OPTNEG, "OPTNEG", "uuu&uz"),
    KIND(MKIT_R_ACCEPT, "ACCEPT", ""),
    KIND(MKIT_R_REPLBODY, "REPLBODY", "*"),
    KIND(MKIT_R_CONTINUE, "CONTINUE", ""),
    KIND(MKIT_R_DISCARD, "DISCARD", ""),
    KIND(MKIT_R_CHGFROM, "CHGFROM", "z?z"),
    KIND(MKIT_R_CONN_FAIL, "CONN_FAIL", ""),
    KIND(MKIT_R_ADDHEADER, "ADDHEADER", "zz"),
    KIND(MKIT_R_INSHEADER, "INSHEADER", "uzz"),
    KIND(MKIT_R_SETSYMLIST, "SETSYMLIST", "*"),
    KIND(MKIT_R_CHGHEADER, "CHGHEADER", "uzz"),
    KIND(MKIT_R_PROGRESS, "PROGRESS", ""),
    KIND(MKIT_R_QUARANTINE, "QUARANTINE", "z"),
    KIND(MKIT_R_REJECT, "REJECT", ""),
    KIND(MKIT_R_SKIP, "SKIP", ""),
    KIND(MKIT_R_TEMPFAIL, "TEMPFAIL", ""),
    KIND(MKIT_R_REPLYCODE, "REPLYCODE", "z"),
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

const struct mkit_packet_kind *mkit_packet_kind(enum mkit_direction direction, uint8_t command)
{
    const struct mkit_packet_kind *table = direction == MKIT_TO_FILTER ? commands : replies;
    const size_t count = direction == MKIT_TO_FILTER ? COUNT(commands) : COUNT(replies);
    return command < count && table[command].name ? &table[command] : NULL;
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
