/* A filter whose envfrom callback does not return before the program is past smfi_main, which goes
 * on without it; then the callback returns, and the filter is told of that connection's end.
 * Usage: left SOCKET */
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

#include <libmilter/mfapi.h>

static sem_t go, closed;

static sfsistat on_envfrom(SMFICTX *ctx, char **argv)
{
    char name[] = "X", text[] = "y";
    (void)argv;
    puts("envfrom");
    while (sem_wait(&go))
        ;
    puts("envfrom returns");
    (void)smfi_addheader(ctx, name, text);
    return SMFIS_REJECT;
}

static sfsistat on_abort(SMFICTX *ctx)
{
    (void)ctx;
    puts("abort");
    return SMFIS_CONTINUE;
}

static sfsistat on_close(SMFICTX *ctx)
{
    (void)ctx;
    puts("close");
    sem_post(&closed);
    return SMFIS_CONTINUE;
}

int main(int argc, char **argv)
{
    char name[] = "left";
    const struct smfiDesc filter = {
        .xxfi_name = name,
        .xxfi_version = SMFI_VERSION,
        .xxfi_flags = SMFIF_ADDHDRS,
        .xxfi_envfrom = on_envfrom,
        .xxfi_abort = on_abort,
        .xxfi_close = on_close,
    };
    if (argc != 2 || sem_init(&go, 0, 0) || sem_init(&closed, 0, 0))
        return 2;
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    if (smfi_setconn(argv[1]) || smfi_register(filter) || smfi_opensocket(true))
        return 2;
    puts("open");
    printf("main %d\n", smfi_main());
    sem_post(&go);
    while (sem_wait(&closed))
        ;
    return 0;
}
