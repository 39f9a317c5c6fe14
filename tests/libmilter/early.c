/* A signal that comes while smfi_main opens its socket. Usage: early SOCKET bind|listen: SIGTERM
 * comes right before the file is there, or right after that. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <libmilter/mfapi.h>

static const char *moment;

static int at(const char *name, long result)
{
    if (strcmp(moment, name) == 0)
        (void)kill(getpid(), SIGTERM);
    return (int)result;
}

/* They stand in for those that the library would call. */
int bind(int fd, const struct sockaddr *address, socklen_t len)
{
    (void)at("bind", 0);
    return (int)syscall(SYS_bind, fd, address, len);
}

int listen(int fd, int backlog)
{
    return at("listen", syscall(SYS_listen, fd, backlog));
}

int main(int argc, char **argv)
{
    char name[] = "early";
    const struct smfiDesc filter = {.xxfi_name = name, .xxfi_version = SMFI_VERSION};
    if (argc != 3)
        return 2;
    moment = argv[2];
    if (smfi_setconn(argv[1]))
        return 2;
    if (smfi_opensocket(true) != MI_FAILURE) /* nobody has said what serves there */
        return 3;
    if (smfi_register(filter))
        return 2;
    printf("main %d\n", smfi_main());
    return 0;
}
