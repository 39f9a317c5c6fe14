/* libmilter's control functions: the one filter and the one server of the process. The only place
 * in the project that keeps such things in globals; the API wants it. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "libmilter/smfi.h"

enum {
    DEFAULT_TIMEOUT = 7210,
    DRAIN = 4, /* seconds; libmilter's smfi_main returns within five */
    GRACE = 1,
    MAX_THREADS = 4096 /* libmilter knows no bound; callbacks of such programs often wait */
};

static void log_line(void *data, int level, const struct mkit_session *session, const char *line);

static struct smfiDesc desc;
static struct mkit_filter filter = {
    .degree = MKIT_COMPATIBLE,
    .log = log_line,
};
static char *name; /* of the filter; NULL: nothing is registered */
static char *spec; /* where to listen; NULL: not set */
static int timeout = DEFAULT_TIMEOUT;
static int backlog;
static atomic_int debug;
static atomic_size_t max_data = MILTER_MAX_DATA_SIZE;
static bool is_open;

/* Made once and never freed, so that smfi_stop may use it at any time. */
static _Atomic(struct mkit_server *) server;
static atomic_bool running;
static atomic_bool stopped;   /* before there was a server */
static atomic_bool signalled; /* in this run */

static void log_line(void *data, int level, const struct mkit_session *session, const char *line)
{
    (void)data;
    (void)session;
    if (level <= MKIT_LOG_WARNING || atomic_load(&debug) > 0)
        syslog(level, "%s: %s", name ? name : "libmilter", line);
}

static int fail(const char *why)
{
    log_line(NULL, MKIT_LOG_ERROR, NULL, why);
    return MI_FAILURE;
}

/* Puts a copy of a text in the place of an earlier one. */
static int replace(char **old, const char *text)
{
    char *copy = strdup(text);
    if (!copy)
        return MI_FAILURE;
    free(*old);
    *old = copy;
    return MI_SUCCESS;
}

/* ----------------------------------------------------------------------------------- settings */

static bool is_known_version(int version)
{
    const int no_patch = ~0x7f;
    return (version >= 2 && version <= 4) || (version & no_patch) == (SMFI_VERSION & no_patch);
}

int smfi_register(struct smfiDesc new_desc)
{
    if (atomic_load(&running))
        return fail("smfi_register: smfi_main runs already");
    if (!is_known_version(new_desc.xxfi_version))
        return fail("smfi_register: version mismatch: the program was built for another libmilter");
    if (replace(&name, new_desc.xxfi_name ? new_desc.xxfi_name : "Unknown"))
        return fail("smfi_register: no memory");
    desc = new_desc;
    desc.xxfi_name = name;
    filter.name = name;
    filter.actions = (uint32_t)desc.xxfi_flags;
    mkit_smfi_callbacks(&filter, &desc);
    return MI_SUCCESS;
}

int smfi_setconn(char *text)
{
    return text && *text ? replace(&spec, text) : MI_FAILURE;
}

int smfi_settimeout(int seconds)
{
    timeout = seconds;
    return MI_SUCCESS;
}

int smfi_setbacklog(int connections)
{
    if (connections <= 0)
        return MI_FAILURE;
    backlog = connections;
    return MI_SUCCESS;
}

int smfi_setdbg(int level)
{
    atomic_store(&debug, level);
    return MI_SUCCESS;
}

size_t smfi_setmaxdatasize(size_t bytes)
{
    return atomic_exchange(&max_data, bytes);
}

int smfi_version(unsigned int *major, unsigned int *minor, unsigned int *patch)
{
    if (major)
        *major = SM_LM_VRS_MAJOR(SMFI_VERSION);
    if (minor)
        *minor = SM_LM_VRS_MINOR(SMFI_VERSION);
    if (patch)
        *patch = SM_LM_VRS_PLVL(SMFI_VERSION);
    return MI_SUCCESS;
}

/* ---------------------------------------------------------------------------------------- life */

static struct mkit_server *the_server(void)
{
    struct mkit_server *made = atomic_load(&server);
    if (!made) {
        const struct mkit_server_options options = {
            .drain = DRAIN,
            .grace = GRACE,
            .max_threads = MAX_THREADS,
            .progress = -1, /* its filters say it themselves */
        };
        made = mkit_server_new(&filter, &options);
        atomic_store(&server, made);
    }
    return made;
}

int smfi_opensocket(bool rmsocket)
{
    if (!name || !spec)
        return MI_FAILURE;
    if (is_open)
        return MI_SUCCESS;
    struct mkit_server *to = the_server();
    if (!to)
        return fail("no memory or descriptors for a server");
    const struct mkit_listen_options options = {.backlog = backlog, .remove_stale = rmsocket};
    if (mkit_server_listen(to, spec, &options))
        return fail(mkit_server_why(to));
    is_open = true;
    return MI_SUCCESS;
}

int smfi_stop(void)
{
    struct mkit_server *what = atomic_load(&server);
    if (what)
        mkit_server_stop(what);
    else
        atomic_store(&stopped, true);
    return MI_SUCCESS;
}

/* Whoever sends another signal wants the end sooner. */
static void got_signal(int signal)
{
    if (atomic_exchange(&signalled, true))
        mkit_server_hurry(atomic_load(&server));
    else if (signal == SIGINT)
        mkit_server_abort(atomic_load(&server));
    else
        mkit_server_stop(atomic_load(&server));
}

/* Seconds as the engine knows them: 0 stands for its default there. */
static unsigned engine_seconds(int seconds)
{
    return seconds < 0 ? UINT_MAX : seconds == 0 ? 1 : (unsigned)seconds;
}

static int serve(struct mkit_server *to)
{
    if (smfi_opensocket(false))
        return MI_FAILURE;
    filter.limits.packet = atomic_load(&max_data);
    mkit_server_set_timeout(to, engine_seconds(timeout));
    if (atomic_exchange(&stopped, false))
        mkit_server_stop(to);
    filter.log_level = atomic_load(&debug) > 0 ? MKIT_LOG_DEBUG : MKIT_LOG_INFO;
    const int error = mkit_server_run(to, NULL, NULL);
    is_open = error != 0; /* a stop has closed it */
    return error ? fail(mkit_server_why(to)) : MI_SUCCESS;
}

/* Serves while signals are taken: from before the socket is there, so that none of them leaves it
 * behind. */
static int serve_with_signals(void)
{
    struct mkit_server *to = the_server();
    if (!to)
        return fail("no memory or descriptors for a server");
    const int error = mkit_signals_start(got_signal);
    if (error)
        return fail(strerror(error));
    atomic_store(&signalled, false);
    const int result = serve(to);
    mkit_signals_end();
    return result;
}

int smfi_main(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    if (!spec)
        return fail("smfi_main: where to listen is not set: call smfi_setconn");
    if (!name)
        return fail("smfi_main: there is no filter: call smfi_register");
    if (atomic_exchange(&running, true))
        return fail("smfi_main runs already");
    const int result = serve_with_signals();
    atomic_store(&running, false);
    return result;
}
