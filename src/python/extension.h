/* What the parts of the `milter` extension share: the module's state and its types. Everything
 * that changes lives in the module, in objects, or belongs to one thread. */
#ifndef MKIT_PYTHON_EXTENSION_H
#define MKIT_PYTHON_EXTENSION_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "milterkit.h"

/* Methods whose classes' attributes a plan depends on: the steps', then the bytes variants. */
enum { BYTES_VARIANTS = 3, WATCHED = MKIT_STEPS + BYTES_VARIANTS };

struct module_state {
    PyObject *error;
    PyTypeObject *context_type;
    PyTypeObject *server_type;
    PyTypeObject *plan_type;
    PyObject *signal; /* the module, imported early: a fork during an import leaves its lock held */
    PyObject *threading;        /* the same */
    PyObject *logger;           /* logging.getLogger("Milter") */
    PyObject *watched[WATCHED]; /* names of methods, by step */
    PyObject *setctx_name;
    PyObject *actions_name;
    PyObject *protocol_name;
    PyObject *plan_name;

    /* The module-level functions' settings. */
    PyObject *callbacks[MKIT_STEPS];
    PyObject *name;
    PyObject *connection; /* str or NULL */
    uint32_t flags;
    int policy;
    unsigned timeout;
    int backlog;
    struct server_object *server; /* opened, or in main */
    PyObject *opened_at;          /* where opensocket has opened it; NULL: it has not */
    bool stopped;                 /* by stop(), while there was no server: for the next one */
    bool in_main;
    bool ended;                    /* the interpreter ends: nothing is to run any more */
    struct server_object *running; /* servers in run(), a list */

    Py_ssize_t contexts_made;
    Py_ssize_t contexts_freed;
};

/* How arguments of a method are made from bytes. */
enum decoding {
    DECODE_NONE,   /* bytes */
    DECODE_STRICT, /* str if it is UTF-8, else bytes */
    DECODE_ERRORS  /* str, by an error handler's name */
};

/* How one step is called on objects of a class. */
struct plan_entry {
    PyObject *function; /* a method's name, or a function that takes the object first; NULL: none */
    uint32_t no_reply;  /* NR_* bit of a @noreply method */
    enum decoding decoding;
    const char *errors; /* of DECODE_ERRORS; belongs to an interned string */
    PyObject *errors_owner;
};

/* How objects of a class are called. Kept in the class. */
struct plan_object {
    PyObject_HEAD PyTypeObject *type;
    PyObject *attributes[WATCHED]; /* as they were when the plan was made; NULL: none */
    struct plan_entry entries[MKIT_STEPS];
};

/* One connection, as callbacks see it. */
struct context_object {
    PyObject_HEAD struct module_state *state;
    struct mkit_session *session; /* NULL once the connection has ended */
    unsigned long thread;         /* that is in one of its callbacks; 0: none is */
    enum mkit_step step;          /* the callback */
    Py_ssize_t number;
    PyObject *private;
    PyObject *object; /* of the factory */
    struct plan_object *plan;
    PyObject *host;   /* of the client, for logs; NULL before connect */
    bool quarantined; /* the message, at its end, for logs */
};

/* What a run changed of the process's signals, and puts back. */
enum { SIGNALS = 3 };
struct signal_changes {
    PyObject *module;          /* NULL: nothing was changed, it is not the main thread */
    PyObject *wakeup;          /* the descriptor before */
    PyObject *before[SIGNALS]; /* handlers; NULL: left alone */
};

struct server_object {
    PyObject_HEAD struct module_state *state;
    PyInterpreterState *interpreter;
    struct mkit_filter filter;
    struct mkit_server *server;
    PyObject *name;
    PyObject *factory; /* NULL: callbacks count */
    PyObject *planner;
    PyObject *logger; /* of its own; NULL: the one that all share */
    PyObject *callbacks[MKIT_STEPS];
    bool uses_module; /* callbacks are copied from the module at the start */
    pid_t process;    /* that runs it; 0: none does */
    bool tells;       /* a line for each verdict that decides */
    bool signalled;   /* a signal has asked for its end */
    bool forked;      /* this is a copy of it in a child of that process */
    PyObject *raised; /* by a signal's handler */
    struct signal_changes changes;
    struct server_object *next_running;
};

extern struct PyModuleDef milter_module;

static inline struct module_state *state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

/* text.c: bytes and str ----------------------------------------------------------------------- */

/* str by UTF-8 with surrogateescape. */
PyObject *text_decode(const char *at, size_t len);

/* A str or bytes argument as C string without NUL. `holder` owns it and must be released. Returns
 * NULL with TypeError, or milter.error for a NUL. `call` and `what` name it in the message. */
const char *text_argument(struct module_state *state, PyObject *object, const char *call,
                          const char *what, PyObject **holder);

/* context.c ----------------------------------------------------------------------------------- */

extern PyType_Spec context_spec;
struct context_object *context_new(struct server_object *server, struct mkit_session *session);
/* The connection has ended: the context is of no more use. */
void context_end(struct context_object *self);

/* plan.c -------------------------------------------------------------------------------------- */

extern PyType_Spec plan_spec;
/* The plan for a class, from the class itself if it is still true, else made by `planner`. */
struct plan_object *plan_of(struct module_state *state, PyTypeObject *type, PyObject *planner);

/* dispatch.c ---------------------------------------------------------------------------------- */

int dispatch(struct mkit_session *session, const struct mkit_event *event);
/* The engine's hook for a callback that has passed the server's deadline. */
int dispatch_expired(struct mkit_session *session, enum mkit_step step);

/* report.c ------------------------------------------------------------------------------------ */

/* Reports the exception that is set, and clears it. `step` names the callback. */
void report_exception(const struct server_object *server, const struct mkit_session *session,
                      const char *step);
/* Says where the callback of a session stands: file, line and function. */
void report_where(const struct mkit_session *session, char *text, size_t size);
/* Whether the logger lets lines of this level, the engine's number, through now. */
bool report_wants(const struct server_object *server, int level);
void report_line(const struct server_object *server, const struct mkit_session *session, int level,
                 const char *line);
/* The exception that is set, as an object, cleared. */
PyObject *take_exception(void);

/* attach.c: threads and the interpreter -------------------------------------------------------- */

void attach_thread_start(void *data);
void attach_thread_end(void *data);
void attach_enter(void *data);
void attach_leave(void *data);
void attach_log(void *data, int level, const struct mkit_session *session, const char *line);
void attach_where(void *data, const struct mkit_session *session, char *text, size_t size);
/* Brackets a call into the engine that waits, in the thread that runs a server. */
void attach_release(void);
void attach_again(void);
/* Whether this thread is a worker of the server. */
bool attach_is_in(const struct server_object *server);

/* server.c ------------------------------------------------------------------------------------ */

extern PyType_Spec server_spec;
/* A server of the module-level functions: settings and callbacks are the module's. */
struct server_object *server_of_module(struct module_state *state);
int server_listen(struct server_object *self, PyObject *connection, int backlog, bool remove_stale);
/* Serves, in this thread. `open` is called once signals are taken, to listen where that is not done
 * yet; -1 with an exception ends the run. */
PyObject *server_run(struct server_object *self, int (*open)(struct server_object *, PyObject *),
                     PyObject *arg);
/* For `open`: calls a function of Python without arguments. */
int server_call_opener(struct server_object *self, PyObject *opener);
/* Aborts the servers that run and waits for them: at the end of the interpreter. */
void servers_end(struct module_state *state);
/* 0, or -1 with milter.error if another process runs it. */
int server_check_process(const struct server_object *self);

/* signals.c ----------------------------------------------------------------------------------- */

/* In the main thread: lets signals wake the server, and end it where the program has no handler.
 * Elsewhere it does nothing. 0, or -1 with an exception. */
int signals_take(struct server_object *self);
/* Puts everything back. Keeps an exception that is set. */
void signals_give_back(struct server_object *self);
/* Runs the handlers of signals that came, while the server runs: for mkit_server_run. */
int signals_run(void *arg);

/* child.c ------------------------------------------------------------------------------------- */

/* Parts with the servers that run in the parent: in a child, right after the fork. */
void servers_after_fork(struct module_state *state);
/* Ends a child process that was forked in code which the server called (a callback, a signal or log
 * handler, a destructor), and now leaves that: it would go on serving what its parent serves. An
 * exception that is set is its last word, as in a thread; SystemExit says the status, else it is 1.
 * Does nothing elsewhere. */
void server_leave_child(const struct server_object *self, const struct mkit_session *session,
                        const char *where);

#endif
