/* Runs smfi_main again after a stop, and after a stop that came before it. Usage: again SOCKET */
#include <stdio.h>

#include <libmilter/mfapi.h>

static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address)
{
    (void)ctx;
    (void)address;
    printf("connect %s\n", host);
    return smfi_stop() == MI_SUCCESS ? SMFIS_ACCEPT : SMFIS_TEMPFAIL;
}

int main(int argc, char **argv)
{
    char name[] = "again";
    const struct smfiDesc filter = {
        .xxfi_name = name, .xxfi_version = SMFI_VERSION, .xxfi_connect = on_connect};
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 2 || smfi_setconn(argv[1]) || smfi_register(filter))
        return 2;
    printf("stop %d\n", smfi_stop());
    printf("main %d\n", smfi_main());
    for (int i = 0; i < 2; i++) {
        printf("open %d\n", smfi_opensocket(false));
        printf("main %d\n", smfi_main());
    }
    return 0;
}
