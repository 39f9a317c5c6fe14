/* The engine's errors and its version: one table of names and texts. */
#include "milterkit.h"

static const struct {
    const char *name;
    const char *text;
} errors[] = {
    [-MKIT_OK] = {"MKIT_OK", "no error"},
    [-MKIT_ENOMEM] = {"MKIT_ENOMEM", "no memory"},
    [-MKIT_EINVAL] = {"MKIT_EINVAL", "an argument is not valid"},
    [-MKIT_ESTEP] = {"MKIT_ESTEP", "not allowed at this step"},
    [-MKIT_EACTION] = {"MKIT_EACTION", "the action was not negotiated with the MTA"},
    [-MKIT_ETEXT] = {"MKIT_ETEXT", "the MTA would refuse or misread the text"},
    [-MKIT_ETOOBIG] = {"MKIT_ETOOBIG", "larger than a packet can be"},
    [-MKIT_EPROTOCOL] = {"MKIT_EPROTOCOL", "the MTA broke the protocol"},
    [-MKIT_ELIMIT] = {"MKIT_ELIMIT", "the MTA passed a limit"},
    [-MKIT_ECLOSED] = {"MKIT_ECLOSED", "the MTA has closed the connection"},
    [-MKIT_ETIMEOUT] = {"MKIT_ETIMEOUT", "the MTA did not answer in time"},
    [-MKIT_ESPEC] = {"MKIT_ESPEC", "not a socket specification"},
    [-MKIT_ESOCKET] = {"MKIT_ESOCKET", "a socket operation failed"},
    [-MKIT_EBUSY] = {"MKIT_EBUSY", "running already, or still in use"},
    [-MKIT_ETHREAD] = {"MKIT_ETHREAD", "no thread could be started"},
};

static const int known = sizeof errors / sizeof *errors;

const char *mkit_error_name(int error)
{
    return error <= 0 && error > -known ? errors[-error].name : "MKIT_?";
}

const char *mkit_error_text(int error)
{
    return error <= 0 && error > -known ? errors[-error].text : "unknown error";
}

const char *mkit_version(void)
{
    return MKIT_VERSION;
}
