/* Telling people what happened: lines and exceptions, with the connection and the queue id, go to
 * the logger "Milter", or to the server's own. */
#include "extension.h"

/* "NAME: connection 3 (mail.example [192.0.2.1]), queue id 4ABC", as far as it is known. */
static PyObject *origin(const struct server_object *server, const struct mkit_session *session)
{
    const struct context_object *context = session ? mkit_private(session) : NULL;
    const char *id = session ? mkit_getsymval(session, "i") : NULL;
    PyObject *text = Py_NewRef(server->name);
    if (text && context) {
        PyObject *longer = context->host
                               ? PyUnicode_FromFormat("%U: connection %zd (%U)", text,
                                                      context->number, context->host)
                               : PyUnicode_FromFormat("%U: connection %zd", text, context->number);
        Py_SETREF(text, longer);
    }
    if (text && id) {
        PyObject *queue_id = text_decode(id, strlen(id));
        Py_SETREF(text, queue_id ? PyUnicode_FromFormat("%U, queue id %U", text, queue_id) : NULL);
        Py_XDECREF(queue_id);
    }
    return text;
}

/* The innermost frame of a thread; NULL if it runs no Python code, without an exception. */
static PyObject *frame_of(unsigned long thread)
{
    PyObject *current = PySys_GetObject("_current_frames"); /* borrowed */
    PyObject *frames = current ? PyObject_CallNoArgs(current) : NULL;
    PyObject *id = frames ? PyLong_FromUnsignedLong(thread) : NULL;
    PyObject *frame = id ? Py_XNewRef(PyDict_GetItemWithError(frames, id)) : NULL;
    Py_XDECREF(id);
    Py_XDECREF(frames);
    return frame;
}

void report_where(const struct mkit_session *session, char *text, size_t size)
{
    const struct context_object *context = session ? mkit_private(session) : NULL;
    PyObject *frame = context && context->thread ? frame_of(context->thread) : NULL;
    PyObject *code = frame ? PyObject_GetAttrString(frame, "f_code") : NULL;
    PyObject *file = code ? PyObject_GetAttrString(code, "co_filename") : NULL;
    PyObject *name = code ? PyObject_GetAttrString(code, "co_name") : NULL;
    PyObject *line = frame ? PyObject_GetAttrString(frame, "f_lineno") : NULL;
    PyObject *words =
        file && name && line ? PyUnicode_FromFormat("%S:%S in %S", file, line, name) : NULL;
    const char *utf8 = words ? PyUnicode_AsUTF8(words) : NULL;
    if (utf8)
        (void)snprintf(text, size, "%s", utf8);
    PyErr_Clear();
    Py_XDECREF(words);
    Py_XDECREF(line);
    Py_XDECREF(name);
    Py_XDECREF(file);
    Py_XDECREF(code);
    Py_XDECREF(frame);
}

PyObject *take_exception(void)
{
    PyObject *type;
    PyObject *value;
    PyObject *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback && value)
        (void)PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* Python's numbers for levels, from syslog's. */
static long python_level(int level)
{
    return level <= MKIT_LOG_ERROR     ? 40
           : level == MKIT_LOG_WARNING ? 30
           : level == MKIT_LOG_INFO    ? 20
                                       : 10;
}

static PyObject *logger_of(const struct server_object *server)
{
    return server->logger ? server->logger : server->state->logger;
}

bool report_wants(const struct server_object *server, int level)
{
    PyObject *enabled =
        PyObject_CallMethod(logger_of(server), "isEnabledFor", "l", python_level(level));
    const int wants = enabled ? PyObject_IsTrue(enabled) : -1;
    if (wants < 0)
        PyErr_WriteUnraisable(NULL);
    Py_XDECREF(enabled);
    return wants > 0;
}

void report_line(const struct server_object *server, const struct mkit_session *session, int level,
                 const char *line)
{
    PyObject *from = origin(server, session);
    PyObject *text = from ? text_decode(line, strlen(line)) : NULL;
    PyObject *done = text ? PyObject_CallMethod(logger_of(server), "log", "lsOO",
                                                python_level(level), "%s: %s", from, text)
                          : NULL;
    if (!done)
        PyErr_WriteUnraisable(NULL);
    Py_XDECREF(done);
    Py_XDECREF(text);
    Py_XDECREF(from);
}

/* Logs with the traceback. */
static int log_exception(PyObject *logger, PyObject *from, const char *step, PyObject *exception)
{
    int result = -1;
    PyObject *method = PyObject_GetAttrString(logger, "error");
    PyObject *args = Py_BuildValue("(sOs)", "%s: exception in the %s callback", from, step);
    PyObject *kwargs = Py_BuildValue("{sO}", "exc_info", exception);
    PyObject *done = method && args && kwargs ? PyObject_Call(method, args, kwargs) : NULL;
    if (done)
        result = 0;
    Py_XDECREF(done);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(method);
    return result;
}

/* Whether the program has put a hook of its own into sys.unraisablehook. With Python's own one the
 * traceback would only stand twice on standard error. */
static bool has_own_hook(void)
{
    PyObject *hook = PySys_GetObject("unraisablehook");
    PyObject *standard = PySys_GetObject("__unraisablehook__");
    return hook && hook != standard;
}

void report_exception(const struct server_object *server, const struct mkit_session *session,
                      const char *step)
{
    PyObject *exception = take_exception();
    PyObject *from = origin(server, session);
    bool logged = exception && from && log_exception(logger_of(server), from, step, exception) == 0;
    if (!logged) {
        PyErr_WriteUnraisable(NULL); /* what prevented it */
    }
    if (exception && (!logged || (!server->logger && has_own_hook()))) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        PyErr_WriteUnraisable(from);
    }
    Py_XDECREF(from);
    Py_XDECREF(exception);
}
