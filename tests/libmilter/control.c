/* Calls libmilter's control functions, rightly and wrongly, and prints what they return: the same
 * lines on any library. What is logged goes to standard error as well. Usage: control FOLDER */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include <libmilter/mfapi.h>

#define SHOW(call) printf("%s = %d\n", #call, call)

static char folder[80], spec[300], other[200];

static sfsistat on_eom(SMFICTX *ctx)
{
    (void)ctx;
    return SMFIS_CONTINUE;
}

/* Leaves a socket's file behind, as a program does that was killed. */
static void leave_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) || close(fd))
        perror(path);
}

static int set_conn(const char *path)
{
    (void)snprintf(spec, sizeof spec, "unix:%s", path);
    return smfi_setconn(spec);
}

static int register_version(int version)
{
    char name[] = "control";
    const struct smfiDesc filter = {.xxfi_name = name, .xxfi_version = version, .xxfi_eom = on_eom};
    return smfi_register(filter);
}

static void settings(void)
{
    static const int versions[] = {SMFI_VERSION, 2,          3, 4, 0x01000055, 0, 1, 5, 6,
                                   0x01000101,   0x02000001, -1};
    char empty[] = "";
    char bad[] = "nosuch:thing";
    char no_port[] = "inet:";
    char far_host[] = "inet:0@[::1]";
    SHOW(smfi_opensocket(true));
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++)
        printf("version %#x: %d\n", (unsigned)versions[i], register_version(versions[i]));
    SHOW(register_version(SMFI_VERSION));
    SHOW(smfi_opensocket(true));
    SHOW(smfi_main());
    SHOW(smfi_setconn(NULL));
    SHOW(smfi_setconn(empty));
    SHOW(smfi_setconn(bad));
    SHOW(smfi_opensocket(false));
    SHOW(smfi_setconn(no_port));
    SHOW(smfi_opensocket(false));
    SHOW(smfi_setconn(far_host));
    SHOW(smfi_opensocket(false));
    SHOW(smfi_setbacklog(0));
    SHOW(smfi_setbacklog(-1));
    SHOW(smfi_setbacklog(7));
    SHOW(smfi_settimeout(-1));
    SHOW(smfi_settimeout(0));
    SHOW(smfi_settimeout(7210));
    SHOW(smfi_setdbg(-1));
    SHOW(smfi_setdbg(0));
    unsigned major = 9, minor = 9, patch = 9;
    SHOW(smfi_version(&major, &minor, &patch));
    printf("%u.%u.%u\n", major, minor, patch);
    SHOW(smfi_version(NULL, NULL, NULL));
    printf("%zu\n", smfi_setmaxdatasize(1000));
    printf("%zu\n", smfi_setmaxdatasize(65535));
}

static void sockets(void)
{
    char dir[100], stale[100], fresh[100];
    (void)snprintf(dir, sizeof dir, "%s/dir", folder);
    (void)snprintf(stale, sizeof stale, "%s/stale", folder);
    (void)snprintf(fresh, sizeof fresh, "%s/fresh", folder);
    if (mkdir(dir, 0700))
        perror(dir);
    leave_socket(stale);
    (void)snprintf(other, sizeof other, "%s/%0*d", folder, 110, 0);
    SHOW(set_conn(other));
    SHOW(smfi_opensocket(true));
    SHOW(set_conn(dir));
    SHOW(smfi_opensocket(true));
    SHOW(set_conn("/nonexistent/socket"));
    SHOW(smfi_opensocket(true));
    SHOW(set_conn(stale));
    SHOW(smfi_opensocket(false));
    SHOW(smfi_main());
    SHOW(smfi_opensocket(true));
    SHOW(smfi_opensocket(true));
    SHOW(set_conn(fresh));
    SHOW(smfi_opensocket(false)); /* open already: at the old place */
    printf("fresh: %d\n", access(fresh, F_OK));
}

/* Calls without a context. */
static void contexts(void)
{
    char a[] = "a", code[] = "550";
    unsigned char body[] = "b";
    SHOW(smfi_setpriv(NULL, a));
    SHOW(smfi_getpriv(NULL) == NULL);
    SHOW(smfi_getsymval(NULL, a) == NULL);
    SHOW(smfi_setreply(NULL, code, NULL, a));
    SHOW(smfi_setmlreply(NULL, code, NULL, a, NULL));
    SHOW(smfi_progress(NULL));
    SHOW(smfi_addheader(NULL, a, a));
    SHOW(smfi_insheader(NULL, 0, a, a));
    SHOW(smfi_chgheader(NULL, a, 1, a));
    SHOW(smfi_chgfrom(NULL, a, NULL));
    SHOW(smfi_addrcpt(NULL, a));
    SHOW(smfi_addrcpt_par(NULL, a, NULL));
    SHOW(smfi_delrcpt(NULL, a));
    SHOW(smfi_replacebody(NULL, body, 1));
    SHOW(smfi_quarantine(NULL, a));
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    (void)snprintf(folder, sizeof folder, "%s", argv[1]);
    openlog("control", LOG_PERROR, LOG_MAIL);
    settings();
    sockets();
    contexts();
    return 0;
}
