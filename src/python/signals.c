/* Signals, while a server runs in the main thread: they wake it, the program's handlers run at
 * once, and where it has set none they end the server. */
#include "extension.h"

/* The signals that end a server, if the program has no handlers of its own. */
static const struct {
    const char *name;
    const char *method;
} signals[] = {
    {"SIGTERM", "_stop_signal"}, {"SIGHUP", "_stop_signal"}, {"SIGINT", "_abort_signal"}};

_Static_assert(sizeof signals / sizeof *signals == SIGNALS, "struct signal_changes has one each");

/* Whether it is the handler that asyncio.run sets for SIGINT (Python 3.11 and newer): a method of
 * its Runner, or a functools.partial of that. It only cancels the task that serves, and the loop
 * that would end the task waits for it. */
static bool is_of_asyncio(PyObject *handler)
{
    PyObject *function = PyObject_GetAttrString(handler, "func");
    PyErr_Clear();
    PyObject *owner = PyObject_GetAttrString(function ? function : handler, "__self__");
    PyErr_Clear();
    PyObject *module =
        PyObject_GetAttrString((PyObject *)Py_TYPE(owner ? owner : handler), "__module__");
    PyErr_Clear();
    const bool same = module && PyUnicode_Check(module) &&
                      PyUnicode_CompareWithASCIIString(module, "asyncio.runners") == 0;
    Py_XDECREF(module);
    Py_XDECREF(owner);
    Py_XDECREF(function);
    return same;
}

/* Whether a handler is not one that the program has set: Python's own default, or asyncio's. */
static bool is_default(PyObject *module, PyObject *handler)
{
    static const char *const names[] = {"SIG_DFL", "default_int_handler"};
    for (int i = 0; i < 2; i++) {
        PyObject *standard = PyObject_GetAttrString(module, names[i]);
        bool same = standard && PyObject_RichCompareBool(handler, standard, Py_EQ) == 1;
        Py_XDECREF(standard);
        if (same)
            return true;
    }
    return is_of_asyncio(handler);
}

static int take_signal(struct server_object *self, PyObject *module, int i, PyObject **before)
{
    PyObject *number = PyObject_GetAttrString(module, signals[i].name);
    PyObject *handler = number ? PyObject_CallMethod(module, "getsignal", "O", number) : NULL;
    PyObject *ours = NULL;
    PyObject *done = NULL;
    int result = handler ? 0 : -1;
    if (handler && is_default(module, handler)) {
        ours = PyObject_GetAttrString((PyObject *)self, signals[i].method);
        done = ours ? PyObject_CallMethod(module, "signal", "OO", number, ours) : NULL;
        *before = done ? Py_NewRef(handler) : NULL;
        result = done ? 0 : -1;
    }
    Py_XDECREF(done);
    Py_XDECREF(ours);
    Py_XDECREF(handler);
    Py_XDECREF(number);
    return result;
}

int signals_take(struct server_object *self)
{
    struct signal_changes *changes = &self->changes;
    PyObject *module = Py_NewRef(self->state->signal);
    PyObject *wakeup =
        PyObject_CallMethod(module, "set_wakeup_fd", "i", mkit_server_poke_fd(self->server));
    if (!wakeup && PyErr_ExceptionMatches(PyExc_ValueError)) { /* another thread: not ours */
        PyErr_Clear();
        Py_DECREF(module);
        return 0;
    }
    if (!wakeup) {
        Py_DECREF(module);
        return -1;
    }
    changes->module = module;
    changes->wakeup = wakeup;
    for (int i = 0; i < SIGNALS; i++)
        if (take_signal(self, module, i, &changes->before[i]) < 0)
            return -1;
    return 0;
}

void signals_give_back(struct server_object *self)
{
    struct signal_changes *changes = &self->changes;
    PyObject *raised = PyErr_Occurred() ? take_exception() : NULL;
    for (int i = 0; changes->module && i < SIGNALS; i++) {
        if (!changes->before[i])
            continue;
        PyObject *number = PyObject_GetAttrString(changes->module, signals[i].name);
        PyObject *done = number ? PyObject_CallMethod(changes->module, "signal", "OO", number,
                                                      changes->before[i])
                                : NULL;
        if (!done)
            PyErr_WriteUnraisable(NULL);
        Py_XDECREF(done);
        Py_XDECREF(number);
        Py_CLEAR(changes->before[i]);
    }
    if (changes->module) {
        PyObject *done =
            PyObject_CallMethod(changes->module, "set_wakeup_fd", "O", changes->wakeup);
        if (!done)
            PyErr_WriteUnraisable(NULL);
        Py_XDECREF(done);
    }
    Py_CLEAR(changes->wakeup);
    Py_CLEAR(changes->module);
    if (raised) {
        PyErr_SetObject((PyObject *)Py_TYPE(raised), raised);
        Py_DECREF(raised);
    }
}

int signals_run(void *arg)
{
    struct server_object *self = arg;
    attach_again();
    if (PyErr_CheckSignals() < 0) {
        PyObject *raised = take_exception();
        Py_XSETREF(self->raised, raised);
    }
    if (self->forked) {
        if (self->raised)
            PyErr_SetObject((PyObject *)Py_TYPE(self->raised), self->raised);
        server_leave_child(self, NULL, "signal");
    }
    const bool abort = self->raised;
    attach_release();
    return abort;
}
