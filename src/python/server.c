/* milter._Server: one server of the engine, and what it takes to run it from Python. */
#include "extension.h"

#include <time.h>
#include <unistd.h>

/* -------------------------------------------------------------------------------------- life */

static void hooks(struct mkit_filter *filter, void *data)
{
    filter->data = data;
    filter->degree = MKIT_STRICT;
    filter->thread_start = attach_thread_start;
    filter->thread_end = attach_thread_end;
    filter->enter_batch = attach_enter;
    filter->leave_batch = attach_leave;
    filter->log = attach_log;
    filter->where = attach_where;
    filter->expired = dispatch_expired;
}

/* The engine's name for an exception policy. */
static enum mkit_on_failure on_failure(int policy)
{
    return policy == MKIT_REJECT     ? MKIT_FAIL_REJECT
           : policy == MKIT_ACCEPT   ? MKIT_FAIL_ACCEPT
           : policy == MKIT_CONTINUE ? MKIT_FAIL_CONTINUE
                                     : MKIT_FAIL_TEMPFAIL;
}

/* Which steps the engine asks for: all of them for objects, those with a callback for functions. */
static void set_steps(struct server_object *self)
{
    for (int step = 0; step < MKIT_STEPS; step++)
        self->filter.on[step] = self->factory || self->callbacks[step] ? dispatch : NULL;
    self->filter.on[MKIT_CLOSE] = dispatch;     /* frees the context */
    self->filter.on[MKIT_NEGOTIATE] = dispatch; /* without a callback: asks for SKIP as well */
}

static struct server_object *server_make(struct module_state *state, PyObject *name)
{
    struct server_object *self = PyObject_GC_New(struct server_object, state->server_type);
    if (!self)
        return NULL;
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->state = state;
    self->interpreter = PyInterpreterState_Get();
    self->name = Py_NewRef(name);
    PyObject_GC_Track(self);
    hooks(&self->filter, self);
    self->filter.name = PyUnicode_AsUTF8(name);
    if (!self->filter.name)
        Py_CLEAR(self);
    return self;
}

static int make_engine(struct server_object *self, const struct mkit_server_options *options)
{
    self->server = mkit_server_new(&self->filter, options);
    if (self->server)
        return 0;
    (void)PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* What a filter is called that no name was registered for: as its program's file. NULL with an
 * exception. */
static PyObject *program_name(void)
{
    PyObject *argv = PySys_GetObject("argv");
    PyObject *path = argv && PyList_Check(argv) ? PyList_GetItem(argv, 0) : NULL;
    const char *text = path && PyUnicode_Check(path) ? PyUnicode_AsUTF8(path) : NULL;
    PyErr_Clear();
    const char *slash = text ? strrchr(text, '/') : NULL;
    const char *name = slash ? slash + 1 : text;
    const char *dot = name ? strrchr(name, '.') : NULL;
    size_t len = dot && dot != name ? (size_t)(dot - name) : name ? strlen(name) : 0;
    return len ? PyUnicode_DecodeUTF8(name, (Py_ssize_t)len, "replace")
               : PyUnicode_FromString("milter");
}

struct server_object *server_of_module(struct module_state *state)
{
    PyObject *name = state->name ? Py_NewRef(state->name) : program_name();
    struct server_object *self = name ? server_make(state, name) : NULL;
    Py_XDECREF(name);
    const struct mkit_server_options options = {.timeout = state->timeout};
    if (!self)
        return NULL;
    self->uses_module = true;
    if (make_engine(self, &options) < 0)
        Py_CLEAR(self);
    return self;
}

static int server_traverse(struct server_object *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->factory);
    Py_VISIT(self->planner);
    Py_VISIT(self->logger);
    for (int i = 0; i < MKIT_STEPS; i++)
        Py_VISIT(self->callbacks[i]);
    return 0;
}

static int server_clear(struct server_object *self)
{
    Py_CLEAR(self->factory);
    Py_CLEAR(self->planner);
    Py_CLEAR(self->logger);
    for (int i = 0; i < MKIT_STEPS; i++)
        Py_CLEAR(self->callbacks[i]);
    return 0;
}

static void server_dealloc(struct server_object *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (!self->process) /* else it is a copy in a child, whose threads do not exist */
        mkit_server_free(self->server);
    (void)server_clear(self);
    Py_XDECREF(self->name);
    Py_XDECREF(self->raised);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(
    server_doc,
    "_Server(factory, planner, name, actions, policy, timeout, drain, max_connections, "
    "max_threads,\n"
    "progress, grace, deadline, poller, logger, log_messages, limits)\n--\n\nOne server of the "
    "engine; Milter.Server is its public face.");

static PyObject *server_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {
        "factory", "planner",         "name",         "actions",  "policy", "timeout",
        "drain",   "max_connections", "max_threads",  "progress", "grace",  "deadline",
        "poller",  "logger",          "log_messages", "limits",   NULL};
    PyObject *factory;
    PyObject *planner;
    PyObject *name;
    unsigned long actions;
    int policy;
    unsigned timeout;
    int drain;
    unsigned max_connections;
    unsigned max_threads;
    int progress;
    int grace;
    int deadline;
    int poller = MKIT_POLLER_BEST;
    PyObject *logger = Py_None;
    int tells = 0;
    Py_ssize_t packet = 0, macros = 0, recipients = 0, header_bytes = 0, output = 0;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "OOUkiIiIIiii|iOp(nnnnn)", names, &factory, &planner, &name, &actions,
            &policy, &timeout, &drain, &max_connections, &max_threads, &progress, &grace, &deadline,
            &poller, &logger, &tells, &packet, &macros, &recipients, &header_bytes, &output))
        return NULL;
    struct module_state *state = PyType_GetModuleState(type);
    struct server_object *self = server_make(state, name);
    if (!self)
        return NULL;
    self->factory = Py_NewRef(factory);
    self->planner = Py_NewRef(planner);
    self->logger = logger == Py_None ? NULL : Py_NewRef(logger);
    self->tells = tells;
    self->filter.actions = (uint32_t)actions;
    self->filter.on_failure = on_failure(policy);
    self->filter.limits = (struct mkit_limits){
        .packet = (size_t)packet,
        .macros = (size_t)macros,
        .recipients = (size_t)recipients,
        .header_bytes = (size_t)header_bytes,
        .output = (size_t)output,
    };
    const struct mkit_server_options options = {
        .timeout = timeout,
        .drain = drain,
        .max_connections = max_connections,
        .max_threads = max_threads,
        .progress = progress,
        .grace = grace,
        .deadline = deadline,
        .poller = (enum mkit_poller)poller,
        .adopts = true, /* Milter.Server listens before it serves, where it has a socket */
    };
    if (make_engine(self, &options) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

/* ----------------------------------------------------------------------------------- sockets */

int server_check_process(const struct server_object *self)
{
    if (!self->process || self->process == getpid())
        return 0;
    PyErr_Format(self->state->error,
                 "this server runs in process %d: a fork of it cannot use it, make another one",
                 (int)self->process);
    return -1;
}

static int listen_with(struct server_object *self, PyObject *connection,
                       const struct mkit_listen_options *options)
{
    PyObject *holder;
    const char *spec =
        text_argument(self->state, connection, "socket", "the specification", &holder);
    if (!spec)
        return -1;
    int error;
    Py_BEGIN_ALLOW_THREADS error = mkit_server_listen(self->server, spec, options);
    Py_END_ALLOW_THREADS Py_DECREF(holder);
    if (error)
        PyErr_SetString(self->state->error, mkit_server_why(self->server));
    return error ? -1 : 0;
}

int server_listen(struct server_object *self, PyObject *connection, int backlog, bool remove_stale)
{
    const struct mkit_listen_options options = {.backlog = backlog, .remove_stale = remove_stale};
    return listen_with(self, connection, &options);
}

/* A user's or a group's number from an int; None leaves it as it is, which is what the largest
 * number means to the system. -1 with milter.error for what is not one. */
static int read_id(const struct server_object *self, const char *what, PyObject *object,
                   uint32_t *id)
{
    *id = UINT32_MAX;
    if (object == Py_None)
        return 0;
    int overflow;
    const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (value == -1 && !overflow && PyErr_Occurred())
        return -1;
    if (overflow || value < 0 || value >= UINT32_MAX) {
        PyErr_Format(self->state->error, "%s: %S is not from 0 to 4294967294", what, object);
        return -1;
    }
    *id = (uint32_t)value;
    return 0;
}

PyDoc_STRVAR(listen_doc,
             "listen($self, spec, backlog, remove_stale, replace, mode, uid, gid, /)\n--\n\n"
             "Bind and listen. mode, uid, gid: None leaves them. Raises milter.error.");

static PyObject *listen_method(struct server_object *self, PyObject *args)
{
    PyObject *spec;
    int backlog;
    int remove_stale;
    int replace;
    PyObject *mode;
    PyObject *uid;
    PyObject *gid;
    uint32_t user;
    uint32_t group;
    if (!PyArg_ParseTuple(args, "OippOOO", &spec, &backlog, &remove_stale, &replace, &mode, &uid,
                          &gid) ||
        read_id(self, "owner", uid, &user) < 0 || read_id(self, "group", gid, &group) < 0 ||
        server_check_process(self) < 0)
        return NULL;
    struct mkit_listen_options options = {
        .backlog = backlog,
        .remove_stale = remove_stale,
        .replace = replace,
        .set_mode = mode != Py_None,
        .set_owner = uid != Py_None || gid != Py_None,
        .uid = (uid_t)user,
        .gid = (gid_t)group,
    };
    if (mode != Py_None)
        options.mode = (mode_t)PyLong_AsUnsignedLong(mode);
    if (PyErr_Occurred() || listen_with(self, spec, &options) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    adopt_doc,
    "adopt($self, fd, /)\n--\n\n"
    "Serve one connected descriptor, which the server owns from now on. Raises milter.error.");

static PyObject *adopt(struct server_object *self, PyObject *object)
{
    int fd = PyObject_AsFileDescriptor(object);
    if (fd < 0 || server_check_process(self) < 0)
        return NULL;
    int error;
    Py_BEGIN_ALLOW_THREADS error = mkit_server_adopt(self->server, fd);
    Py_END_ALLOW_THREADS if (error)
    {
        PyErr_SetString(self->state->error, mkit_server_why(self->server));
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    address_doc,
    "address($self, index, /)\n--\n\n"
    "Return the specification of a listening socket, with its real port; None if there is none.");

static PyObject *address(struct server_object *self, PyObject *object)
{
    char text[200];
    size_t index = PyLong_AsSize_t(object);
    if ((index == (size_t)-1 && PyErr_Occurred()) || server_check_process(self) < 0)
        return NULL;
    int error;
    Py_BEGIN_ALLOW_THREADS error = mkit_server_address(self->server, index, text, sizeof text);
    Py_END_ALLOW_THREADS if (error) Py_RETURN_NONE;
    return text_decode(text, strlen(text));
}

/* The handlers that signals.c sets. */

PyDoc_STRVAR(stop_signal_doc,
             "_stop_signal($self, signum, frame, /)\n--\n\nA handler: graceful stop.");
PyDoc_STRVAR(abort_signal_doc, "_abort_signal($self, signum, frame, /)\n--\n\nA handler: abort.");

/* The first signal asks for an end; whoever sends another one wants it sooner. */
static PyObject *signalled(struct server_object *self, void (*first)(struct mkit_server *))
{
    (self->signalled ? mkit_server_hurry : first)(self->server);
    self->signalled = true;
    Py_RETURN_NONE;
}

static PyObject *stop_signal(struct server_object *self, PyObject *Py_UNUSED(args))
{
    return signalled(self, mkit_server_stop);
}

static PyObject *abort_signal(struct server_object *self, PyObject *Py_UNUSED(args))
{
    return signalled(self, mkit_server_abort);
}

/* --------------------------------------------------------------------------------- run, stop */

static void copy_module(struct server_object *self)
{
    const struct module_state *state = self->state;
    for (int step = 0; step < MKIT_STEPS; step++)
        Py_XSETREF(self->callbacks[step], Py_XNewRef(state->callbacks[step]));
    self->filter.actions = state->flags;
    self->filter.on_failure = on_failure(state->policy);
}

/* Notes in the module which servers run, for the end of the interpreter. */
static void set_running(struct server_object *self, bool running)
{
    struct server_object **at = &self->state->running;
    if (running) {
        self->next_running = *at;
        *at = self;
        return;
    }
    while (*at != self)
        at = &(*at)->next_running;
    *at = self->next_running;
}

/* Does something to each server that this process runs. Returns whether there is one. */
static bool each_running(const struct module_state *state, void (*what)(struct mkit_server *))
{
    bool any = false;
    for (const struct server_object *server = state->running; server;
         server = server->next_running) {
        if (server->process != getpid())
            continue;
        any = true;
        if (what)
            what(server->server);
    }
    return any;
}

void servers_end(struct module_state *state)
{
    state->ended = true;
    bool any = each_running(state, mkit_server_abort);
    /* Their threads need the interpreter to finish their callbacks. Signals are taken: what a
     * handler raises, Ctrl-C for one, ends the wait for callbacks that do not return. */
    while (any) {
        const struct timespec while_they_end = {.tv_nsec = 1000000};
        Py_BEGIN_ALLOW_THREADS(void) nanosleep(&while_they_end, NULL);
        Py_END_ALLOW_THREADS const bool raised = PyErr_CheckSignals() < 0;
        if (raised)
            PyErr_WriteUnraisable(NULL);
        any = each_running(state, raised ? mkit_server_hurry : NULL);
    }
}

PyObject *server_run(struct server_object *self, int (*open)(struct server_object *, PyObject *),
                     PyObject *arg)
{
    if (self->process) {
        if (server_check_process(self) == 0)
            PyErr_SetString(self->state->error, "the server runs already");
        return NULL;
    }
    if (self->state->ended) {
        PyErr_SetString(self->state->error, "the interpreter is ending");
        return NULL;
    }
    if (self->uses_module)
        copy_module(self);
    set_steps(self);
    self->filter.log_level = report_wants(self, MKIT_LOG_DEBUG) ? MKIT_LOG_DEBUG : MKIT_LOG_INFO;
    self->process = getpid();
    int error = 0;
    Py_INCREF(self);
    set_running(self, true);
    /* The socket comes after the handlers: no signal leaves its file behind. The check is for those
     * that came before they could wake the server. */
    if (signals_take(self) == 0 && open(self, arg) == 0 && PyErr_CheckSignals() == 0) {
        attach_release();
        error = mkit_server_run(self->server, signals_run, self);
        attach_again();
    }
    struct mkit_server_stats ended;
    mkit_server_get_stats(self->server, &ended);
    if (ended.left) /* they may use it for ever */
        Py_INCREF(self);
    set_running(self, false);
    self->process = 0;
    self->signalled = false;
    if (error)
        PyErr_SetString(self->state->error, mkit_server_why(self->server));
    signals_give_back(self);
    PyObject *raised = self->raised;
    self->raised = NULL;
    Py_DECREF(self);
    if (raised) {
        PyErr_SetObject((PyObject *)Py_TYPE(raised), raised);
        Py_DECREF(raised);
    }
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

int server_call_opener(struct server_object *self, PyObject *opener)
{
    PyObject *done = PyObject_CallNoArgs(opener);
    (void)self;
    Py_XDECREF(done);
    return done ? 0 : -1;
}

PyDoc_STRVAR(
    run_doc,
    "run($self, opener, /)\n--\n\n"
    "Serve until stopped. In the main thread Python's signal handlers run meanwhile; SIGTERM and\n"
    "SIGHUP stop, SIGINT aborts, unless the program has set handlers. opener is called without\n"
    "arguments once signals are taken, to listen. Raises milter.error, or what opener raises.");

static PyObject *run(struct server_object *self, PyObject *opener)
{
    return server_run(self, server_call_opener, opener);
}

PyDoc_STRVAR(in_callback_doc, "in_callback($self, /)\n--\n\n"
                              "Whether this thread is one of the server's own, in a callback.");

static PyObject *in_callback(struct server_object *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(attach_is_in(self));
}

PyDoc_STRVAR(renew_doc, "renew($self, /)\n--\n\n"
                        "Forget a stop from before the next run. Raises milter.error if it runs.");

static PyObject *renew(struct server_object *self, PyObject *Py_UNUSED(ignored))
{
    if (server_check_process(self) < 0)
        return NULL;
    if (mkit_server_renew(self->server) < 0) {
        PyErr_SetString(self->state->error, mkit_server_why(self->server));
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(stop_doc, "stop($self, /)\n--\n\nEnd gracefully. Returns at once; from any thread.");

static PyObject *stop(struct server_object *self, PyObject *Py_UNUSED(ignored))
{
    if (server_check_process(self) < 0)
        return NULL;
    mkit_server_stop(self->server);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(abort_doc, "abort($self, /)\n--\n\nEnd all connections now. From any thread.");

static PyObject *abort_method(struct server_object *self, PyObject *Py_UNUSED(ignored))
{
    if (server_check_process(self) < 0)
        return NULL;
    mkit_server_abort(self->server);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(abandon_doc,
             "abandon($self, /)\n--\n\n"
             "End all connections now, and leave behind callbacks that have not returned.");

static PyObject *abandon(struct server_object *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *done = abort_method(self, NULL);
    if (done)
        mkit_server_hurry(self->server);
    return done;
}

PyDoc_STRVAR(
    retire_doc,
    "retire($self, seconds, /)\n--\n\n"
    "Accept nothing more, and keep each connection until its MTA ends it, or for seconds.");

static PyObject *retire(struct server_object *self, PyObject *seconds)
{
    const unsigned long time = PyLong_AsUnsignedLong(seconds);
    if ((time == (unsigned long)-1 && PyErr_Occurred()) || server_check_process(self) < 0)
        return NULL;
    mkit_server_retire(self->server, time > UINT_MAX ? UINT_MAX : (unsigned)time);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(stats_doc, "stats($self, /)\n--\n\n"
                        "Return (accepted, refused, messages, failures, open, threads, left).");

static PyObject *stats(struct server_object *self, PyObject *Py_UNUSED(ignored))
{
    struct mkit_server_stats now;
    if (server_check_process(self) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS mkit_server_get_stats(self->server, &now);
    Py_END_ALLOW_THREADS return Py_BuildValue("KKKKIII", now.accepted, now.refused, now.messages,
                                              now.failures, now.open, now.threads, now.left);
}

static PyMethodDef server_methods[] = {
    {"listen", (PyCFunction)listen_method, METH_VARARGS, listen_doc},
    {"adopt", (PyCFunction)adopt, METH_O, adopt_doc},
    {"address", (PyCFunction)address, METH_O, address_doc},
    {"renew", (PyCFunction)renew, METH_NOARGS, renew_doc},
    {"run", (PyCFunction)run, METH_O, run_doc},
    {"in_callback", (PyCFunction)in_callback, METH_NOARGS, in_callback_doc},
    {"stop", (PyCFunction)stop, METH_NOARGS, stop_doc},
    {"abort", (PyCFunction)abort_method, METH_NOARGS, abort_doc},
    {"abandon", (PyCFunction)abandon, METH_NOARGS, abandon_doc},
    {"retire", (PyCFunction)retire, METH_O, retire_doc},
    {"stats", (PyCFunction)stats, METH_NOARGS, stats_doc},
    {"_stop_signal", (PyCFunction)stop_signal, METH_VARARGS, stop_signal_doc},
    {"_abort_signal", (PyCFunction)abort_signal, METH_VARARGS, abort_signal_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot server_slots[] = {
    {Py_tp_doc, (void *)server_doc},
    {Py_tp_new, server_new},
    {Py_tp_methods, server_methods},
    {Py_tp_traverse, server_traverse},
    {Py_tp_clear, server_clear},
    {Py_tp_dealloc, server_dealloc},
    {0, NULL},
};

PyType_Spec server_spec = {
    .name = "milter._Server",
    .basicsize = sizeof(struct server_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = server_slots,
};
