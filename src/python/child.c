/* Child processes of one in which servers run: they part with these, and never answer an MTA. */
#include "extension.h"

#include <unistd.h>

void servers_after_fork(struct module_state *state)
{
    for (struct server_object *server = state->running; server; server = server->next_running) {
        server->forked = true;
        signals_give_back(server); /* what ends the parent's server is to end the child */
        mkit_server_forked(server->server);
    }
    state->running = NULL;
    if (state->in_main) {
        Py_CLEAR(state->opened_at);
        state->server = NULL; /* the parent's; its reference is lost with the parent's thread */
    }
    state->in_main = false;
}

/* The exit status that SystemExit asks for; 1 after any other exception, or none. */
static int exit_status(PyObject *exception)
{
    PyObject *code = exception && PyErr_GivenExceptionMatches(exception, PyExc_SystemExit)
                         ? PyObject_GetAttrString(exception, "code")
                         : NULL;
    long status = code == Py_None ? 0 : code && PyLong_Check(code) ? PyLong_AsLong(code) : 1;
    Py_XDECREF(code);
    PyErr_Clear();
    return (int)status;
}

void server_leave_child(const struct server_object *self, const struct mkit_session *session,
                        const char *where)
{
    if (!self->forked)
        return;
    const bool asked = PyErr_ExceptionMatches(PyExc_SystemExit);
    PyObject *exception = PyErr_Occurred() ? take_exception() : NULL;
    const int status = exit_status(exception);
    if (exception && !asked) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        report_exception(self, session, where);
    }
    static const char *const streams[] = {"stdout", "stderr"};
    for (int i = 0; i < 2; i++) {
        PyObject *stream = PySys_GetObject(streams[i]);
        PyObject *done = stream ? PyObject_CallMethod(stream, "flush", NULL) : NULL;
        Py_XDECREF(done);
        PyErr_Clear();
    }
    _exit(status);
}
