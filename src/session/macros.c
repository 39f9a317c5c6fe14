/* Macros: what the MTA tells beside the commands, kept by the stage that it was told for (sheet 4).
 */
#include <stdlib.h>
#include <string.h>

#include "session/session.h"

/* Slots in the order of clearing and lookup: EOH comes before EOM. */
static int slot_of(uint32_t command)
{
    static const char order[MACRO_SLOTS + 1] = "CHMRTNE";
    const char *found = command ? strchr(order, (int)command) : NULL;
    return found ? (int)(found - order) : -1;
}

int mkit_macros_store(struct mkit_session *session, const struct mkit_field *fields)
{
    int slot = slot_of(fields[0].number);
    struct mkit_text strings = fields[1].text;
    if (slot < 0)
        return 0;
    /* A name or value without its NUL is not one; without any the packet says nothing. */
    while (strings.len && strings.at[strings.len - 1] != '\0')
        strings.len--;
    if (strings.len == 0)
        return 0;
    if (strings.len > session->limits.macros)
        return mkit_fail(session, MKIT_ELIMIT, "packet MACRO (D): %zu bytes, the limit is %zu",
                         strings.len, session->limits.macros);
    char *copy = malloc(strings.len);
    if (!copy)
        return mkit_fail(session, MKIT_ENOMEM, "no memory for %zu bytes of macros", strings.len);
    memcpy(copy, strings.at, strings.len);
    free(session->macros[slot].strings);
    session->macros[slot] = (struct macro_slot){copy, strings.len};
    return 0;
}

void mkit_macros_clear(struct mkit_session *session, unsigned from)
{
    for (unsigned slot = from; slot < MACRO_SLOTS; slot++) {
        free(session->macros[slot].strings);
        session->macros[slot] = (struct macro_slot){0};
    }
}

/* Cuts the braces off "{x}": one letter is the same with and without. Longer names stay. */
static size_t plain_name(const char **name)
{
    size_t len = strlen(*name);
    if (len == 3 && (*name)[0] == '{' && (*name)[2] == '}') {
        ++*name;
        len = 1;
    }
    return len;
}

const char *mkit_getsymval(const struct mkit_session *session, const char *name)
{
    if (!session || !name || !*name)
        return NULL;
    size_t len = plain_name(&name);
    for (unsigned slot = MACRO_SLOTS; slot-- > 0;) {
        struct mkit_text rest = {session->macros[slot].strings, session->macros[slot].len};
        const char *key;
        while ((key = mkit_next_string(&rest))) {
            const char *value = mkit_next_string(&rest);
            if (plain_name(&key) == len && memcmp(key, name, len) == 0)
                return value;
        }
    }
    return NULL;
}
