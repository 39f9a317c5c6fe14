/* The `milter` module: its functions, which work on one default server, its constants and types.
 * The compatible API of the C module that filters have used so far. */
#include "extension.h"

/* The libmilter API version that is implemented (sheet 5.1): 1.0.1. */
enum { API_VERSION = 0x01000001 };

static const struct {
    const char *name;
    long value;
} constants[] = {
    {"SUCCESS", 0},
    {"FAILURE", -1},
    {"VERSION", API_VERSION},
    /* actions */
    {"ADDHDRS", MKIT_ADDHDRS},
    {"CHGBODY", MKIT_CHGBODY},
    {"MODBODY", MKIT_CHGBODY},
    {"ADDRCPT", MKIT_ADDRCPT},
    {"DELRCPT", MKIT_DELRCPT},
    {"CHGHDRS", MKIT_CHGHDRS},
    {"QUARANTINE", MKIT_QUARANTINE},
    {"CHGFROM", MKIT_CHGFROM},
    {"ADDRCPT_PAR", MKIT_ADDRCPT_PAR},
    {"SETSYMLIST", MKIT_SETSYMLIST},
    {"V1_ACTS", MKIT_V1_ACTIONS},
    {"V2_ACTS", MKIT_V2_ACTIONS},
    {"CURR_ACTS", MKIT_ALL_ACTIONS},
    /* stages of macro lists */
    {"M_CONNECT", MKIT_STAGE_CONNECT},
    {"M_HELO", MKIT_STAGE_HELO},
    {"M_ENVFROM", MKIT_STAGE_MAIL},
    {"M_ENVRCPT", MKIT_STAGE_RCPT},
    {"M_DATA", MKIT_STAGE_DATA},
    {"M_EOM", MKIT_STAGE_EOM},
    {"M_EOH", MKIT_STAGE_EOH},
    /* protocol options */
    {"P_RCPT_REJ", MKIT_RCPT_REJ},
    {"P_NR_CONN", MKIT_NR_CONN},
    {"P_NR_HELO", MKIT_NR_HELO},
    {"P_NR_MAIL", MKIT_NR_MAIL},
    {"P_NR_RCPT", MKIT_NR_RCPT},
    {"P_NR_DATA", MKIT_NR_DATA},
    {"P_NR_UNKN", MKIT_NR_UNKN},
    {"P_NR_EOH", MKIT_NR_EOH},
    {"P_NR_BODY", MKIT_NR_BODY},
    {"P_NR_HDR", MKIT_NR_HDR},
    {"P_NOCONNECT", MKIT_NOCONNECT},
    {"P_NOHELO", MKIT_NOHELO},
    {"P_NOMAIL", MKIT_NOMAIL},
    {"P_NORCPT", MKIT_NORCPT},
    {"P_NODATA", MKIT_NODATA},
    {"P_NOUNKNOWN", MKIT_NOUNKNOWN},
    {"P_NOEOH", MKIT_NOEOH},
    {"P_NOBODY", MKIT_NOBODY},
    {"P_NOHDRS", MKIT_NOHDRS},
    {"P_HDR_LEADSPC", MKIT_HDR_LEADSPC},
    {"P_SKIP", MKIT_SKIPPING},
    /* verdicts */
    {"CONTINUE", MKIT_CONTINUE},
    {"REJECT", MKIT_REJECT},
    {"DISCARD", MKIT_DISCARD},
    {"ACCEPT", MKIT_ACCEPT},
    {"TEMPFAIL", MKIT_TEMPFAIL},
    {"SKIP", MKIT_SKIP},
    {"NOREPLY", MKIT_NOREPLY},
    {"ALL_OPTS", MKIT_ALL_OPTS},
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static PyObject *milter_error(const struct module_state *state, const char *text)
{
    PyErr_SetString(state->error, text);
    return NULL;
}

/* ---------------------------------------------------------------------------------- callbacks */

/* Replaces a callback. Returns the one before, or None. */
static PyObject *set_callback(PyObject *module, enum mkit_step step, PyObject *callback)
{
    PyObject **at = &state_of(module)->callbacks[step];
    if (callback != Py_None && !PyCallable_Check(callback)) {
        PyErr_SetString(PyExc_TypeError, "callback parameter must be callable");
        return NULL;
    }
    PyObject *before = *at ? *at : Py_NewRef(Py_None);
    *at = callback == Py_None ? NULL : Py_NewRef(callback);
    return before;
}

#define SETTER(name, step, signature)                                                              \
    PyDoc_STRVAR(set_##name##_doc,                                                                 \
                 "set_" #name "_callback(callback, /)\n--\n\n"                                     \
                 "Set the function for this step, called as " signature ", or None for none.\n\n"  \
                 "Takes effect when main() starts. Returns the one set before, or None.\n"         \
                 "Raises TypeError if it is not callable.");                                       \
    static PyObject *set_##name(PyObject *module, PyObject *callback)                              \
    {                                                                                              \
        return set_callback(module, step, callback);                                               \
    }

SETTER(connect, MKIT_CONNECT, "callback(ctx, hostname: str, family: int, hostaddr)")
SETTER(helo, MKIT_HELO, "callback(ctx, name: str)")
SETTER(envfrom, MKIT_MAIL, "callback(ctx, address: bytes, *params: bytes)")
SETTER(envrcpt, MKIT_RCPT, "callback(ctx, address: bytes, *params: bytes)")
SETTER(header, MKIT_HEADER, "callback(ctx, name: str, value: bytes)")
SETTER(eoh, MKIT_EOH, "callback(ctx)")
SETTER(body, MKIT_BODY, "callback(ctx, chunk: bytes)")
SETTER(eom, MKIT_EOM, "callback(ctx)")
SETTER(abort, MKIT_ABORT, "callback(ctx)")
SETTER(close, MKIT_CLOSE, "callback(ctx)")

PyDoc_STRVAR(
    register_doc,
    "register(name, unknown=..., data=..., negotiate=...)\n--\n\n"
    "Set the filter's name and its newer callbacks: unknown(ctx, cmd: str), data(ctx) and\n"
    "negotiate(ctx, opts: list[int]). One that is given as None is removed, one that is not given\n"
    "stays. Takes effect when main() starts. Raises TypeError.");

static PyObject *register_filter(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "unknown", "data", "negotiate", NULL};
    static const enum mkit_step steps[] = {MKIT_UNKNOWN, MKIT_DATA, MKIT_NEGOTIATE};
    struct module_state *state = state_of(module);
    PyObject *name;
    PyObject *given[3] = {NULL, NULL, NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U|OOO", names, &name, &given[0], &given[1],
                                     &given[2]))
        return NULL;
    if (!PyUnicode_AsUTF8(name))
        return NULL;
    for (int i = 0; i < 3; i++)
        if (given[i] && given[i] != Py_None && !PyCallable_Check(given[i]))
            return PyErr_Format(PyExc_TypeError, "%s parameter must be callable", names[i + 1]);
    Py_XSETREF(state->name, Py_NewRef(name));
    for (int i = 0; i < 3; i++) {
        PyObject *before = given[i] ? set_callback(module, steps[i], given[i]) : NULL;
        Py_XDECREF(before);
    }
    Py_RETURN_NONE;
}

/* ----------------------------------------------------------------------------------- settings */

PyDoc_STRVAR(
    set_flags_doc,
    "set_flags(flags, /)\n--\n\n"
    "Set the actions that the filter may use (ADDHDRS | ...). The default is CURR_ACTS: all.\n"
    "Actions that an MTA does not offer fail when they are used.");

static PyObject *set_flags(PyObject *module, PyObject *flags)
{
    unsigned long value = PyLong_AsUnsignedLongMask(flags);
    if (value == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    state_of(module)->flags = (uint32_t)value & MKIT_ALL_ACTIONS;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(set_exception_policy_doc, "set_exception_policy(code, /)\n--\n\n"
                                       "Set how a step is answered whose callback raised: TEMPFAIL "
                                       "(the default), REJECT, CONTINUE or\n"
                                       "ACCEPT. Raises milter.error for anything else.");

static PyObject *set_exception_policy(PyObject *module, PyObject *code)
{
    struct module_state *state = state_of(module);
    int overflow;
    long value = PyLong_AsLongAndOverflow(code, &overflow);
    if (value == -1 && PyErr_Occurred())
        return NULL;
    if (overflow || (value != MKIT_TEMPFAIL && value != MKIT_REJECT && value != MKIT_CONTINUE &&
                     value != MKIT_ACCEPT))
        return milter_error(state, "invalid exception policy: it must be TEMPFAIL, REJECT, "
                                   "CONTINUE or ACCEPT");
    state->policy = (int)value;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(setconn_doc,
             "setconn(spec, /)\n--\n\n"
             "Set the socket to listen on: unix:PATH, local:PATH, PATH, inet:PORT[@HOST], "
             "inet6:PORT[@HOST],\n"
             "fd:N. Raises milter.error if it cannot be understood. Protocol sheet 5.2.");

static PyObject *setconn(PyObject *module, PyObject *spec)
{
    struct module_state *state = state_of(module);
    const char *why = "it has a NUL in it";
    if (!PyUnicode_Check(spec))
        return PyErr_Format(PyExc_TypeError, "setconn() argument must be str, not %.100s",
                            Py_TYPE(spec)->tp_name);
    PyObject *holder;
    const char *text = text_argument(state, spec, "setconn", "the specification", &holder);
    if (!text)
        return NULL;
    int error;
    Py_BEGIN_ALLOW_THREADS error = mkit_check_spec(text, &why);
    Py_END_ALLOW_THREADS Py_DECREF(holder);
    if (error)
        return PyErr_Format(state->error, "cannot set connection: \"%U\": %s", spec, why);
    Py_XSETREF(state->connection, Py_NewRef(spec));
    Py_RETURN_NONE;
}

/* An int argument of at least `least`. */
static bool take_number(PyObject *object, long least, int *value)
{
    int overflow;
    long given = PyLong_AsLongAndOverflow(object, &overflow);
    if (given == -1 && PyErr_Occurred())
        return false;
    *value = (int)given;
    return !overflow && given >= least && given <= INT32_MAX;
}

/* What a bad number leads to: the exception that is set, or milter.error. */
static PyObject *bad_number(const struct module_state *state, const char *text)
{
    return PyErr_Occurred() ? NULL : milter_error(state, text);
}

PyDoc_STRVAR(settimeout_doc, "settimeout(seconds, /)\n--\n\n"
                             "Set how long an MTA may be silent, in seconds; 0 for the default of "
                             "7210. Raises milter.error.");

static PyObject *settimeout(PyObject *module, PyObject *seconds)
{
    int value;
    if (!take_number(seconds, 0, &value))
        return bad_number(state_of(module), "cannot set timeout: it must be 0 or more seconds");
    state_of(module)->timeout = (unsigned)value;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(setbacklog_doc,
             "setbacklog(n, /)\n--\n\n"
             "Set how many connections may wait to be accepted, at least 1. Raises milter.error.");

static PyObject *setbacklog(PyObject *module, PyObject *n)
{
    int value;
    if (!take_number(n, 1, &value))
        return bad_number(state_of(module), "cannot set backlog: it must be 1 or more");
    state_of(module)->backlog = value;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(setdbg_doc, "setdbg(level, /)\n--\n\n"
                         "With a level above 0 the logger \"Milter\" lets debug lines through; 0 "
                         "leaves its level to the\n"
                         "program. Raises milter.error for a negative one.");

static PyObject *setdbg(PyObject *module, PyObject *level)
{
    struct module_state *state = state_of(module);
    int value;
    if (!take_number(level, 0, &value))
        return bad_number(state, "cannot set debug level: it must be 0 or more");
    return PyObject_CallMethod(state->logger, "setLevel", "i", value > 0 ? 10 : 0);
}

PyDoc_STRVAR(
    settings_doc,
    "_settings()\n--\n\n"
    "Return (flags, exception policy, timeout, backlog) as the functions above have set them.");

static PyObject *settings(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    const struct module_state *state = state_of(module);
    return Py_BuildValue("(kiIi)", (unsigned long)state->flags, state->policy, state->timeout,
                         state->backlog);
}

PyDoc_STRVAR(
    callbacks_doc,
    "_callbacks()\n--\n\n"
    "Return the functions that are set now, in the order of the engine's steps; None where\n"
    "there is none.");

static PyObject *callbacks(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    PyObject *const *at = state_of(module)->callbacks;
    PyObject *list = PyList_New(MKIT_STEPS);
    for (int step = 0; list && step < MKIT_STEPS; step++)
        PyList_SET_ITEM(list, step, Py_NewRef(at[step] ? at[step] : Py_None));
    return list;
}

/* ------------------------------------------------------------------------------------ serving */

/* Puts the reason that is set behind the words that programs know. */
static PyObject *fail_as(const struct module_state *state, const char *words)
{
    PyObject *raised = take_exception();
    PyErr_Format(state->error, "%s: %S", words, raised);
    Py_XDECREF(raised);
    return NULL;
}

static int open_default(struct module_state *state, bool remove_stale)
{
    if (state->server)
        return 0;
    if (!state->connection) {
        PyErr_SetString(state->error, "call setconn first");
        return -1;
    }
    struct server_object *server = server_of_module(state);
    if (!server)
        return -1;
    if (server_listen(server, state->connection, state->backlog, remove_stale) < 0) {
        Py_DECREF(server);
        return -1;
    }
    state->server = server;
    Py_XSETREF(state->opened_at, Py_NewRef(state->connection));
    return 0;
}

PyDoc_STRVAR(
    opensocket_doc,
    "opensocket(rmsock, /)\n--\n\n"
    "Bind and listen now; the umask of this moment decides a unix socket's mode. With rmsock a\n"
    "socket file that nobody answers on is removed first. Does nothing if the socket is open.\n"
    "Raises milter.error.");

static PyObject *opensocket(PyObject *module, PyObject *rmsock)
{
    struct module_state *state = state_of(module);
    long remove_stale = PyLong_AsLong(rmsock);
    if (remove_stale == -1 && PyErr_Occurred())
        return NULL;
    if (open_default(state, remove_stale) < 0)
        return fail_as(state, "cannot opensocket");
    Py_RETURN_NONE;
}

/* Runs the server that is in the state, and drops it. */
static PyObject *run_default(struct module_state *state,
                             int (*open)(struct server_object *, PyObject *), PyObject *arg)
{
    struct server_object *server = state->server;
    if (state->stopped)
        mkit_server_stop(server->server);
    state->stopped = false;
    state->in_main = true;
    PyObject *result = server_run(server, open, arg);
    state->in_main = false;
    state->server = NULL;
    Py_CLEAR(state->opened_at);
    Py_DECREF(server);
    return result;
}

/* Opens the socket of the module's own server, if opensocket has not. */
static int open_for_main(struct server_object *server, PyObject *Py_UNUSED(arg))
{
    const struct module_state *state = server->state;
    if (state->opened_at || server_listen(server, state->connection, state->backlog, false) == 0)
        return 0;
    (void)fail_as(state, "cannot run main");
    return -1;
}

PyDoc_STRVAR(
    main_doc,
    "main()\n--\n\n"
    "Serve until stop() or a signal. Opens the socket if opensocket has not. The interpreter is\n"
    "free for other threads meanwhile. May be called again after it has returned.\n"
    "Raises milter.error if it runs already, or cannot start.");

static PyObject *main_function(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    struct module_state *state = state_of(module);
    if (state->in_main)
        return milter_error(state, "milter module in use: main() runs already");
    if (!state->server && !state->connection)
        return milter_error(state, "cannot run main: call setconn first");
    if (!state->server && !(state->server = server_of_module(state)))
        return NULL;
    return run_default(state, open_for_main, NULL);
}

/* Lets a server have the socket that opensocket has opened. */
static int take_over(struct module_state *state, struct server_object *server, PyObject *spec)
{
    PyObject *holders[2] = {NULL, NULL};
    const char *open = text_argument(state, state->opened_at, "opensocket", "socket", &holders[0]);
    const char *wanted =
        open ? text_argument(state, spec, "runmilter", "socket", &holders[1]) : NULL;
    bool same = false;
    if (wanted) {
        Py_BEGIN_ALLOW_THREADS same = mkit_same_spec(open, wanted);
        Py_END_ALLOW_THREADS if (!same)
            PyErr_Format(state->error,
                         "opensocket has opened %U, but runmilter is to serve %U: give setconn the "
                         "same socket, or leave opensocket out",
                         state->opened_at, spec);
    }
    Py_XDECREF(holders[1]);
    Py_XDECREF(holders[0]);
    if (!same)
        return -1;
    if (mkit_server_hand_over(state->server->server, server->server) == 0)
        return 0;
    PyErr_SetString(state->error, mkit_server_why(state->server->server));
    return -1;
}

PyDoc_STRVAR(
    run_as_main_doc,
    "_run_as_main(server, opener, spec, /)\n--\n\n"
    "Run a _Server as main() runs its own, so that stop() ends it; see _Server.run. A socket\n"
    "that opensocket has opened at spec is the server's then. Raises milter.error.");

static PyObject *run_as_main(PyObject *module, PyObject *args)
{
    struct module_state *state = state_of(module);
    PyObject *server;
    PyObject *opener;
    PyObject *spec;
    if (!PyArg_ParseTuple(args, "O!OU", state->server_type, &server, &opener, &spec))
        return NULL;
    if (state->in_main)
        return milter_error(state, "milter module in use: main() runs already");
    if (state->server && take_over(state, (struct server_object *)server, spec) < 0)
        return NULL;
    Py_XSETREF(state->server, (struct server_object *)Py_NewRef(server));
    return run_default(state, server_call_opener, opener);
}

PyDoc_STRVAR(
    stop_doc,
    "stop()\n--\n\n"
    "Let main() or runmilter() end gracefully: no new connections, open messages finish. From any\n"
    "thread or callback; returns at once. While neither runs, the next one ends as soon as it "
    "begins.");

static PyObject *stop(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    struct module_state *state = state_of(module);
    if (state->server) {
        if (server_check_process(state->server) < 0)
            return NULL;
        mkit_server_stop(state->server->server);
    } else {
        state->stopped = true;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(getdiag_doc,
             "getdiag()\n--\n\nReturn (contexts made, contexts freed) since the import.");

static PyObject *getdiag(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    const struct module_state *state = state_of(module);
    return Py_BuildValue("(nn)", state->contexts_made, state->contexts_freed);
}

PyDoc_STRVAR(getversion_doc,
             "getversion()\n--\n\n"
             "Return the version of libmilter's API that this module implements: (1, 0, 1).");

static PyObject *getversion(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(iii)", API_VERSION >> 24, API_VERSION >> 8 & 0xffff, API_VERSION & 0x7f);
}

PyDoc_STRVAR(at_exit_doc, "_at_exit()\n--\n\nEnd all servers: called when the interpreter ends.");

static PyObject *at_exit(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    servers_end(state_of(module));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(after_fork_doc,
             "_after_fork()\n--\n\nPart with the parent's servers: called in a child.");

static PyObject *after_fork(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    servers_after_fork(state_of(module));
    Py_RETURN_NONE;
}

#define CALLBACK_METHOD(name)                                                                      \
    {                                                                                              \
        "set_" #name "_callback", set_##name, METH_O, set_##name##_doc                             \
    }

static PyMethodDef functions[] = {
    {"set_flags", set_flags, METH_O, set_flags_doc},
    CALLBACK_METHOD(connect),
    CALLBACK_METHOD(helo),
    CALLBACK_METHOD(envfrom),
    CALLBACK_METHOD(envrcpt),
    CALLBACK_METHOD(header),
    CALLBACK_METHOD(eoh),
    CALLBACK_METHOD(body),
    CALLBACK_METHOD(eom),
    CALLBACK_METHOD(abort),
    CALLBACK_METHOD(close),
    {"set_exception_policy", set_exception_policy, METH_O, set_exception_policy_doc},
    {"register", (PyCFunction)(void (*)(void))register_filter, METH_VARARGS | METH_KEYWORDS,
     register_doc},
    {"setconn", setconn, METH_O, setconn_doc},
    {"settimeout", settimeout, METH_O, settimeout_doc},
    {"setbacklog", setbacklog, METH_O, setbacklog_doc},
    {"setdbg", setdbg, METH_O, setdbg_doc},
    {"opensocket", opensocket, METH_O, opensocket_doc},
    {"main", main_function, METH_NOARGS, main_doc},
    {"stop", stop, METH_NOARGS, stop_doc},
    {"getdiag", getdiag, METH_NOARGS, getdiag_doc},
    {"getversion", getversion, METH_NOARGS, getversion_doc},
    {"_settings", settings, METH_NOARGS, settings_doc},
    {"_callbacks", callbacks, METH_NOARGS, callbacks_doc},
    {"_run_as_main", run_as_main, METH_VARARGS, run_as_main_doc},
    {"_at_exit", at_exit, METH_NOARGS, at_exit_doc},
    {"_after_fork", after_fork, METH_NOARGS, after_fork_doc},
    {NULL, NULL, 0, NULL},
};

/* --------------------------------------------------------------------------------- the module */

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type ? PyModule_AddType(module, *type) : -1;
}

static int intern_names(struct module_state *state)
{
    static const char *const methods[WATCHED] = {
        [MKIT_CONNECT] = "connect",
        [MKIT_HELO] = "hello",
        [MKIT_MAIL] = "envfrom",
        [MKIT_RCPT] = "envrcpt",
        [MKIT_DATA] = "data",
        [MKIT_HEADER] = "header",
        [MKIT_EOH] = "eoh",
        [MKIT_BODY] = "body",
        [MKIT_EOM] = "eom",
        [MKIT_UNKNOWN] = "unknown",
        [MKIT_ABORT] = "abort",
        [MKIT_CLOSE] = "close",
        [MKIT_NEGOTIATE] = "negotiate",
        [MKIT_STEPS] = "envfrom_bytes",
        [MKIT_STEPS + 1] = "envrcpt_bytes",
        [MKIT_STEPS + 2] = "header_bytes",
    };
    for (int i = 0; i < WATCHED; i++)
        if (!(state->watched[i] = PyUnicode_InternFromString(methods[i])))
            return -1;
    state->setctx_name = PyUnicode_InternFromString("_setctx");
    state->actions_name = PyUnicode_InternFromString("_actions");
    state->protocol_name = PyUnicode_InternFromString("_protocol");
    state->plan_name = PyUnicode_InternFromString("_milterkit_plan");
    return state->setctx_name && state->actions_name && state->protocol_name && state->plan_name
               ? 0
               : -1;
}

static int import_modules(struct module_state *state)
{
    PyObject *logging = PyImport_ImportModule("logging");
    if (logging)
        state->logger = PyObject_CallMethod(logging, "getLogger", "s", "Milter");
    Py_XDECREF(logging);
    state->signal = PyImport_ImportModule("signal");
    state->threading = PyImport_ImportModule("threading");
    return state->logger && state->signal && state->threading ? 0 : -1;
}

/* A thread that served on after the interpreter's end would hang in it. */
static int register_at_exit(PyObject *module)
{
    PyObject *atexit = PyImport_ImportModule("atexit");
    PyObject *function = PyObject_GetAttrString(module, "_at_exit");
    PyObject *done =
        atexit && function ? PyObject_CallMethod(atexit, "register", "O", function) : NULL;
    Py_XDECREF(done);
    Py_XDECREF(function);
    Py_XDECREF(atexit);
    return done ? 0 : -1;
}

static int register_after_fork(PyObject *module)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *method = os ? PyObject_GetAttrString(os, "register_at_fork") : NULL;
    PyObject *function = PyObject_GetAttrString(module, "_after_fork");
    PyObject *args = PyTuple_New(0);
    PyObject *kwargs = function ? Py_BuildValue("{sO}", "after_in_child", function) : NULL;
    PyObject *done = method && args && kwargs ? PyObject_Call(method, args, kwargs) : NULL;
    Py_XDECREF(done);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(function);
    Py_XDECREF(method);
    Py_XDECREF(os);
    return done ? 0 : -1;
}

static int module_exec(PyObject *module)
{
    struct module_state *state = state_of(module);
    state->flags = MKIT_ALL_ACTIONS;
    state->policy = MKIT_TEMPFAIL;
    state->error = PyErr_NewExceptionWithDoc(
        "milter.error", "What the engine, or the MTA's protocol, does not allow.", NULL, NULL);
    if (!state->error || PyModule_AddObjectRef(module, "error", state->error) < 0 ||
        intern_names(state) < 0 || import_modules(state) < 0)
        return -1;
    for (size_t i = 0; i < COUNT(constants); i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
            return -1;
    if (PyModule_AddStringConstant(module, "_version", mkit_version()) < 0 ||
        register_at_exit(module) < 0 || register_after_fork(module) < 0)
        return -1;
    return add_type(module, &context_spec, &state->context_type) < 0 ||
                   add_type(module, &plan_spec, &state->plan_type) < 0 ||
                   add_type(module, &server_spec, &state->server_type) < 0
               ? -1
               : 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = state_of(module);
    Py_VISIT(state->error);
    Py_VISIT(state->context_type);
    Py_VISIT(state->server_type);
    Py_VISIT(state->plan_type);
    Py_VISIT(state->logger);
    Py_VISIT(state->signal);
    Py_VISIT(state->threading);
    Py_VISIT(state->server);
    for (int i = 0; i < MKIT_STEPS; i++)
        Py_VISIT(state->callbacks[i]);
    return 0;
}

static int module_clear(PyObject *module)
{
    struct module_state *state = state_of(module);
    Py_CLEAR(state->error);
    Py_CLEAR(state->context_type);
    Py_CLEAR(state->server_type);
    Py_CLEAR(state->plan_type);
    Py_CLEAR(state->logger);
    Py_CLEAR(state->signal);
    Py_CLEAR(state->threading);
    Py_CLEAR(state->server);
    Py_CLEAR(state->name);
    Py_CLEAR(state->connection);
    Py_CLEAR(state->opened_at);
    Py_CLEAR(state->setctx_name);
    Py_CLEAR(state->actions_name);
    Py_CLEAR(state->protocol_name);
    Py_CLEAR(state->plan_name);
    for (int i = 0; i < WATCHED; i++)
        Py_CLEAR(state->watched[i]);
    for (int i = 0; i < MKIT_STEPS; i++)
        Py_CLEAR(state->callbacks[i]);
    return 0;
}

static void module_free(void *module)
{
    (void)module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

PyDoc_STRVAR(module_doc, "Mail filters for Postfix and Sendmail, low level: functions and one "
                         "server for the process.\n\n"
                         "The package Milter makes objects of it.");

struct PyModuleDef milter_module = {
    PyModuleDef_HEAD_INIT,         .m_name = "milter",
    .m_doc = module_doc,           .m_size = sizeof(struct module_state),
    .m_methods = functions,        .m_slots = module_slots,
    .m_traverse = module_traverse, .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit_milter(void)
{
    return PyModuleDef_Init(&milter_module);
}
