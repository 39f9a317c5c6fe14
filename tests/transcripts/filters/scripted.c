/* A filter that does what it is told: it reports each callback with its arguments on a socket,
 * makes the calls that come back, and returns the verdict that ends them. See play.py for the other
 * end. Uses libmilter's API alone; the same binary runs on Debian's library and on ours.
 *
 * Usage: scripted SOCKET CONTROL VERSION ACTIONS STEP...   (the callbacks that there are) */
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <libmilter/mfapi.h>

enum { MAX_FIELDS = 64 };

/* One message on the control socket: how many fields, then each one's length, -1 for NULL, and its
 * bytes. Numbers are decimal, each followed by a line end. */
struct message {
    int count;
    char *at[MAX_FIELDS];
    long len[MAX_FIELDS];
};

static FILE *from_test, *to_test;

static void put_count(int count)
{
    fprintf(to_test, "%d\n", count);
}

static void put(const void *data, size_t len)
{
    if (!data) {
        fputs("-1\n", to_test);
        return;
    }
    fprintf(to_test, "%zu\n", len);
    fwrite(data, 1, len, to_test);
}

static void put_text(const char *text)
{
    put(text, text ? strlen(text) : 0);
}

static void put_number(unsigned long number)
{
    char text[24];
    snprintf(text, sizeof text, "%lu", number);
    put_text(text);
}

static long get_number(void)
{
    long number;
    if (fscanf(from_test, "%ld%*c", &number) != 1)
        _Exit(0); /* the test is over */
    return number;
}

static void get(struct message *message)
{
    fflush(to_test);
    memset(message, 0, sizeof *message);
    message->count = (int)get_number();
    for (int i = 0; i < message->count; i++) {
        long len = message->len[i] = get_number();
        if (len < 0)
            continue;
        message->at[i] = malloc((size_t)len + 1);
        if (!message->at[i] || fread(message->at[i], 1, (size_t)len, from_test) != (size_t)len)
            _Exit(1);
        message->at[i][len] = '\0';
    }
}

static void release(struct message *message)
{
    for (int i = 0; i < message->count; i++)
        free(message->at[i]);
}

/* Makes one call and reports its result. */
static void make(SMFICTX *ctx, struct message *call)
{
    char **a = call->at + 1;
    int result;
#define IS(name) (strcmp(call->at[0], name) == 0)
    if (IS("getsymval")) {
        put_count(1);
        put_text(smfi_getsymval(ctx, a[0]));
        return;
    }
    if (IS("addheader"))
        result = smfi_addheader(ctx, a[0], a[1]);
    else if (IS("insheader"))
        result = smfi_insheader(ctx, atoi(a[0]), a[1], a[2]);
    else if (IS("chgheader"))
        result = smfi_chgheader(ctx, a[0], atoi(a[1]), a[2]);
    else if (IS("addrcpt"))
        result = smfi_addrcpt(ctx, a[0]);
    else if (IS("addrcpt_par"))
        result = smfi_addrcpt_par(ctx, a[0], a[1]);
    else if (IS("delrcpt"))
        result = smfi_delrcpt(ctx, a[0]);
    else if (IS("chgfrom"))
        result = smfi_chgfrom(ctx, a[0], a[1]);
    else if (IS("quarantine"))
        result = smfi_quarantine(ctx, a[0]);
    else if (IS("progress"))
        result = smfi_progress(ctx);
    else if (IS("replacebody"))
        result =
            smfi_replacebody(ctx, (unsigned char *)a[0], a[1] ? atoi(a[1]) : (int)call->len[1]);
    else if (IS("setsymlist"))
        result = smfi_setsymlist(ctx, atoi(a[0]), a[1]);
    else if (IS("setreply"))
        result = smfi_setreply(ctx, a[0], a[1], a[2]);
    else if (IS("setmlreply"))
        result = smfi_setmlreply(ctx, a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9],
                                 a[10], a[11], a[12], a[13], a[14], a[15], a[16], a[17], a[18],
                                 a[19], a[20], a[21], a[22], a[23], a[24], a[25], a[26], a[27],
                                 a[28], a[29], a[30], a[31], a[32], a[33], a[34], NULL);
    else
        _Exit(1);
#undef IS
    put_count(1);
    put_text(result == MI_SUCCESS ? "ok" : "fails");
}

/* Serves a callback whose report was written: calls until a verdict comes. */
static sfsistat serve(SMFICTX *ctx, unsigned long *actions, unsigned long *protocol)
{
    for (;;) {
        struct message order;
        get(&order);
        if (strcmp(order.at[0], "return") != 0) {
            make(ctx, &order);
            release(&order);
            continue;
        }
        sfsistat verdict = atoi(order.at[1]);
        if (actions && order.count == 4) {
            *actions = strtoul(order.at[2], NULL, 10);
            *protocol = strtoul(order.at[3], NULL, 10);
        }
        release(&order);
        return verdict;
    }
}

/* ---------------------------------------------------------------------------------- callbacks */

static sfsistat report(SMFICTX *ctx, const char *step)
{
    put_count(1);
    put_text(step);
    return serve(ctx, NULL, NULL);
}

static sfsistat report_text(SMFICTX *ctx, const char *step, const void *text, size_t len)
{
    put_count(2);
    put_text(step);
    put(text, len);
    return serve(ctx, NULL, NULL);
}

static sfsistat report_args(SMFICTX *ctx, const char *step, char **args)
{
    int count = 0;
    while (args[count])
        count++;
    put_count(1 + count);
    put_text(step);
    for (int i = 0; i < count; i++)
        put_text(args[i]);
    return serve(ctx, NULL, NULL);
}

static sfsistat on_negotiate(SMFICTX *ctx, unsigned long f0, unsigned long f1, unsigned long f2,
                             unsigned long f3, unsigned long *pf0, unsigned long *pf1,
                             unsigned long *pf2, unsigned long *pf3)
{
    put_count(5);
    put_text("negotiate");
    put_number(f0);
    put_number(f1);
    put_number(f2);
    put_number(f3);
    *pf2 = *pf3 = 0;
    return serve(ctx, pf0, pf1);
}

static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address)
{
    char text[200] = "";
    char shown[INET6_ADDRSTRLEN] = "";
    if (address && address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)address;
        inet_ntop(AF_INET, &in->sin_addr, shown, sizeof shown);
        snprintf(text, sizeof text, "%s:%u", shown, ntohs(in->sin_port));
    } else if (address && address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)address;
        inet_ntop(AF_INET6, &in6->sin6_addr, shown, sizeof shown);
        snprintf(text, sizeof text, "[%s]:%u", shown, ntohs(in6->sin6_port));
    } else if (address && address->sa_family == AF_UNIX) {
        snprintf(text, sizeof text, "%s",
                 ((const struct sockaddr_un *)(const void *)address)->sun_path);
    }
    put_count(3);
    put_text("connect");
    put_text(host);
    put_text(address ? text : NULL);
    return serve(ctx, NULL, NULL);
}

static sfsistat on_helo(SMFICTX *ctx, char *name)
{
    return report_text(ctx, "helo", name, strlen(name));
}

static sfsistat on_envfrom(SMFICTX *ctx, char **args)
{
    return report_args(ctx, "envfrom", args);
}

static sfsistat on_envrcpt(SMFICTX *ctx, char **args)
{
    return report_args(ctx, "envrcpt", args);
}

static sfsistat on_data(SMFICTX *ctx)
{
    return report(ctx, "data");
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
    char *args[] = {name, value, NULL};
    return report_args(ctx, "header", args);
}

static sfsistat on_eoh(SMFICTX *ctx)
{
    return report(ctx, "eoh");
}

static sfsistat on_body(SMFICTX *ctx, unsigned char *data, size_t len)
{
    return report_text(ctx, "body", data, len);
}

static sfsistat on_eom(SMFICTX *ctx)
{
    return report(ctx, "eom");
}

static sfsistat on_unknown(SMFICTX *ctx, const char *line)
{
    return report_text(ctx, "unknown", line, strlen(line));
}

static sfsistat on_abort(SMFICTX *ctx)
{
    return report(ctx, "abort");
}

static sfsistat on_close(SMFICTX *ctx)
{
    return report(ctx, "close");
}

/* --------------------------------------------------------------------------------------- main */

static bool open_control(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || strlen(path) >= sizeof address.sun_path)
        return false;
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return false;
    from_test = fdopen(fd, "r");
    to_test = fdopen(dup(fd), "w");
    return from_test && to_test;
}

int main(int argc, char **argv)
{
    struct smfiDesc filter = {.xxfi_name = "scripted"};
    if (argc < 5)
        return 2;
    filter.xxfi_version = atoi(argv[3]);
    if (filter.xxfi_version == 6)
        filter.xxfi_version = SMFI_VERSION;
    filter.xxfi_flags = strtoul(argv[4], NULL, 0);
    for (int i = 5; i < argc; i++) {
#define STEP(name, member, function)                                                               \
    if (strcmp(argv[i], name) == 0)                                                                \
        filter.member = function;
        STEP("negotiate", xxfi_negotiate, on_negotiate)
        STEP("connect", xxfi_connect, on_connect)
        STEP("helo", xxfi_helo, on_helo)
        STEP("envfrom", xxfi_envfrom, on_envfrom)
        STEP("envrcpt", xxfi_envrcpt, on_envrcpt)
        STEP("data", xxfi_data, on_data)
        STEP("header", xxfi_header, on_header)
        STEP("eoh", xxfi_eoh, on_eoh)
        STEP("body", xxfi_body, on_body)
        STEP("eom", xxfi_eom, on_eom)
        STEP("unknown", xxfi_unknown, on_unknown)
        STEP("abort", xxfi_abort, on_abort)
        STEP("close", xxfi_close, on_close)
#undef STEP
    }
    if (smfi_setconn(argv[1]) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS ||
        smfi_opensocket(true) != MI_SUCCESS || !open_control(argv[2]))
        return 1;
    return smfi_main() == MI_SUCCESS ? 0 : 1;
}
