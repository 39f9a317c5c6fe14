/* A filter that the MTA tells what to do, through macros: {do:eom} with the value
 * "addheader,X,v;progress;1" makes two calls in eom and returns 1; "~" stands for NULL. It writes
 * each callback with its arguments, and each call with its result, to a file.
 * On libmilter's API alone; the same binary runs on any library that has it.
 *
 * Usage: told SOCKET LOG TIMEOUT VERSION ACTIONS NEGOTIATE [STEP...]
 * NEGOTIATE: the same for negotiate, before which there are no macros; a number is what it asks
 * for, without one it returns SMFIS_ALL_OPTS; "refuse": it refuses; "-": there is no such callback.
 * STEP: callbacks that there are not. */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include <libmilter/mfapi.h>

enum { MAX_ARGS = 48 };

static FILE *logfile;
static const char *negotiate;

/* --------------------------------------------------------------------------------------- calls */

/* Makes a text longer than an argument: "x*70000" is 70000 x. Leaks on purpose: it is a test. */
static char *expand(char *text)
{
    if (strcmp(text, "~") == 0)
        return NULL;
    if (text[0] && text[1] == '*') {
        size_t len = strtoul(text + 2, NULL, 10);
        char *made = malloc(len + 1);
        if (!made)
            abort();
        memset(made, text[0], len);
        made[len] = '\0';
        return made;
    }
    return text;
}

static int number(const char *text)
{
    return text ? (int)strtol(text, NULL, 0) : 0;
}

static int call(SMFICTX *ctx, char **a)
{
    const char *name = a[0];
    char *lines[MAX_ARGS] = {NULL};
    memcpy(lines, a + 3, 33 * sizeof *lines);
#define IS(what) (strcmp(name, what) == 0)
    if (IS("addheader"))
        return smfi_addheader(ctx, a[1], a[2]);
    if (IS("insheader"))
        return smfi_insheader(ctx, number(a[1]), a[2], a[3]);
    if (IS("chgheader"))
        return smfi_chgheader(ctx, a[1], number(a[2]), a[3]);
    if (IS("addrcpt"))
        return smfi_addrcpt(ctx, a[1]);
    if (IS("addrcpt_par"))
        return smfi_addrcpt_par(ctx, a[1], a[2]);
    if (IS("delrcpt"))
        return smfi_delrcpt(ctx, a[1]);
    if (IS("chgfrom"))
        return smfi_chgfrom(ctx, a[1], a[2]);
    if (IS("quarantine"))
        return smfi_quarantine(ctx, a[1]);
    if (IS("replacebody"))
        return smfi_replacebody(ctx, (unsigned char *)a[1], number(a[2]));
    if (IS("progress"))
        return smfi_progress(ctx);
    if (IS("setsymlist"))
        return smfi_setsymlist(ctx, number(a[1]), a[2]);
    if (IS("setreply"))
        return smfi_setreply(ctx, a[1], a[2], a[3]);
    if (IS("setmlreply")) /* up to 33 lines; the first NULL ends them */
        return smfi_setmlreply(ctx, a[1], a[2], lines[0], lines[1], lines[2], lines[3], lines[4],
                               lines[5], lines[6], lines[7], lines[8], lines[9], lines[10],
                               lines[11], lines[12], lines[13], lines[14], lines[15], lines[16],
                               lines[17], lines[18], lines[19], lines[20], lines[21], lines[22],
                               lines[23], lines[24], lines[25], lines[26], lines[27], lines[28],
                               lines[29], lines[30], lines[31], lines[32], NULL);
    if (IS("getsymval")) {
        const char *value = smfi_getsymval(ctx, a[1]);
        fprintf(logfile, "%s is %s\n", a[1] ? a[1] : "NULL", value ? value : "NULL");
        return 0;
    }
    if (IS("setpriv"))
        return smfi_setpriv(ctx, a[1] ? strdup(a[1]) : NULL);
    if (IS("getpriv")) {
        const char *value = smfi_getpriv(ctx);
        fprintf(logfile, "private is %s\n", value ? value : "NULL");
        return 0;
    }
    if (IS("stop"))
        return smfi_stop();
    if (IS("await")) { /* a file that the test makes */
        fflush(logfile);
        while (access(a[1], F_OK) != 0)
            (void)poll(NULL, 0, 5);
        return 0;
    }
    fprintf(logfile, "no call %s\n", name);
    return 0;
}

/* Makes the calls of a plan. Returns the number in it, or `otherwise`. */
static int follow(SMFICTX *ctx, const char *text, int otherwise)
{
    char *plan = strdup(text);
    char *rest = plan;
    char *words;
    int result = otherwise;
    while ((words = strsep(&rest, ";"))) {
        char *args[MAX_ARGS] = {NULL};
        int count = 0;
        char *word;
        while ((word = strsep(&words, ",")) && count < MAX_ARGS)
            args[count++] = expand(word);
        if (count == 1 && strchr("-0123456789", args[0][0]))
            result = number(args[0]);
        else
            fprintf(logfile, "  %s: %d\n", args[0], call(ctx, args));
    }
    free(plan);
    return result;
}

/* Does what the MTA says for a step. Returns the verdict. */
static sfsistat obey(SMFICTX *ctx, const char *step)
{
    char name[32];
    (void)snprintf(name, sizeof name, "{do:%s}", step);
    const char *plan = smfi_getsymval(ctx, name);
    const sfsistat verdict = plan ? follow(ctx, plan, SMFIS_CONTINUE) : SMFIS_CONTINUE;
    fflush(logfile);
    return verdict;
}

/* ----------------------------------------------------------------------------------- callbacks */

static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address)
{
    char text[INET6_ADDRSTRLEN] = "";
    const struct sockaddr_in *in = (const void *)address;
    const struct sockaddr_in6 *in6 = (const void *)address;
    const struct sockaddr_un *un = (const void *)address;
    fprintf(logfile, "connect %s", host);
    if (!address)
        fprintf(logfile, " NULL\n");
    else if (address->sa_family == AF_INET)
        fprintf(logfile, " %s %d\n", inet_ntop(AF_INET, &in->sin_addr, text, sizeof text),
                ntohs(in->sin_port));
    else if (address->sa_family == AF_INET6)
        fprintf(logfile, " %s %d\n", inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text),
                ntohs(in6->sin6_port));
    else
        fprintf(logfile, " %s\n", un->sun_path);
    return obey(ctx, "connect");
}

static sfsistat with_args(SMFICTX *ctx, const char *step, char **args)
{
    fprintf(logfile, "%s", step);
    for (; *args; args++)
        fprintf(logfile, " <%s>", *args);
    fprintf(logfile, "\n");
    return obey(ctx, step);
}

static sfsistat on_helo(SMFICTX *ctx, char *name)
{
    fprintf(logfile, "helo %s\n", name);
    return obey(ctx, "helo");
}

static sfsistat on_envfrom(SMFICTX *ctx, char **args)
{
    return with_args(ctx, "envfrom", args);
}

static sfsistat on_envrcpt(SMFICTX *ctx, char **args)
{
    return with_args(ctx, "envrcpt", args);
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
    fprintf(logfile, "header %s: %s\n", name, value);
    return obey(ctx, "header");
}

static sfsistat on_body(SMFICTX *ctx, unsigned char *chunk, size_t len)
{
    fprintf(logfile, "body %zu %02x..%02x\n", len, chunk[0], chunk[len - 1]);
    return obey(ctx, "body");
}

static sfsistat on_unknown(SMFICTX *ctx, const char *line)
{
    fprintf(logfile, "unknown %s\n", line);
    return obey(ctx, "unknown");
}

#define PLAIN(step)                                                                                \
    static sfsistat on_##step(SMFICTX *ctx)                                                        \
    {                                                                                              \
        fprintf(logfile, "%s\n", #step);                                                           \
        return obey(ctx, #step);                                                                   \
    }
PLAIN(data)
PLAIN(eoh)
PLAIN(eom)
PLAIN(abort)
PLAIN(close)

static sfsistat on_negotiate(SMFICTX *ctx, unsigned long f0, unsigned long f1, unsigned long f2,
                             unsigned long f3, unsigned long *pf0, unsigned long *pf1,
                             unsigned long *pf2, unsigned long *pf3)
{
    fprintf(logfile, "negotiate %lx %lx %lx %lx: %lx %lx %lx %lx\n", f0, f1, f2, f3, *pf0, *pf1,
            *pf2, *pf3);
    if (strcmp(negotiate, "refuse") == 0)
        return SMFIS_REJECT;
    const int asked = follow(ctx, negotiate, -1);
    if (asked < 0)
        return SMFIS_ALL_OPTS;
    *pf1 = (unsigned long)asked;
    *pf2 = *pf3 = 0;
    return SMFIS_CONTINUE;
}

int main(int argc, char **argv)
{
    if (argc < 7 || !(logfile = fopen(argv[2], "a")))
        return 2;
    char name[] = "told";
    struct smfiDesc filter = {
        .xxfi_name = name,
        .xxfi_version = (int)strtol(argv[4], NULL, 0),
        .xxfi_flags = strtoul(argv[5], NULL, 0),
    };
    negotiate = argv[6];
#define USE(step)                                                                                  \
    filter.xxfi_##step = on_##step;                                                                \
    for (int i = 7; i < argc; i++)                                                                 \
        if (strcmp(argv[i], #step) == 0)                                                           \
            filter.xxfi_##step = NULL;
    USE(connect)
    USE(helo)
    USE(envfrom)
    USE(envrcpt)
    USE(data)
    USE(header)
    USE(eoh)
    USE(body)
    USE(eom)
    USE(unknown)
    USE(abort)
    USE(close)
    if (strcmp(negotiate, "-") != 0)
        filter.xxfi_negotiate = on_negotiate;
    if (smfi_register(filter) != MI_SUCCESS || smfi_setconn(argv[1]) != MI_SUCCESS ||
        smfi_settimeout(number(argv[3])) != MI_SUCCESS)
        return 3;
    const int result = smfi_main();
    fprintf(logfile, "main: %d\n", result);
    return fclose(logfile);
}
