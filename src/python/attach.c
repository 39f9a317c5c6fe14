/* Threads of the engine and the interpreter: each worker keeps one thread state, attached once
 * for a batch of callbacks. */
#include "extension.h"

#include <stdbool.h>
#include <time.h>

/* Of this thread alone. */
static _Thread_local struct {
    PyThreadState *state;
    bool attached;
} here;

void attach_thread_start(void *data)
{
    PyInterpreterState *interpreter = ((struct server_object *)data)->interpreter;
    /* Without memory the thread waits for some: it can do nothing else. */
    while (!(here.state = PyThreadState_New(interpreter))) {
        static const struct timespec moment = {.tv_nsec = 200000000};
        (void)nanosleep(&moment, NULL);
    }
}

void attach_thread_end(void *data)
{
    (void)data;
    PyEval_RestoreThread(here.state);
    PyThreadState_Clear(here.state);
    PyThreadState_DeleteCurrent();
    here.state = NULL;
}

void attach_enter(void *data)
{
    (void)data;
    PyEval_RestoreThread(here.state);
    here.attached = true;
}

void attach_leave(void *data)
{
    (void)data;
    here.attached = false;
    here.state = PyEval_SaveThread();
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
        PyEval_RestoreThread(here.state);
    report_line(server, session, level, line);
    if (outside)
        here.state = PyEval_SaveThread();
}
