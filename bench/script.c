/* What is said to a filter, as bytes. The texts and macros are like those of a Postfix. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "script.h"

static void *grown(void *at, size_t size)
{
    at = realloc(at, size);
    if (!at) {
        (void)fprintf(stderr, "load: no memory for the messages\n");
        exit(2);
    }
    return at;
}

static struct mkit_field number(uint32_t value)
{
    return (struct mkit_field){.number = value};
}

static struct mkit_field bytes(const void *at, size_t len)
{
    return (struct mkit_field){.text = {at, len}};
}

static struct mkit_field string(const char *text)
{
    return bytes(text, strlen(text));
}

/* Appends one packet to the script. */
static void packet(struct script *script, uint8_t command, const struct mkit_field *fields,
                   size_t count)
{
    const size_t len = mkit_encode(MKIT_TO_FILTER, command, fields, count, NULL, 0);
    while (script->size - script->len < len) {
        script->size = script->size ? script->size * 2 : 4096;
        script->bytes = grown(script->bytes, script->size);
    }
    (void)mkit_encode(MKIT_TO_FILTER, command, fields, count, script->bytes + script->len, len);
    script->len += len;
}

/* What the MTA does about a step, by the filter's options (sheet 2.3) and the version (2.7). */
static const struct rule {
    uint8_t command;
    uint32_t omit;
    uint32_t no_reply;
    uint32_t since; /* version */
} rules[] = {
    {MKIT_C_CONNECT, MKIT_NOCONNECT, MKIT_NR_CONN, 2},
    {MKIT_C_HELO, MKIT_NOHELO, MKIT_NR_HELO, 2},
    {MKIT_C_MAIL, MKIT_NOMAIL, MKIT_NR_MAIL, 2},
    {MKIT_C_RCPT, MKIT_NORCPT, MKIT_NR_RCPT, 2},
    {MKIT_C_DATA, MKIT_NODATA, MKIT_NR_DATA, 4},
    {MKIT_C_HEADER, MKIT_NOHDRS, MKIT_NR_HDR, 2},
    {MKIT_C_EOH, MKIT_NOEOH, MKIT_NR_EOH, 2},
    {MKIT_C_BODY, MKIT_NOBODY, MKIT_NR_BODY, 2},
    {MKIT_C_BODYEOB, 0, 0, 2},
};

static const struct rule *rule_of(uint8_t command)
{
    const struct rule *rule = rules;
    while (rule->command != command)
        rule++;
    return rule;
}

/* Appends a step: macros (name NUL value NUL ..., or NULL for none) and the command. */
static void step(struct script *script, const struct scripts *options, uint8_t command,
                 const char *macros, size_t macros_len, const struct mkit_field *fields,
                 size_t count)
{
    const struct rule *rule = rule_of(command);
    const bool wanted = !(rule->omit & options->protocol) && options->version >= rule->since;
    if (!wanted && !macros)
        return;
    struct step next = {.command = command, .begin = script->len};
    if (macros) {
        const struct mkit_field definition[] = {number(command), bytes(macros, macros_len)};
        packet(script, MKIT_C_MACRO, definition, 2);
        next.packets++;
    }
    if (wanted) {
        packet(script, command, fields, count);
        next.packets++;
        next.reply = !(rule->no_reply & options->protocol);
    }
    next.end = script->len;
    script->steps = grown(script->steps, (script->count + 1) * sizeof *script->steps);
    script->steps[script->count++] = next;
}

#define MACROS(text) text, sizeof(text) - 1

static void make_greeting(struct scripts *s)
{
    const struct mkit_field client[] = {string("client.example.org"), number(MKIT_FAMILY_INET),
                                        number(40125), string("192.0.2.25")};
    step(&s->greeting, s, MKIT_C_CONNECT,
         MACROS("j\0mx.example.com\0{daemon_name}\0mx.example.com\0{daemon_addr}\0"
                "198.51.100.1\0v\0Postfix 3.7.11\0_\0client.example.org [192.0.2.25]\0"),
         client, 4);
    const struct mkit_field name = string("client.example.org");
    step(&s->greeting, s, MKIT_C_HELO, NULL, 0, &name, 1);
}

static void add_recipients(struct scripts *s, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char macros[160];
        char address[64];
        int len = snprintf(macros, sizeof macros,
                           "i%c4bK2Xz3Fqyz9vRd%c{rcpt_addr}%cuser%u@example.com%c{rcpt_host}%c"
                           "example.com%c{rcpt_mailer}%clocal%c",
                           0, 0, 0, i, 0, 0, 0, 0, 0);
        (void)snprintf(address, sizeof address, "<user%u@example.com>", i);
        const struct mkit_field to = bytes(address, strlen(address) + 1);
        step(&s->message, s, MKIT_C_RCPT, macros, (size_t)len, &to, 1);
    }
}

/* Headers as messages have them: the usual names first, then more, values of usual lengths. */
static void add_headers(struct scripts *s, unsigned count)
{
    static const char *const usual[][2] = {
        {"Received", "from mail.example.net (mail.example.net [203.0.113.7])\n\tby "
                     "relay.example.org (Postfix) with ESMTPS id 4bK2Xy6sQbz1tJ\n\tfor "
                     "<user0@example.com>; Mon,  3 Nov 2025 10:15:30 +0100 (CET)"},
        {"From", "Ada Lovelace <ada@example.org>"},
        {"To", "user0@example.com"},
        {"Subject", "Notes on the weekly report, and the figures that were missing in it"},
        {"Date", "Mon, 3 Nov 2025 10:15:29 +0100"},
        {"Message-ID", "<20251103091529.4bK2Xy6sQbz1tJ@mail.example.net>"},
        {"MIME-Version", "1.0"},
        {"Content-Type", "text/plain; charset=\"utf-8\""},
        {"Content-Transfer-Encoding", "8bit"},
    };
    const unsigned known = sizeof usual / sizeof *usual;
    for (unsigned i = 0; i < count; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "X-Header-%u", i);
        const struct mkit_field header[] = {
            string(i < known ? usual[i][0] : name),
            string(i < known ? usual[i][1] : "a value of ordinary length; with=parameters"),
        };
        step(&s->message, s, MKIT_C_HEADER, NULL, 0, header, 2);
        if (!(s->protocol & MKIT_NOHDRS))
            s->octets += header[0].text.len + header[1].text.len;
    }
}

static void add_body(struct scripts *s, size_t len)
{
    static const char line[] =
        "The quick brown fox jumps over the lazy dog, and so on it goes.\r\n";
    static char chunk[MKIT_CHUNK];
    for (size_t i = 0; i < sizeof chunk; i++)
        chunk[i] = line[i % (sizeof line - 1)];
    for (size_t sent = 0; sent < len;) {
        const size_t part = len - sent < sizeof chunk ? len - sent : sizeof chunk;
        const struct mkit_field body = bytes(chunk, part);
        step(&s->message, s, MKIT_C_BODY, NULL, 0, &body, 1);
        sent += part;
        if (!(s->protocol & MKIT_NOBODY))
            s->octets += part;
    }
}

static void make_message(struct scripts *s, const struct mail *mail)
{
    const struct mkit_field from = bytes(MACROS("<ada@example.org>\0SIZE=5000\0BODY=8BITMIME\0"));
    step(&s->message, s, MKIT_C_MAIL,
         MACROS("{mail_addr}\0ada@example.org\0{mail_host}\0mail.example.org\0"
                "{mail_mailer}\0smtp\0"),
         &from, 1);
    add_recipients(s, mail->recipients);
    step(&s->message, s, MKIT_C_DATA, NULL, 0, NULL, 0);
    add_headers(s, mail->headers);
    step(&s->message, s, MKIT_C_EOH, NULL, 0, NULL, 0);
    add_body(s, mail->body);
    const struct mkit_field nothing = bytes("", 0);
    step(&s->message, s, MKIT_C_BODYEOB, MACROS("i\0004bK2Xz3Fqyz9vRd\0"), &nothing, 1);
}

const struct scripts *scripts_for(const struct mail *mail, uint32_t version, uint32_t protocol)
{
    static struct scripts *all;
    for (const struct scripts *s = all; s; s = s->next)
        if (s->version == version && s->protocol == protocol)
            return s;
    struct scripts *s = grown(NULL, sizeof *s);
    *s = (struct scripts){.version = version, .protocol = protocol, .next = all};
    make_greeting(s);
    make_message(s, mail);
    all = s;
    return s;
}

size_t script_skip(const struct script *script, size_t step)
{
    const uint8_t command = script->steps[step].command;
    while (step < script->count && script->steps[step].command == command)
        step++;
    return step;
}
