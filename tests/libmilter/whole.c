/* The life of a filter, with all that allocates: settings that replace others, callbacks with many
 * arguments, replies and changes, two runs. The MTA is a thread. Ends with 0 if every call did what
 * it should. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include <libmilter/mfapi.h>

enum { ARGUMENTS = 60 }; /* more than fit without an allocation */

static char path[64];
static unsigned wrong;

/* Counts what is not as it should be, and says where. */
static void check(bool right, int line)
{
    if (!right)
        (void)fprintf(stderr, "line %d\n", line);
    wrong += !right;
}

#define CHECK(what) check(what, __LINE__)

/* ------------------------------------------------------------------------------------- filter */

static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address)
{
    CHECK(strcmp(host, "host") == 0 && address);
    CHECK(smfi_setpriv(ctx, strdup(host)) == MI_SUCCESS);
    return SMFIS_CONTINUE;
}

static sfsistat on_envelope(SMFICTX *ctx, char **argv)
{
    char code[] = "450";
    char text[] = "later";
    int count = 0;
    while (argv[count])
        count++;
    CHECK(count == ARGUMENTS && smfi_setreply(ctx, code, NULL, text) == MI_SUCCESS);
    return SMFIS_CONTINUE;
}

static sfsistat on_eom(SMFICTX *ctx)
{
    char name[] = "X";
    char value[] = "value";
    char id[] = "i";
    unsigned char body[1000] = {0};
    CHECK(smfi_getsymval(ctx, id) && strcmp(smfi_getsymval(ctx, id), "ID") == 0);
    CHECK(smfi_addheader(ctx, name, value) == MI_SUCCESS);
    CHECK(smfi_replacebody(ctx, body, sizeof body) == MI_SUCCESS);
    return SMFIS_ACCEPT;
}

static sfsistat on_close(SMFICTX *ctx)
{
    free(smfi_getpriv(ctx));
    CHECK(smfi_setpriv(ctx, NULL) == MI_SUCCESS);
    return smfi_stop() == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
}

/* ---------------------------------------------------------------------------------------- MTA */

static void say(int fd, char command, const char *data, size_t len)
{
    unsigned char packet[1024] = {0, 0, (unsigned char)((len + 1) >> 8), (unsigned char)(len + 1),
                                  (unsigned char)command};
    memcpy(packet + 5, data, len);
    CHECK(write(fd, packet, len + 5) == (ssize_t)(len + 5));
}

#define SAY(fd, command, data) say(fd, command, data, sizeof data - 1)

static void *be_mta(void *arg)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char arguments[ARGUMENTS * 2];
    char answers[4096];
    (void)arg;
    memcpy(address.sun_path, path, sizeof path);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    while (connect(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        (void)usleep(1000);
    for (size_t i = 0; i < sizeof arguments; i++)
        arguments[i] = i % 2 ? '\0' : 'a';
    SAY(fd, 'O', "\0\0\0\6\0\0\1\xff\0\x1f\xff\xff");
    SAY(fd, 'C',
        "host\0"
        "4\0\0"
        "192.0.2.1\0");
    SAY(fd, 'D', "Mi\0ID\0");
    say(fd, 'M', arguments, sizeof arguments);
    say(fd, 'R', arguments, sizeof arguments);
    SAY(fd, 'E', "");
    SAY(fd, 'Q', "");
    ssize_t got;
    size_t total = 0;
    while ((got = read(fd, answers, sizeof answers)) > 0)
        total += (size_t)got;
    CHECK(got == 0 && total > 1000);
    (void)close(fd);
    return NULL;
}

int main(void)
{
    char folder[] = "/tmp/mkit-XXXXXX";
    char name[] = "whole";
    char other[] = "unix:/nonexistent/socket";
    char spec[80];
    const struct smfiDesc filter = {
        .xxfi_name = name,
        .xxfi_version = SMFI_VERSION,
        .xxfi_flags = SMFIF_ADDHDRS | SMFIF_CHGBODY,
        .xxfi_connect = on_connect,
        .xxfi_envfrom = on_envelope,
        .xxfi_envrcpt = on_envelope,
        .xxfi_eom = on_eom,
        .xxfi_close = on_close,
    };
    openlog(name, LOG_PERROR, LOG_MAIL);
    if (!mkdtemp(folder))
        return 2;
    (void)snprintf(path, sizeof path, "%s/socket", folder);
    (void)snprintf(spec, sizeof spec, "unix:%s", path);
    for (int i = 0; i < 2; i++) {
        pthread_t mta;
        CHECK(smfi_register(filter) == MI_SUCCESS);
        CHECK(smfi_setconn(other) == MI_SUCCESS && smfi_main() == MI_FAILURE);
        CHECK(smfi_setconn(spec) == MI_SUCCESS);
        CHECK(pthread_create(&mta, NULL, be_mta, NULL) == 0);
        CHECK(smfi_main() == MI_SUCCESS);
        CHECK(pthread_join(mta, NULL) == 0);
    }
    (void)rmdir(folder);
    return wrong != 0;
}
