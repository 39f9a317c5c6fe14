/* From events to calls of Python and back: arguments, results, and what becomes of exceptions.
 * Two ways in: functions set by the low-level module functions, or methods of the connection's
 * object by its class's plan. */
#include "extension.h"

#include <arpa/inet.h>

enum { MAX_STACK_ARGS = 16 };

/* Arguments of a call; `at[0]` is the context or the object. */
struct call {
    PyObject *at[MAX_STACK_ARGS];
    PyObject **more; /* instead of `at`, if they are too many */
    size_t count;
};

static PyObject **args_of(struct call *call)
{
    return call->more ? call->more : call->at;
}

/* Adds an argument, whose reference is taken. False if it is NULL. */
static bool add(struct call *call, PyObject *argument)
{
    if (!argument)
        return false;
    args_of(call)[call->count++] = argument;
    return true;
}

static void release(struct call *call)
{
    for (size_t i = 1; i < call->count; i++)
        Py_DECREF(args_of(call)[i]);
    PyMem_Free(call->more);
}

/* --------------------------------------------------------------------------------- arguments */

static PyObject *bytes_of(struct mkit_text text)
{
    return PyBytes_FromStringAndSize(text.at, (Py_ssize_t)text.len);
}

/* Whether the text can be a str under `strict`. Leaves no exception. */
static bool is_utf8(struct mkit_text text)
{
    PyObject *str = PyUnicode_DecodeUTF8(text.at, (Py_ssize_t)text.len, "strict");
    if (!str)
        PyErr_Clear();
    Py_XDECREF(str);
    return str;
}

static PyObject *value_of(struct mkit_text text, enum decoding decoding, const char *errors)
{
    if (decoding == DECODE_NONE)
        return bytes_of(text);
    return PyUnicode_DecodeUTF8(text.at, (Py_ssize_t)text.len, errors);
}

/* The client's address as the socket module would give it. */
static PyObject *address_of(const struct mkit_event *event)
{
    char text[INET6_ADDRSTRLEN];
    const struct sockaddr *sa = &event->of.connect.address.sa;
    switch (sa->sa_family) {
    case AF_INET: {
        const struct sockaddr_in *in = &event->of.connect.address.in;
        (void)inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
        return Py_BuildValue("(si)", text, (int)ntohs(in->sin_port));
    }
    case AF_INET6: {
        const struct sockaddr_in6 *in6 = &event->of.connect.address.in6;
        (void)inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text);
        return Py_BuildValue("(siII)", text, (int)ntohs(in6->sin6_port),
                             (unsigned)ntohl(in6->sin6_flowinfo), (unsigned)in6->sin6_scope_id);
    }
    case AF_UNIX: {
        const char *path = event->of.connect.address.un.sun_path;
        return text_decode(path, strlen(path));
    }
    default: return Py_NewRef(Py_None);
    }
}

static bool add_connect(struct call *call, struct context_object *context,
                        const struct mkit_event *event)
{
    if (!add(call, text_decode(event->of.connect.host.at, event->of.connect.host.len)))
        return false;
    Py_XSETREF(context->host, Py_NewRef(call->at[call->count - 1]));
    return add(call, PyLong_FromLong(event->of.connect.address.sa.sa_family)) &&
           add(call, address_of(event));
}

static bool add_args(struct call *call, const struct mkit_event *event, enum decoding decoding,
                     const char *errors)
{
    struct mkit_text rest = event->of.args.all;
    const char *string;
    if (event->of.args.count + 1 > MAX_STACK_ARGS) {
        call->more = PyMem_Calloc(event->of.args.count + 1, sizeof *call->more);
        if (!call->more) {
            (void)PyErr_NoMemory();
            return false;
        }
        call->more[0] = call->at[0];
    }
    if (decoding == DECODE_STRICT && !is_utf8(rest))
        decoding = DECODE_NONE; /* all or none: they belong together */
    while ((string = mkit_next_string(&rest)))
        if (!add(call, value_of((struct mkit_text){string, strlen(string)}, decoding, errors)))
            return false;
    return true;
}

static bool add_header(struct call *call, const struct mkit_event *event, enum decoding decoding,
                       const char *errors)
{
    const struct mkit_text value = event->of.header.value;
    if (decoding == DECODE_STRICT && !is_utf8(value))
        decoding = DECODE_NONE;
    return add(call, text_decode(event->of.header.name.at, event->of.header.name.len)) &&
           add(call, value_of(value, decoding, errors));
}

/* The offered options as the list that a negotiate callback may change. */
static bool add_options(struct call *call, const struct mkit_options *options)
{
    return add(call, Py_BuildValue("[kkii]", (unsigned long)options->offered_actions,
                                   (unsigned long)options->offered_protocol, 0, 0));
}

static bool add_arguments(struct call *call, struct context_object *context,
                          const struct mkit_event *event, enum decoding decoding,
                          const char *errors)
{
    switch (event->step) {
    case MKIT_CONNECT: return add_connect(call, context, event);
    case MKIT_HELO:
    case MKIT_UNKNOWN: return add(call, text_decode(event->of.text.at, event->of.text.len));
    case MKIT_MAIL:
    case MKIT_RCPT: return add_args(call, event, decoding, errors);
    case MKIT_HEADER: return add_header(call, event, decoding, errors);
    case MKIT_BODY: return add(call, bytes_of(event->of.body));
    case MKIT_NEGOTIATE: return add_options(call, event->of.options);
    default: return true;
    }
}

/* ----------------------------------------------------------------------------------- results */

/* Takes what a negotiate callback left in its list. */
static int read_options(PyObject *list, struct mkit_options *options)
{
    uint32_t *const to[] = {&options->actions, &options->protocol};
    for (int i = 0; i < 2; i++) {
        PyObject *item = PyList_Check(list) ? PyList_GetItem(list, i) : NULL;
        unsigned long value = item ? PyLong_AsUnsignedLongMask(item) : 0;
        if (!item && !PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "the options of negotiate must stay a list");
        if (PyErr_Occurred())
            return -1;
        *to[i] = (uint32_t)value;
    }
    return 0;
}

/* A callback's result as a verdict; -1 with an exception. */
static int verdict_of(const struct module_state *state, enum mkit_step step, PyObject *result)
{
    const char *name = mkit_step_name(step);
    if (!PyLong_Check(result)) {
        PyErr_Format(state->error, "The %s callback must return int, not %.100R", name, result);
        return -1;
    }
    int overflow;
    long value = PyLong_AsLongAndOverflow(result, &overflow);
    const bool known = value >= MKIT_CONTINUE && value <= MKIT_TEMPFAIL;
    if (overflow || !(known || value == MKIT_NOREPLY || value == MKIT_SKIP ||
                      (value == MKIT_ALL_OPTS && step == MKIT_NEGOTIATE))) {
        PyErr_Format(state->error, "The %s callback returned %S, which is no verdict", name,
                     result);
        return -1;
    }
    return (int)value;
}

static bool is_control(char c)
{
    return (unsigned char)c < ' ';
}

/* Sets the reply that tells of a failed callback, if the policy refuses. */
static void set_failure_reply(const struct server_object *server, struct mkit_session *session)
{
    const enum mkit_on_failure policy = server->filter.on_failure;
    char text[200];
    size_t len = 0;
    if (policy != MKIT_FAIL_REJECT && policy != MKIT_FAIL_TEMPFAIL)
        return;
    for (const char *at = server->filter.name; *at && len < sizeof text - 40; at++) {
        if (*at == '%')
            text[len++] = '%';
        if (!is_control(*at))
            text[len++] = *at;
    }
    (void)snprintf(text + len, sizeof text - len, ": error in the mail filter");
    const char *const line = text;
    if (policy == MKIT_FAIL_REJECT)
        (void)mkit_setreply(session, "554", "5.3.0", &line, 1);
    else
        (void)mkit_setreply(session, "451", "4.3.0", &line, 1);
}

static int failed(const struct server_object *server, struct mkit_session *session,
                  enum mkit_step step)
{
    report_exception(server, session, mkit_step_name(step));
    if (step != MKIT_ABORT && step != MKIT_CLOSE) /* those have no reply that could use it */
        set_failure_reply(server, session);
    return MKIT_EINVAL;
}

/* ------------------------------------------------------------------------------------- calls */

/* Ties the object to its context, or parts it from it (None). -1 with an exception. */
static int set_context(const struct context_object *context, PyObject *to)
{
    PyObject *done = PyObject_CallMethodOneArg(context->object, context->state->setctx_name, to);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* Gives the connection its object. */
static int make_object(struct server_object *server, struct context_object *context)
{
    struct module_state *state = server->state;
    context->object = PyObject_CallNoArgs(server->factory);
    if (!context->object)
        return -1;
    context->plan = plan_of(state, Py_TYPE(context->object), server->planner);
    if (!context->plan)
        return -1;
    return set_context(context, (PyObject *)context);
}

/* Tells an object that was not there at the negotiation what came of it, if it has room for that.
 */
static int tell_options(const struct module_state *state, const struct context_object *context)
{
    PyObject *actions = PyLong_FromUnsignedLong(mkit_session_actions(context->session));
    PyObject *protocol = PyLong_FromUnsignedLong(mkit_session_protocol(context->session));
    int result = actions && protocol &&
                         PyObject_SetAttr(context->object, state->actions_name, actions) == 0 &&
                         PyObject_SetAttr(context->object, state->protocol_name, protocol) == 0
                     ? 0
                     : -1;
    if (result < 0 && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        result = 0;
    }
    Py_XDECREF(actions);
    Py_XDECREF(protocol);
    return result;
}

/* The connection's context, made at its first event. NULL with an exception, or without one when
 * the connection ends before it began. */
static struct context_object *context_for(struct server_object *server,
                                          struct mkit_session *session, enum mkit_step step)
{
    struct context_object *context = mkit_private(session);
    if (context || step == MKIT_ABORT || step == MKIT_CLOSE)
        return context;
    context = context_new(server, session);
    if (!context)
        return NULL;
    mkit_set_private(session, context);
    if (!server->factory)
        return context;
    context->thread = PyThread_get_thread_ident();
    int error = make_object(server, context);
    if (!error && step != MKIT_NEGOTIATE)
        error = tell_options(server->state, context);
    context->thread = 0;
    return error ? NULL : context;
}

/* Calls the function for the step, or the method of that name of the first argument. Returns its
 * result, or NULL with an exception. */
static PyObject *call_function(struct context_object *context, const struct mkit_event *event,
                               PyObject *function, PyObject *first, enum decoding decoding,
                               const char *errors, int *verdict)
{
    struct call call = {.at = {Py_NewRef(first)}, .count = 1};
    const struct mkit_session *session = context->session;
    PyObject *result = NULL;
    Py_INCREF(function); /* the connection may end before it returns, if it passes its deadline */
    if (add_arguments(&call, context, event, decoding, errors)) {
        context->thread = PyThread_get_thread_ident();
        context->step = event->step;
        result = (PyUnicode_Check(function) ? PyObject_VectorcallMethod : PyObject_Vectorcall)(
            function, args_of(&call), call.count, NULL);
        if (context->session == session) /* else its deadline has passed */
            context->thread = 0;
    }
    if (result && event->step != MKIT_ABORT && event->step != MKIT_CLOSE)
        *verdict = verdict_of(context->state, event->step, result);
    if (result && event->step == MKIT_NEGOTIATE && *verdict == MKIT_CONTINUE &&
        read_options(args_of(&call)[1], event->of.options) < 0)
        *verdict = -1;
    release(&call);
    Py_DECREF(function);
    Py_DECREF(first);
    return result;
}

/* A @noreply method must have nothing to say where its reply was negotiated away. */
static int without_reply(const struct mkit_session *session, const struct plan_entry *entry,
                         enum mkit_step step, int verdict)
{
    if (verdict < 0 || !(entry->no_reply & mkit_session_protocol(session)))
        return verdict;
    if (verdict == MKIT_CONTINUE || verdict == MKIT_NOREPLY)
        return MKIT_NOREPLY;
    PyErr_Format(PyExc_RuntimeError, "%s return code must be CONTINUE with @noreply",
                 mkit_step_name(step));
    return -1;
}

/* Negotiates for a filter that does not do it itself: the steps that it has, SKIP, and of the
 * actions those that were set for it. */
static int negotiate_for(const struct server_object *server, const struct mkit_event *event)
{
    event->of.options->actions &= server->filter.actions;
    return MKIT_CONTINUE;
}

/* Calls what the filter has for the step. -1 with an exception. */
static int call_step(const struct server_object *server, struct context_object *context,
                     const struct mkit_event *event)
{
    const enum mkit_step step = event->step;
    const struct mkit_session *session = context->session;
    int verdict = MKIT_CONTINUE;
    PyObject *result;
    if (server->factory) {
        if (!context->plan) /* its factory failed */
            return MKIT_CONTINUE;
        const struct plan_entry *entry = &context->plan->entries[step];
        if (!entry->function)
            return step == MKIT_NEGOTIATE ? negotiate_for(server, event) : MKIT_CONTINUE;
        result = call_function(context, event, entry->function, context->object, entry->decoding,
                               entry->errors, &verdict);
        if (result && context->session == session) /* else it is late, and the plan may be gone */
            verdict = without_reply(session, entry, step, verdict);
    } else {
        if (!server->callbacks[step])
            return MKIT_CONTINUE;
        result = call_function(context, event, server->callbacks[step], (PyObject *)context,
                               DECODE_NONE, NULL, &verdict);
    }
    if (!result)
        return -1;
    Py_DECREF(result);
    return verdict;
}

/* What the policy answers where a callback failed. */
static int verdict_on_failure(const struct server_object *server)
{
    switch (server->filter.on_failure) {
    case MKIT_FAIL_REJECT: return MKIT_REJECT;
    case MKIT_FAIL_ACCEPT: return MKIT_ACCEPT;
    case MKIT_FAIL_CONTINUE: return MKIT_CONTINUE;
    default: return MKIT_TEMPFAIL;
    }
}

/* Logs a verdict that decides: about the client, a recipient or the message. */
static void tell_verdict(const struct server_object *server, const struct mkit_session *session,
                         enum mkit_step step, int verdict)
{
    static const char *const words[] = {[MKIT_CONTINUE] = "accepted",
                                        [MKIT_REJECT] = "rejected",
                                        [MKIT_DISCARD] = "discarded",
                                        [MKIT_ACCEPT] = "accepted",
                                        [MKIT_TEMPFAIL] = "tempfailed"};
    char line[64];
    if (verdict < 0)
        verdict = verdict_on_failure(server);
    if (step == MKIT_EOM && (verdict == MKIT_NOREPLY || verdict == MKIT_SKIP))
        verdict = MKIT_CONTINUE;
    if (step == MKIT_NEGOTIATE || step == MKIT_ABORT || step == MKIT_CLOSE ||
        (size_t)verdict >= sizeof words / sizeof *words ||
        (verdict == MKIT_CONTINUE && step != MKIT_EOM))
        return;
    struct context_object *context = mkit_private(session);
    const bool held = context && context->quarantined && step == MKIT_EOM;
    const bool taken = verdict == MKIT_CONTINUE || verdict == MKIT_ACCEPT;
    if (context)
        context->quarantined = false;
    (void)snprintf(line, sizeof line, "%s at %s", held && taken ? "quarantined" : words[verdict],
                   mkit_step_name(step));
    report_line(server, session, MKIT_LOG_INFO, line);
}

/* A callback has returned after its deadline. The engine drops its result; what it raised is told.
 */
static int late_result(const struct server_object *server, enum mkit_step step)
{
    if (PyErr_Occurred())
        report_exception(server, NULL, mkit_step_name(step));
    return MKIT_CONTINUE;
}

int dispatch_expired(struct mkit_session *session, enum mkit_step step)
{
    const struct server_object *server = mkit_filter_data(session);
    struct context_object *context = mkit_private(session);
    char where[128] = "";
    char line[256];
    report_where(session, where, sizeof where);
    if (context) { /* what the late callback calls on it fails from here on */
        context->session = session;
        context->thread = 0;
    }
    (void)snprintf(line, sizeof line,
                   "%s: the callback has not returned by its deadline: the exception policy answers"
                   "%s%s",
                   mkit_step_name(step), *where ? ": it is at " : "", where);
    report_line(server, session, MKIT_LOG_ERROR, line);
    set_failure_reply(server, session);
    if (server->tells)
        tell_verdict(server, session, step, MKIT_ETIMEOUT);
    return MKIT_ETIMEOUT;
}

int dispatch(struct mkit_session *session, const struct mkit_event *event)
{
    struct server_object *server = mkit_filter_data(session);
    if (event->step == MKIT_NEGOTIATE && !server->factory && !server->callbacks[MKIT_NEGOTIATE])
        return negotiate_for(server, event);
    struct context_object *context = context_for(server, session, event->step);
    int verdict = MKIT_CONTINUE;
    Py_XINCREF(context);
    if (context)
        verdict = call_step(server, context, event);
    else if (PyErr_Occurred())
        verdict = -1;
    const bool late = context && context->session != session;
    Py_XDECREF(context);
    server_leave_child(server, session, mkit_step_name(event->step));
    if (late)
        return late_result(server, event->step);
    if (verdict < 0)
        verdict = failed(server, session, event->step);
    if (server->tells)
        tell_verdict(server, session, event->step, verdict);
    if (event->step == MKIT_CLOSE && context) {
        if (context->plan && set_context(context, Py_None) < 0)
            report_exception(server, session, mkit_step_name(event->step));
        mkit_set_private(session, NULL);
        context_end(context);
        Py_DECREF(context);
    }
    server_leave_child(server, NULL, mkit_step_name(event->step)); /* by what a report has called */
    return verdict;
}
