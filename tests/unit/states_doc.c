/* docs/states.md, made from the state table (src/session/states.c). `states_doc FILE` fails if the
 * file says something else; `states_doc --write FILE` writes it (make states). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session/session.h"

static const char head[] =
    "# The states of a session\n"
    "\n"
    "Made from the table in `src/session/states.c` by `make states`; do not edit.\n"
    "\n"
    "A state is the last command that was accepted. An arrow leads to a command that may follow. "
    "Not drawn,\nbut in the table: ABORT, which ends a message, and UNKNOWN, after which the "
    "session "
    "is where it was. QUIT\nends a session and QUIT_NC makes it new wherever they come. What may "
    "not "
    "follow ends an open message,\nand is ignored unless it may follow HELO: it gets no answer, "
    "and "
    "the log says so. If the MTA leaves a command out,\nas the filter asked, what may follow that "
    "command may come in its place; a message may also do without headers.\n"
    "\n"
    "A verdict that ends the message (a refusal, ACCEPT, DISCARD; at RCPT and UNKNOWN only ACCEPT) "
    "leads to HELO, at DATA to OVER.\nFor a refused DATA, whether by this filter or by another "
    "one, "
    "ends no transaction of the client: MTAs then send further\nrecipients, unknown commands "
    "and DATA again, which belong to the same message. After its own verdict at DATA a filter\n"
    "gets no abort, unless one of these commands has come since.\n"
    "\n"
    "```mermaid\n"
    "stateDiagram-v2\n";

static bool is_drawn(unsigned state)
{
    return state != S_UNKN && state != S_ABRT && state != S_QUIT;
}

static void print_diagram(FILE *to)
{
    (void)fprintf(to, "    [*] --> INIT\n");
    for (unsigned from = 0; from < S_STATES; from++) {
        for (unsigned next = 0; next < S_STATES; next++)
            if (is_drawn(from) && is_drawn(next) && mkit_states[from].next & 1U << next)
                (void)fprintf(to, "    %s --> %s: %c\n", mkit_states[from].name,
                              mkit_states[next].name, mkit_states[next].command);
        if (mkit_states[from].over != S_HELO)
            (void)fprintf(to, "    %s --> %s: verdict\n", mkit_states[from].name,
                          mkit_states[mkit_states[from].over].name);
    }
    (void)fprintf(to, "```\n\n");
}

static void print_table(FILE *to)
{
    (void)fprintf(to, "| state | command | callback | in a message | a refusal is for | macros "
                      "forgotten first | may follow |\n"
                      "| --- | --- | --- | --- | --- | --- | --- |\n");
    for (unsigned state = 0; state < S_STATES; state++) {
        const struct state_row *row = &mkit_states[state];
        const char command[] = {'`', (char)row->command, '`', '\0'};
        (void)fprintf(to, "| %s | %s | %s | %s | %s |", row->name, row->command ? command : "",
                      row->step == NO_STEP ? "" : mkit_step_name(row->step),
                      row->in_message ? "yes" : "", row->one_only ? "this command" : "");
        static const char *const macros[] = {"all", "from CONNECT on", "from HELO on",
                                             "from MAIL on", "from RCPT on"};
        (void)fprintf(to, " %s |", row->macros < 5 ? macros[row->macros] : "");
        for (unsigned next = 0; next < S_STATES; next++)
            if (row->next & 1U << next)
                (void)fprintf(to, " %s", mkit_states[next].name);
        (void)fprintf(to, " |\n");
    }
}

/* Whether a file holds just this text. */
static bool holds(const char *path, const char *text, size_t len)
{
    char *found = malloc(len + 1);
    FILE *file = fopen(path, "re");
    const bool same =
        found && file && fread(found, 1, len + 1, file) == len && memcmp(found, text, len) == 0;
    if (file)
        (void)fclose(file);
    free(found);
    return same;
}

int main(int argc, char **argv)
{
    char *text = NULL;
    size_t len = 0;
    const bool writes = argc > 2 && strcmp(argv[1], "--write") == 0;
    FILE *made = open_memstream(&text, &len);
    if (!made || argc < 2)
        return 2;
    (void)fputs(head, made);
    print_diagram(made);
    print_table(made);
    (void)fclose(made);
    bool fine;
    if (writes) {
        FILE *file = fopen(argv[2], "we");
        fine = file && fwrite(text, 1, len, file) == len;
        fine = file && fclose(file) == 0 && fine;
    } else {
        fine = holds(argv[1], text, len);
        if (!fine)
            (void)fprintf(stderr, "%s is not what the table says: make states\n", argv[1]);
    }
    free(text);
    return !fine;
}
