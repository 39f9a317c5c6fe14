/* milter.Context: what a callback can ask and do on its connection. */
#include "extension.h"

#include <limits.h>

struct context_object *context_new(struct server_object *server, struct mkit_session *session)
{
    struct module_state *state = server->state;
    struct context_object *self = PyObject_GC_New(struct context_object, state->context_type);
    if (!self)
        return NULL;
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->state = state;
    self->session = session;
    self->number = ++state->contexts_made;
    PyObject_GC_Track(self);
    return self;
}

static int context_traverse(struct context_object *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->private);
    Py_VISIT(self->object);
    Py_VISIT(self->plan);
    return 0;
}

static int context_clear(struct context_object *self)
{
    Py_CLEAR(self->private);
    Py_CLEAR(self->object);
    Py_CLEAR(self->plan);
    Py_CLEAR(self->host);
    return 0;
}

void context_end(struct context_object *self)
{
    self->session = NULL;
    (void)context_clear(self);
}

static void context_dealloc(struct context_object *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    self->state->contexts_freed++;
    (void)context_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ----------------------------------------------------------------------------------- helpers */

/* The session, if this call comes out of one of its callbacks. */
static struct mkit_session *session_of(struct context_object *self)
{
    if (self->session && self->thread == PyThread_get_thread_ident())
        return self->session;
    PyErr_SetString(self->state->error, "bad context");
    return NULL;
}

static PyObject *result_of(const struct context_object *self, int error)
{
    if (error == MKIT_ENOMEM)
        return PyErr_NoMemory();
    if (error < 0) {
        PyErr_SetString(self->state->error, mkit_session_why(self->session));
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Texts of a call, taken from its arguments: at most three, each maybe absent. */
struct texts {
    const char *at[3];
    PyObject *holders[3];
};

static void release_texts(struct texts *texts)
{
    for (int i = 0; i < 3; i++)
        Py_XDECREF(texts->holders[i]);
}

/* Takes argument `i`; None stands for none if that is `optional`. */
static bool take_text(struct context_object *self, struct texts *texts, int i, PyObject *object,
                      const char *call, const char *what, bool optional)
{
    if (optional && (!object || object == Py_None))
        return true;
    texts->at[i] = text_argument(self->state, object, call, what, &texts->holders[i]);
    return texts->at[i];
}

static bool check_count(const char *call, Py_ssize_t count, Py_ssize_t least, Py_ssize_t most)
{
    if (count >= least && count <= most)
        return true;
    PyErr_Format(PyExc_TypeError, "%s takes %zd to %zd arguments, %zd given", call, least, most,
                 count);
    return false;
}

/* An index argument of a header call. */
static bool take_index(PyObject *object, const char *call, int32_t *index)
{
    long value = PyLong_AsLong(object);
    if (value == -1 && PyErr_Occurred())
        return false;
    if (value > INT32_MAX || value < INT32_MIN) {
        PyErr_Format(PyExc_OverflowError, "%s: the index does not fit 32 bits", call);
        return false;
    }
    *index = (int32_t)value;
    return true;
}

/* Runs an engine call that may write to the MTA with the interpreter let go meanwhile. */
#define CALL_ENGINE(session, len, error, call)                                                     \
    do {                                                                                           \
        if (mkit_session_will_flush(session, len)) {                                               \
            attach_release();                                                                      \
            error = (call);                                                                        \
            attach_again();                                                                        \
        } else {                                                                                   \
            error = (call);                                                                        \
        }                                                                                          \
    } while (0)

enum { SMALL_PACKET = 1 << 16 }; /* no single packet is larger */

/* ---------------------------------------------------------------------------------- questions */

PyDoc_STRVAR(
    getsymval_doc,
    "getsymval($self, name, /)\n--\n\n"
    "Return the value of macro `name` (str), or None if the MTA has not sent it.\n\n"
    "One-letter names may stand with or without braces; longer ones need them. Any callback.\n"
    "The value is str by UTF-8 with surrogateescape. Protocol sheet 4.2.");

static PyObject *getsymval(struct context_object *self, PyObject *name)
{
    struct mkit_session *session = session_of(self);
    PyObject *holder;
    if (!session)
        return NULL;
    const char *text = text_argument(self->state, name, "getsymval", "the name", &holder);
    if (!text)
        return NULL;
    const char *value = mkit_getsymval(session, text);
    Py_DECREF(holder);
    if (!value)
        Py_RETURN_NONE;
    return text_decode(value, strlen(value));
}

PyDoc_STRVAR(step_doc, "_step($self, /)\n--\n\n"
                       "Return the name of the callback that runs. Any callback.");

static PyObject *step(struct context_object *self, PyObject *Py_UNUSED(ignored))
{
    if (!session_of(self))
        return NULL;
    return PyUnicode_FromString(mkit_step_name(self->step));
}

PyDoc_STRVAR(setpriv_doc,
             "setpriv($self, object, /)\n--\n\n"
             "Keep `object` for this connection and return the one kept before (None at first).");

static PyObject *setpriv(struct context_object *self, PyObject *object)
{
    if (!session_of(self))
        return NULL;
    PyObject *before = self->private ? self->private : Py_NewRef(Py_None);
    self->private = Py_NewRef(object);
    return before;
}

PyDoc_STRVAR(getpriv_doc, "getpriv($self, /)\n--\n\n"
                          "Return the object that setpriv kept for this connection, or None.");

static PyObject *getpriv(struct context_object *self, PyObject *Py_UNUSED(ignored))
{
    if (!session_of(self))
        return NULL;
    return Py_NewRef(self->private ? self->private : Py_None);
}

/* ------------------------------------------------------------------------------------ actions */

PyDoc_STRVAR(
    setreply_doc,
    "setreply($self, rcode, xcode, /, *lines)\n--\n\n"
    "Set the SMTP reply that a following REJECT (5yz) or TEMPFAIL (4yz) gives the client.\n\n"
    "rcode: three digits. xcode: enhanced status code of RFC 3463 of the same class, or None.\n"
    "lines: 1 to 32 lines of text, each up to 980 bytes, `%` doubled; the first may be None.\n"
    "Any callback. Raises milter.error for what an MTA would refuse; the reply set before stays.\n"
    "Protocol sheet 5.3.");

static PyObject *setreply(struct context_object *self, PyObject *const *args, Py_ssize_t count)
{
    enum { MOST = 2 + 32 };
    struct mkit_session *session = session_of(self);
    const char *at[MOST] = {NULL};
    PyObject *holders[MOST] = {NULL};
    if (!session || !check_count("setreply", count, 2, MOST))
        return NULL;
    bool good = true;
    for (Py_ssize_t i = 0; good && i < count; i++) {
        if ((i == 1 || i == 2) && args[i] == Py_None)
            continue;
        const char *what = i == 0 ? "rcode" : i == 1 ? "xcode" : "a line";
        at[i] = text_argument(self->state, args[i], "setreply", what, &holders[i]);
        good = at[i];
    }
    PyObject *result = NULL;
    if (good) {
        size_t lines = count > 2 ? (size_t)count - 2 : 0;
        result = result_of(self, mkit_setreply(session, at[0], at[1], at + 2, lines));
    }
    for (Py_ssize_t i = 0; i < count; i++)
        Py_XDECREF(holders[i]);
    return result;
}

PyDoc_STRVAR(
    addheader_doc,
    "addheader($self, field, value, idx=-1, /)\n--\n\n"
    "Add a header. With idx >= 0 it is inserted there among all headers, 0 above the MTA's own\n"
    "Received; else the MTA chooses the place. End of message only, needs ADDHDRS.\n\n"
    "Lines of a folded value start with white space. Raises milter.error. Protocol sheet 5.4.");

static PyObject *addheader(struct context_object *self, PyObject *const *args, Py_ssize_t count)
{
    struct mkit_session *session = session_of(self);
    struct texts texts = {0};
    int32_t index = -1;
    PyObject *result = NULL;
    if (!session || !check_count("addheader", count, 2, 3))
        return NULL;
    if (take_text(self, &texts, 0, args[0], "addheader", "field", false) &&
        take_text(self, &texts, 1, args[1], "addheader", "value", false) &&
        (count < 3 || take_index(args[2], "addheader", &index))) {
        int error;
        CALL_ENGINE(session, SMALL_PACKET, error,
                    index < 0 ? mkit_addheader(session, texts.at[0], texts.at[1])
                              : mkit_insheader(session, index, texts.at[0], texts.at[1]));
        result = result_of(self, error);
    }
    release_texts(&texts);
    return result;
}

PyDoc_STRVAR(chgheader_doc,
             "chgheader($self, field, idx, value, /)\n--\n\n"
             "Change the idx-th header of that name, counted from 1; None or '' deletes it.\n\n"
             "End of message only, needs CHGHDRS. Raises milter.error. Protocol sheet 5.4.");

static PyObject *chgheader(struct context_object *self, PyObject *const *args, Py_ssize_t count)
{
    struct mkit_session *session = session_of(self);
    struct texts texts = {0};
    int32_t index;
    PyObject *result = NULL;
    if (!session || !check_count("chgheader", count, 3, 3))
        return NULL;
    if (take_text(self, &texts, 0, args[0], "chgheader", "field", false) &&
        take_index(args[1], "chgheader", &index) &&
        take_text(self, &texts, 1, args[2], "chgheader", "value", true)) {
        int error;
        CALL_ENGINE(session, SMALL_PACKET, error,
                    mkit_chgheader(session, texts.at[0], index, texts.at[1]));
        result = result_of(self, error);
    }
    release_texts(&texts);
    return result;
}

/* What the calls with an address have in common. */
static PyObject *address_call(struct context_object *self, PyObject *const *args, Py_ssize_t count,
                              const char *call, Py_ssize_t most,
                              int (*plain)(struct mkit_session *, const char *),
                              int (*with_args)(struct mkit_session *, const char *, const char *))
{
    struct mkit_session *session = session_of(self);
    struct texts texts = {0};
    PyObject *result = NULL;
    if (!session || !check_count(call, count, 1, most))
        return NULL;
    if (take_text(self, &texts, 0, args[0], call, "the address", false) &&
        take_text(self, &texts, 1, count > 1 ? args[1] : NULL, call, "params", true)) {
        int error;
        CALL_ENGINE(session, SMALL_PACKET, error,
                    with_args && (texts.at[1] || !plain)
                        ? with_args(session, texts.at[0], texts.at[1])
                        : plain(session, texts.at[0]));
        result = result_of(self, error);
    }
    release_texts(&texts);
    return result;
}

PyDoc_STRVAR(
    addrcpt_doc,
    "addrcpt($self, rcpt, params=None, /)\n--\n\n"
    "Add a recipient, with ESMTP parameters if given. End of message only; needs ADDRCPT, with\n"
    "parameters ADDRCPT_PAR. Raises milter.error. Protocol sheet 5.4.");

static PyObject *addrcpt(struct context_object *self, PyObject *const *args, Py_ssize_t count)
{
    return address_call(self, args, count, "addrcpt", 2, mkit_addrcpt, mkit_addrcpt_par);
}

PyDoc_STRVAR(delrcpt_doc,
             "delrcpt($self, rcpt, /)\n--\n\n"
             "Remove a recipient, spelled as envrcpt got it. End of message only; needs DELRCPT.\n"
             "Raises milter.error. Protocol sheet 5.4.");

static PyObject *delrcpt(struct context_object *self, PyObject *const *args, Py_ssize_t count)
{
    return address_call(self, args, count, "delrcpt", 1, mkit_delrcpt, NULL);
}

PyDoc_STRVAR(chgfrom_doc,
             "chgfrom($self, sender, params=None, /)\n--\n\n"
             "Change the envelope's sender ('<>' for none). End of message only; needs CHGFROM.\n"
             "Raises milter.error. Protocol sheet 5.4.");

static PyObject *chgfrom(struct context_object *self, PyObject *const *args, Py_ssize_t count)
{
    return address_call(self, args, count, "chgfrom", 2, NULL, mkit_chgfrom);
}

PyDoc_STRVAR(quarantine_doc, "quarantine($self, reason, /)\n--\n\n"
                             "Let the MTA hold the message. End of message only, needs QUARANTINE; "
                             "return CONTINUE or ACCEPT\n"
                             "afterwards. Raises milter.error. Protocol sheet 5.4.");

static PyObject *quarantine(struct context_object *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *done = address_call(self, args, count, "quarantine", 1, mkit_quarantine, NULL);
    self->quarantined |= done != NULL;
    return done;
}

PyDoc_STRVAR(
    replacebody_doc,
    "replacebody($self, body, /)\n--\n\n"
    "Replace the body; further calls append to the new one. Bytes, or str as UTF-8.\n\n"
    "End of message only, needs CHGBODY. A large body is written during the call, without a copy\n"
    "of the whole (but of a str); no more than 320 KiB wait for a slow MTA. Raises milter.error.\n"
    "Protocol sheet 5.4.");

static PyObject *replacebody(struct context_object *self, PyObject *body)
{
    struct mkit_session *session = session_of(self);
    PyObject *encoded = NULL;
    Py_buffer view;
    if (!session)
        return NULL;
    if (PyUnicode_Check(body)) {
        encoded = PyUnicode_AsEncodedString(body, "utf-8", "surrogateescape");
        if (!encoded)
            return NULL;
        body = encoded;
    }
    PyObject *result = NULL;
    if (PyObject_GetBuffer(body, &view, PyBUF_SIMPLE) == 0) {
        int error;
        CALL_ENGINE(session, (size_t)view.len, error,
                    mkit_replacebody(session, view.buf, (size_t)view.len));
        PyBuffer_Release(&view);
        result = result_of(self, error);
    }
    Py_XDECREF(encoded);
    return result;
}

PyDoc_STRVAR(
    progress_doc,
    "progress($self, /)\n--\n\n"
    "Tell the MTA that the filter is still at work, so that it waits on. Sent at once.\n\n"
    "The server does this by itself while a callback runs long. After a part of a new body\n"
    "it is that body which is sent, as far as it waits. End of message only. Raises\n"
    "milter.error. Protocol sheet 5.4.");

static PyObject *progress(struct context_object *self, PyObject *Py_UNUSED(ignored))
{
    struct mkit_session *session = session_of(self);
    if (!session)
        return NULL;
    attach_release();
    int error = mkit_progress(session);
    attach_again();
    return result_of(self, error);
}

PyDoc_STRVAR(mta_gone_doc,
             "mta_gone($self, /)\n--\n\n"
             "Return whether the MTA has closed the connection: what the callback still does is\n"
             "then in vain. Any callback. Costs a system call at most, and never waits.");

static PyObject *mta_gone(struct context_object *self, PyObject *Py_UNUSED(ignored))
{
    const struct mkit_session *session = session_of(self);
    return session ? PyBool_FromLong(mkit_mta_gone(session)) : NULL;
}

PyDoc_STRVAR(
    setsymlist_doc,
    "setsymlist($self, stage, names, /)\n--\n\n"
    "Ask the MTA for macros at a stage (M_CONNECT ...): names in one str, separated by spaces.\n\n"
    "In the negotiate callback only, once a stage. It replaces the MTA's own list for the stage.\n"
    "Raises milter.error. Protocol sheet 2.6.");

static PyObject *setsymlist(struct context_object *self, PyObject *const *args, Py_ssize_t count)
{
    struct mkit_session *session = session_of(self);
    struct texts texts = {0};
    int32_t stage;
    PyObject *result = NULL;
    if (!session || !check_count("setsymlist", count, 2, 2))
        return NULL;
    if (take_index(args[0], "setsymlist", &stage) &&
        take_text(self, &texts, 0, args[1], "setsymlist", "names", false))
        result = result_of(self, mkit_setsymlist(session, stage, texts.at[0]));
    release_texts(&texts);
    return result;
}

#define FAST(function)                                                                             \
    {                                                                                              \
#function, (PyCFunction)(void (*)(void))function, METH_FASTCALL, function##_doc            \
    }

static PyMethodDef context_methods[] = {
    {"getsymval", (PyCFunction)getsymval, METH_O, getsymval_doc},
    {"_step", (PyCFunction)step, METH_NOARGS, step_doc},
    {"setpriv", (PyCFunction)setpriv, METH_O, setpriv_doc},
    {"getpriv", (PyCFunction)getpriv, METH_NOARGS, getpriv_doc},
    FAST(setreply),
    FAST(addheader),
    FAST(chgheader),
    FAST(addrcpt),
    FAST(delrcpt),
    FAST(chgfrom),
    FAST(quarantine),
    {"replacebody", (PyCFunction)replacebody, METH_O, replacebody_doc},
    {"progress", (PyCFunction)progress, METH_NOARGS, progress_doc},
    {"mta_gone", (PyCFunction)mta_gone, METH_NOARGS, mta_gone_doc},
    FAST(setsymlist),
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(
    context_doc,
    "One connection of an MTA. Made by the engine, handed to callbacks; usable only inside them, "
    "in\n"
    "the thread that they run in. Elsewhere every method raises milter.error('bad context').");

static PyType_Slot context_slots[] = {
    {Py_tp_doc, (void *)context_doc},   {Py_tp_methods, context_methods},
    {Py_tp_traverse, context_traverse}, {Py_tp_clear, context_clear},
    {Py_tp_dealloc, context_dealloc},   {0, NULL},
};

PyType_Spec context_spec = {
    .name = "milter.Context",
    .basicsize = sizeof(struct context_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = context_slots,
};
