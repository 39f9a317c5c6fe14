/* The types of libmilter's API: does not compile with a header that has others. Prints the layout
 * of struct smfiDesc. */
#include <stddef.h>
#include <stdio.h>

#include <libmilter/mfapi.h>

#define IS(what, ...)                                                                              \
    _Static_assert(__builtin_types_compatible_p(__typeof__(what), __VA_ARGS__), #what)

IS((sfsistat)0, int);
IS((SMFICTX_PTR)0, SMFICTX *);
IS((SMFICTX *)0, struct smfi_str *);
IS((smfiDesc_ptr)0, smfiDesc_str *);
IS((smfiDesc_ptr)0, struct smfiDesc *);
IS((_SOCK_ADDR *)0, struct sockaddr *);
IS(smfi_register, int(struct smfiDesc));
IS(smfi_main, int(void));
IS(smfi_stop, int(void));
IS(smfi_setbacklog, int(int));
IS(smfi_setdbg, int(int));
IS(smfi_settimeout, int(int));
IS(smfi_setconn, int(char *));
IS(smfi_opensocket, int(bool));
IS(smfi_setmaxdatasize, size_t(size_t));
IS(smfi_version, int(unsigned int *, unsigned int *, unsigned int *));
IS(smfi_getsymval, char *(SMFICTX *, char *));
IS(smfi_getpriv, void *(SMFICTX *));
IS(smfi_setpriv, int(SMFICTX *, void *));
IS(smfi_setreply, int(SMFICTX *, char *, char *, char *));
IS(smfi_setmlreply, int(SMFICTX *, const char *, const char *, ...));
IS(smfi_setsymlist, int(SMFICTX *, int, char *));
IS(smfi_progress, int(SMFICTX *));
IS(smfi_addheader, int(SMFICTX *, char *, char *));
IS(smfi_insheader, int(SMFICTX *, int, char *, char *));
IS(smfi_chgheader, int(SMFICTX *, char *, int, char *));
IS(smfi_chgfrom, int(SMFICTX *, char *, char *));
IS(smfi_addrcpt, int(SMFICTX *, char *));
IS(smfi_addrcpt_par, int(SMFICTX *, char *, char *));
IS(smfi_delrcpt, int(SMFICTX *, char *));
IS(smfi_replacebody, int(SMFICTX *, unsigned char *, int));
IS(smfi_quarantine, int(SMFICTX *, char *));

#define MEMBERS(X)                                                                                 \
    X(xxfi_name, char *)                                                                           \
    X(xxfi_version, int)                                                                           \
    X(xxfi_flags, unsigned long)                                                                   \
    X(xxfi_connect, sfsistat (*)(SMFICTX *, char *, struct sockaddr *))                            \
    X(xxfi_helo, sfsistat (*)(SMFICTX *, char *))                                                  \
    X(xxfi_envfrom, sfsistat (*)(SMFICTX *, char **))                                              \
    X(xxfi_envrcpt, sfsistat (*)(SMFICTX *, char **))                                              \
    X(xxfi_header, sfsistat (*)(SMFICTX *, char *, char *))                                        \
    X(xxfi_eoh, sfsistat (*)(SMFICTX *))                                                           \
    X(xxfi_body, sfsistat (*)(SMFICTX *, unsigned char *, size_t))                                 \
    X(xxfi_eom, sfsistat (*)(SMFICTX *))                                                           \
    X(xxfi_abort, sfsistat (*)(SMFICTX *))                                                         \
    X(xxfi_close, sfsistat (*)(SMFICTX *))                                                         \
    X(xxfi_unknown, sfsistat (*)(SMFICTX *, const char *))                                         \
    X(xxfi_data, sfsistat (*)(SMFICTX *))                                                          \
    X(xxfi_negotiate,                                                                              \
      sfsistat (*)(SMFICTX *, unsigned long, unsigned long, unsigned long, unsigned long,          \
                   unsigned long *, unsigned long *, unsigned long *, unsigned long *))

#define CHECK(name, ...) IS(((struct smfiDesc *)0)->name, __VA_ARGS__);
MEMBERS(CHECK)

int main(void)
{
#define SHOW(name, ...) printf("%s %zu\n", #name, offsetof(struct smfiDesc, name));
    MEMBERS(SHOW)
    printf("size %zu\n", sizeof(struct smfiDesc));
    return 0;
}
