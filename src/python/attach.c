/* Threads of the engine and the interpreter: each worker keeps one thread state, attached once
 * for a batch of callbacks. What stands around batches leaves the child that was forked within. */
#include "extension.h"

#include <stdbool.h>
#include <time.h>

/* Of this thread alone. */
static _Thread_local struct {
    PyThreadState *state;
    const struct server_object *server; /* whose worker it is */
    bool attached;
    bool begun; /* it has run Python's code */
} here;

void attach_thread_start(void *data)
{
    here.server = data;
    here.begun = false;
    PyInterpreterState *interpreter = here.server->interpreter;
    /* Without memory the thread waits for some: it can do nothing else. */
    while (!(here.state = PyThreadState_New(interpreter))) {
        static const struct timespec moment = {.tv_nsec = 200000000};
        (void)nanosleep(&moment, NULL);
    }
}

void attach_thread_end(void *data)
{
    PyEval_RestoreThread(here.state);
    PyThreadState_Clear(here.state);
    server_leave_child(data, NULL, "thread"); /* its locals may have destructors */
    PyThreadState_DeleteCurrent();
    here.state = NULL;
    here.server = NULL;
}

bool attach_is_in(const struct server_object *server)
{
    return here.server == server;
}

/* Sets the functions that were given to threading.settrace and setprofile: the module `threading`
 * sets them in the threads that it makes, and debuggers and coverage count on that. */
static void trace_as_others(PyObject *threading)
{
    static const char *const functions[][2] = {{"gettrace", "settrace"},
                                               {"getprofile", "setprofile"}};
    for (int i = 0; i < 2; i++) {
        PyObject *hook = PyObject_CallMethod(threading, functions[i][0], NULL);
        PyObject *set = PySys_GetObject(functions[i][1]); /* borrowed */
        PyObject *done =
            hook && hook != Py_None && set ? PyObject_CallOneArg(set, hook) : Py_XNewRef(hook);
        if (!done)
            PyErr_WriteUnraisable(threading);
        Py_XDECREF(done);
        Py_XDECREF(hook);
    }
}

static void attach(const struct server_object *server)
{
    PyEval_RestoreThread(here.state);
    if (!here.begun)
        trace_as_others(server->state->threading);
    here.begun = true;
}

static void detach(const struct server_object *server)
{
    server_leave_child(server, NULL, "batch");
    here.state = PyEval_SaveThread();
}

void attach_enter(void *data)
{
    attach(data);
    here.attached = true;
}

void attach_leave(void *data)
{
    here.attached = false;
    detach(data);
}

void attach_release(void)
{
    here.attached = false;
    here.state = PyEval_SaveThread();
}

void attach_again(void)
{
    PyEval_RestoreThread(here.state);
    here.attached = true;
}

void attach_log(void *data, int level, const struct mkit_session *session, const char *line)
{
    const struct server_object *server = data;
    const bool outside = !here.attached;
    if (outside)
        attach(server);
    report_line(server, session, level, line);
    server_leave_child(server, session, "log");
    if (outside)
        detach(server);
}

void attach_where(void *data, const struct mkit_session *session, char *text, size_t size)
{
    attach(data);
    if (report_wants(data,
                     MKIT_LOG_ERROR)) /* a frame that is looked at stays as long as its thread */
        report_where(session, text, size);
    detach(data);
}
