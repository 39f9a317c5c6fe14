/* From a packet's data to its fields, by the layout of its kind. */
#include <string.h>

#include "wire/bytes.h"
#include "wire/protocol.h"

/* What is left to read of a packet. */
struct reader {
    const uint8_t *at;
    size_t left;
};

static bool take(struct reader *r, size_t n, const uint8_t **bytes)
{
    if (r->left < n)
        return false;
    *bytes = r->at;
    r->at += n;
    r->left -= n;
    return true;
}

/* Reads one field. Returns NULL, or what is wrong. */
static const char *read_field(char letter, struct reader *r, struct mkit_field *field)
{
    const uint8_t *p = r->at;
    const uint8_t *end;
    *field = (struct mkit_field){.text = {.at = (const char *)p}};
    switch (letter) {
    case 'u':
        if (!take(r, 4, &p))
            return "it is too short";
        field->number = get_u32(p);
        return NULL;
    case 'w':
        if (!take(r, 2, &p))
            return "it is too short";
        field->number = get_u16(p);
        return NULL;
    case 'c':
        if (!take(r, 1, &p))
            return "it is too short";
        field->number = *p;
        return NULL;
    case 'f':
        if (!take(r, 1, &p))
            return "it is too short";
        field->number = *p;
        if (*p == MKIT_FAMILY_UNKNOWN)
            r->left = 0;
        return NULL;
    case 'z':
        end = r->left ? memchr(p, 0, r->left) : NULL;
        if (!end)
            return r->left ? "a string in it is not terminated" : "it is too short";
        field->text.len = (size_t)(end - p);
        (void)take(r, field->text.len + 1, &p);
        return NULL;
    case 'a': /* an unterminated tail is dropped */
        for (end = p + r->left; end > p && end[-1] != 0;)
            end--;
        if (end == p)
            return r->left ? "a string in it is not terminated" : "it is too short";
        field->text.len = (size_t)(end - p);
        (void)take(r, r->left, &p);
        return NULL;
    case 'b':
        if (r->left == 0)
            return "it is empty";
        /* fall through */
    default: /* '*' */
        field->text.len = r->left;
        (void)take(r, r->left, &p);
        return NULL;
    }
}

int mkit_decode(enum mkit_direction direction, const struct mkit_packet *packet,
                struct mkit_field fields[MKIT_MAX_FIELDS], const char **why)
{
    const struct mkit_packet_kind *kind = mkit_packet_kind(direction, packet->command);
    if (!kind) {
        *why = "there is no such packet";
        return MKIT_EPROTOCOL;
    }
    struct reader r = {packet->data, packet->len};
    const char *again = NULL; /* where a repetition starts */
    int count = 0;
    for (const char *letter = kind->layout;; letter++) {
        if (*letter == '?' || *letter == '&') {
            if (r.left == 0)
                break;
            again = *letter == '&' ? letter : again;
            continue;
        }
        if (*letter == '\0') {
            if (!again || r.left == 0)
                break;
            letter = again;
            continue;
        }
        if (count == MKIT_MAX_FIELDS) {
            *why = "it has too many fields";
            return MKIT_EPROTOCOL;
        }
        const char *wrong = read_field(*letter, &r, &fields[count]);
        if (wrong) {
            *why = wrong;
            return MKIT_EPROTOCOL;
        }
        count++;
    }
    if (r.left && direction == MKIT_TO_MTA) {
        *why = "it has data left over";
        return MKIT_EPROTOCOL;
    }
    if (r.left && strchr(kind->layout, 'z') && packet->data[packet->len - 1] != 0) {
        *why = "a string in it is not terminated";
        return MKIT_EPROTOCOL;
    }
    return count;
}

const char *mkit_next_string(struct mkit_text *rest)
{
    if (rest->len == 0)
        return NULL;
    const char *string = rest->at;
    const char *end = memchr(string, 0, rest->len);
    size_t used = end ? (size_t)(end - string) + 1 : rest->len;
    rest->at += used;
    rest->len -= used;
    return end ? string : NULL;
}
