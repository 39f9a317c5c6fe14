/* The extension module Milter._wire: the packet codec of src/wire for Python, both directions.
 * Knows packets and fields only; what they mean in a session is Milter.testing's business. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdio.h>
#include <string.h>

#include "wire/protocol.h"

#define DEFAULT_LIMIT (1U << 20)

struct module_state {
    PyObject *error; /* Milter._wire.PacketError */
    PyTypeObject *decoder;
};

/* A stream's bytes and how far they have been read. */
struct decoder {
    PyObject_HEAD enum mkit_direction direction;
    size_t limit; /* bytes of data in one packet */
    uint8_t *at;
    size_t read;
    size_t len;
    size_t size;
};

/* ---------------------------------------------------------------------------------- fields */

/* The layout letter of field number `index`; 0 if the layout has no such field. */
static char letter_of(const char *layout, size_t index)
{
    const char *again = NULL;
    for (const char *letter = layout;; letter++) {
        if (*letter == '\0') {
            if (!again)
                return '\0';
            letter = again;
        } else if (*letter == '&') {
            again = letter;
        } else if (*letter != '?' && index-- == 0) {
            return *letter;
        }
    }
}

/* What stands in error texts for a packet. `buffer` is used for unknown ones. */
static const char *packet_name(enum mkit_direction direction, uint8_t command, char buffer[8])
{
    const struct mkit_packet_kind *kind = mkit_packet_kind(direction, command);
    if (kind)
        return kind->name;
    if (command > 0x20 && command < 0x7f)
        (void)snprintf(buffer, 8, "'%c'", command);
    else
        (void)snprintf(buffer, 8, "0x%02x", command);
    return buffer;
}

static int is_direction(long direction)
{
    if (direction == MKIT_TO_FILTER || direction == MKIT_TO_MTA)
        return 1;
    PyErr_SetString(PyExc_ValueError, "direction must be TO_FILTER or TO_MTA");
    return 0;
}

/* From Python to a number field. Returns 0, or -1 with an exception. */
static int number_field(PyObject *value, char letter, struct mkit_field *field)
{
    unsigned long max = letter == 'u' ? UINT32_MAX : letter == 'w' ? UINT16_MAX : UINT8_MAX;
    if (max == UINT8_MAX && PyBytes_Check(value) && PyBytes_GET_SIZE(value) == 1) {
        field->number = (uint8_t)PyBytes_AS_STRING(value)[0];
        return 0;
    }
    if (!PyLong_Check(value)) {
        PyErr_Format(PyExc_TypeError, "expected %s, not %.100s",
                     max == UINT8_MAX ? "a single byte" : "an int", Py_TYPE(value)->tp_name);
        return -1;
    }
    unsigned long number = PyLong_AsUnsignedLong(value);
    if (PyErr_Occurred())
        return -1;
    if (number > max) {
        PyErr_Format(PyExc_OverflowError, "%lu is more than %lu", number, max);
        return -1;
    }
    field->number = (uint32_t)number;
    return 0;
}

/* The strings of a sequence, each ended by a NUL, as one bytes object. */
static PyObject *join_strings(PyObject *sequence)
{
    PyObject *items = PySequence_Tuple(sequence);
    if (!items)
        return NULL;
    PyObject *joined = NULL;
    Py_ssize_t total = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items); i++) {
        PyObject *item = PyTuple_GET_ITEM(items, i);
        if (!PyBytes_Check(item)) {
            PyErr_Format(PyExc_TypeError, "expected bytes, not %.100s", Py_TYPE(item)->tp_name);
            goto done;
        }
        if (memchr(PyBytes_AS_STRING(item), 0, (size_t)PyBytes_GET_SIZE(item))) {
            PyErr_SetString(PyExc_ValueError, "a string cannot hold a NUL");
            goto done;
        }
        total += PyBytes_GET_SIZE(item) + 1;
    }
    joined = PyBytes_FromStringAndSize(NULL, total);
    if (!joined)
        goto done;
    char *to = PyBytes_AS_STRING(joined);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items); i++) {
        PyObject *item = PyTuple_GET_ITEM(items, i);
        size_t len = (size_t)PyBytes_GET_SIZE(item) + 1; /* with Python's own NUL */
        memcpy(to, PyBytes_AS_STRING(item), len);
        to += len;
    }
done:
    Py_DECREF(items);
    return joined;
}

/* From Python to a text field. *keep holds what the field points into. */
static int text_field(PyObject *value, char letter, struct mkit_field *field, PyObject **keep)
{
    bool strings = PyTuple_Check(value) || PyList_Check(value);
    if (strings && letter != 'z')
        *keep = join_strings(value);
    else if (PyBytes_Check(value) && letter != 'a')
        *keep = Py_NewRef(value);
    else
        PyErr_Format(PyExc_TypeError, "expected %s, not %.100s",
                     letter == 'a' ? "a list of bytes" : "bytes", Py_TYPE(value)->tp_name);
    if (!*keep)
        return -1;
    field->text.at = PyBytes_AS_STRING(*keep);
    field->text.len = (size_t)PyBytes_GET_SIZE(*keep);
    if (letter == 'z' && memchr(field->text.at, 0, field->text.len)) {
        PyErr_SetString(PyExc_ValueError, "a string cannot hold a NUL");
        return -1;
    }
    if (field->text.len == 0 && (letter == 'a' || letter == 'b')) {
        PyErr_SetString(PyExc_ValueError, "it cannot be empty");
        return -1;
    }
    return 0;
}

/* From a text field to Python: bytes, or a tuple of them for layout letter a. */
static PyObject *text_object(char letter, struct mkit_text text)
{
    if (letter != 'a')
        return PyBytes_FromStringAndSize(text.at, (Py_ssize_t)text.len);
    PyObject *list = PyList_New(0);
    const char *string;
    while (list && (string = mkit_next_string(&text))) {
        PyObject *item = PyBytes_FromString(string);
        if (!item || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    PyObject *tuple = list ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return tuple;
}

static PyObject *field_object(char letter, const struct mkit_field *field)
{
    char byte = (char)field->number;
    switch (letter) {
    case 'u':
    case 'w': return PyLong_FromUnsignedLong(field->number);
    case 'c':
    case 'f': return PyBytes_FromStringAndSize(&byte, 1);
    default: return text_object(letter, field->text);
    }
}

/* ---------------------------------------------------------------------------------- encode */

PyDoc_STRVAR(
    encode_doc,
    "encode(direction, command, /, *fields) -> bytes\n--\n\n"
    "The bytes of one packet, with its length in front (protocol sheet 1.1).\n\n"
    "direction is TO_FILTER or TO_MTA, command one byte as bytes. The fields follow the\n"
    "packet's layout (see COMMANDS and REPLIES): int for u and w, one byte for c and f,\n"
    "bytes without NUL for z, a list of such bytes for a, bytes or such a list for * and b.\n"
    "Raises PacketError for an unknown command or a wrong number of fields; TypeError,\n"
    "ValueError or OverflowError for a field that does not suit.");

static PyObject *encode(PyObject *module, PyObject *args)
{
    struct module_state *state = PyModule_GetState(module);
    Py_ssize_t count = PyTuple_GET_SIZE(args) - 2;
    if (count < 0) {
        PyErr_SetString(PyExc_TypeError, "encode() needs a direction and a command");
        return NULL;
    }
    long number = PyLong_AsLong(PyTuple_GET_ITEM(args, 0));
    PyObject *code = PyTuple_GET_ITEM(args, 1);
    if (PyErr_Occurred() || !is_direction(number))
        return NULL;
    if (!PyBytes_Check(code) || PyBytes_GET_SIZE(code) != 1) {
        PyErr_SetString(PyExc_TypeError, "command must be a single byte");
        return NULL;
    }
    enum mkit_direction direction = (enum mkit_direction)number;
    uint8_t command = (uint8_t)PyBytes_AS_STRING(code)[0];
    const struct mkit_packet_kind *kind = mkit_packet_kind(direction, command);
    char unknown[8];
    if (!kind)
        return PyErr_Format(state->error, "%s: there is no such packet",
                            packet_name(direction, command, unknown));
    if (count > MKIT_MAX_FIELDS)
        return PyErr_Format(state->error, "%s: it has too many fields", kind->name);

    struct mkit_field fields[MKIT_MAX_FIELDS] = {{0}};
    PyObject *keep[MKIT_MAX_FIELDS] = {NULL};
    PyObject *packet = NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *value = PyTuple_GET_ITEM(args, i + 2);
        char letter = letter_of(kind->layout, (size_t)i);
        int failed = letter && strchr("uwcf", letter)
                         ? number_field(value, letter, &fields[i])
                         : letter && text_field(value, letter, &fields[i], &keep[i]);
        if (failed)
            goto done;
    }
    size_t len = mkit_encode(direction, command, fields, (size_t)count, NULL, 0);
    if (len == 0) {
        PyErr_Format(state->error, "%s: %zd fields do not suit its layout \"%s\"", kind->name,
                     count, kind->layout);
        goto done;
    }
    packet = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
    if (packet)
        (void)mkit_encode(direction, command, fields, (size_t)count,
                          (uint8_t *)PyBytes_AS_STRING(packet), len);
done:
    for (Py_ssize_t i = 0; i < count; i++)
        Py_XDECREF(keep[i]);
    return packet;
}

/* --------------------------------------------------------------------------------- Decoder */

static PyObject *decoder_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"direction", "limit", NULL};
    int direction;
    Py_ssize_t limit = DEFAULT_LIMIT;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i|n:Decoder", names, &direction, &limit) ||
        !is_direction(direction))
        return NULL;
    if (limit < 0) {
        PyErr_SetString(PyExc_ValueError, "limit must not be negative");
        return NULL;
    }
    struct decoder *self = (struct decoder *)PyType_GenericAlloc(type, 0);
    if (self) {
        self->direction = (enum mkit_direction)direction;
        self->limit = (size_t)limit;
    }
    return (PyObject *)self;
}

static void decoder_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyMem_Free(((struct decoder *)object)->at);
    type->tp_free(object);
    Py_DECREF(type);
}

PyDoc_STRVAR(feed_doc, "feed($self, data, /)\n--\n\n"
                       "Adds bytes of the stream; they are copied. Raises MemoryError.");

static PyObject *decoder_feed(PyObject *object, PyObject *data)
{
    struct decoder *self = (struct decoder *)object;
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    size_t more = (size_t)view.len;
    if (self->read) {
        memmove(self->at, self->at + self->read, self->len - self->read);
        self->len -= self->read;
        self->read = 0;
    }
    if (self->size - self->len < more) {
        size_t size = self->len + more > 2 * self->size ? self->len + more : 2 * self->size;
        uint8_t *at = PyMem_Realloc(self->at, size);
        if (!at) {
            PyBuffer_Release(&view);
            return PyErr_NoMemory();
        }
        self->at = at;
        self->size = size;
    }
    if (more)
        memcpy(self->at + self->len, view.buf, more);
    self->len += more;
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    next_doc,
    "next($self, /)\n--\n\n"
    "The next packet as a tuple (command, field, ...), or None until more bytes are fed.\n\n"
    "The fields are as encode() takes them; absent ones are left out. Raises PacketError\n"
    "for a length of 0 or above the limit (the stream is lost: every later call raises\n"
    "it again), an unknown command, or data that does not suit the packet's layout (that\n"
    "packet is skipped).");

static PyObject *decoder_next(PyObject *object, PyTypeObject *type, PyObject *const *args,
                              Py_ssize_t nargs, PyObject *kwnames)
{
    (void)args;
    if (nargs || kwnames) {
        PyErr_SetString(PyExc_TypeError, "next() takes no arguments");
        return NULL;
    }
    struct decoder *self = (struct decoder *)object;
    struct module_state *state = PyType_GetModuleState(type);
    struct mkit_packet packet = {0};
    char unknown[8];
    if (self->read == self->len)
        Py_RETURN_NONE;
    ssize_t used =
        mkit_frame_read(self->at + self->read, self->len - self->read, self->limit, &packet, NULL);
    if (used == 0)
        Py_RETURN_NONE;
    if (used == MKIT_EPROTOCOL)
        return PyErr_Format(state->error, "a packet of length 0");
    if (used < 0)
        return PyErr_Format(state->error, "%s: %zu bytes of data are more than the limit of %zu",
                            packet_name(self->direction, packet.command, unknown), packet.len,
                            self->limit);
    self->read += (size_t)used;

    struct mkit_field fields[MKIT_MAX_FIELDS];
    const char *why = "";
    int count = mkit_decode(self->direction, &packet, fields, &why);
    if (count < 0)
        return PyErr_Format(state->error, "%s: %s",
                            packet_name(self->direction, packet.command, unknown), why);
    const char *layout = mkit_packet_kind(self->direction, packet.command)->layout;
    PyObject *tuple = PyTuple_New(count + 1);
    if (!tuple)
        return NULL;
    for (int i = 0; i <= count; i++) {
        PyObject *item = i == 0 ? PyBytes_FromStringAndSize((const char *)&packet.command, 1)
                                : field_object(letter_of(layout, (size_t)i - 1), &fields[i - 1]);
        if (!item) {
            Py_DECREF(tuple);
            return NULL;
        }
        PyTuple_SET_ITEM(tuple, i, item);
    }
    return tuple;
}

static PyObject *decoder_get_pending(PyObject *object, void *closure)
{
    (void)closure;
    struct decoder *self = (struct decoder *)object;
    return PyLong_FromSize_t(self->len - self->read);
}

static PyObject *decoder_get_limit(PyObject *object, void *closure)
{
    (void)closure;
    return PyLong_FromSize_t(((struct decoder *)object)->limit);
}

static int decoder_set_limit(PyObject *object, PyObject *value, void *closure)
{
    (void)closure;
    if (!value) {
        PyErr_SetString(PyExc_TypeError, "limit cannot be deleted");
        return -1;
    }
    Py_ssize_t limit = PyLong_AsSsize_t(value);
    if (limit < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "limit must not be negative");
        return -1;
    }
    ((struct decoder *)object)->limit = (size_t)limit;
    return 0;
}

/* ---------------------------------------------------------------------------------- module */

PyDoc_STRVAR(decoder_doc, "Decoder(direction, limit=1048576)\n--\n\n"
                          "Packets out of a stream of bytes, of one direction.\n\n"
                          "limit: how many bytes of data one packet may have.");

static PyMethodDef decoder_methods[] = {
    {"feed", decoder_feed, METH_O, feed_doc},
    {"next", (PyCFunction)(void (*)(void))decoder_next, METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     next_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef decoder_attributes[] = {
    {"limit", decoder_get_limit, decoder_set_limit, "Bytes of data that one packet may have.",
     NULL},
    {"pending", decoder_get_pending, NULL, "How many fed bytes are not read yet.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot decoder_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t)decoder_doc},
    {Py_tp_new, decoder_new},
    {Py_tp_dealloc, decoder_dealloc},
    {Py_tp_methods, decoder_methods},
    {Py_tp_getset, decoder_attributes},
    {0, NULL},
};

static PyType_Spec decoder_spec = {
    .name = "Milter._wire.Decoder",
    .basicsize = sizeof(struct decoder),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = decoder_slots,
};

/* Adds `value` (stolen) under `name`. */
static int add(PyObject *module, const char *name, PyObject *value)
{
    int result = value ? PyModule_AddObjectRef(module, name, value) : -1;
    Py_XDECREF(value);
    return result;
}

/* The packets of one direction: {code: (name, layout)}. */
static PyObject *packets(enum mkit_direction direction)
{
    PyObject *dict = PyDict_New();
    for (int command = 0; dict && command <= UINT8_MAX; command++) {
        const struct mkit_packet_kind *kind = mkit_packet_kind(direction, (uint8_t)command);
        if (!kind)
            continue;
        PyObject *key = PyBytes_FromStringAndSize((const char *)&kind->command, 1);
        PyObject *value = Py_BuildValue("(ss)", kind->name, kind->layout);
        if (!key || !value || PyDict_SetItem(dict, key, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return dict;
}

/* The bits of one kind of flags: {name: bit}. */
static PyObject *flags(const char *(*name_of)(uint32_t bit))
{
    PyObject *dict = PyDict_New();
    for (unsigned i = 0; dict && i < 32; i++) {
        const char *name = name_of(UINT32_C(1) << i);
        PyObject *bit = name ? PyLong_FromUnsignedLong(1UL << i) : NULL;
        if (name && (!bit || PyDict_SetItemString(dict, name, bit) < 0))
            Py_CLEAR(dict);
        Py_XDECREF(bit);
    }
    return dict;
}

static int module_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->error = PyErr_NewExceptionWithDoc("Milter._wire.PacketError",
                                             "Bytes that are no packet, or fields that make none.",
                                             PyExc_ValueError, NULL);
    if (!state->error || PyModule_AddObjectRef(module, "PacketError", state->error) < 0)
        return -1;
    state->decoder = (PyTypeObject *)PyType_FromModuleAndSpec(module, &decoder_spec, NULL);
    if (!state->decoder || PyModule_AddType(module, state->decoder) < 0)
        return -1;
    static const struct {
        const char *name;
        long value;
    } numbers[] = {
        {"TO_FILTER", MKIT_TO_FILTER},
        {"TO_MTA", MKIT_TO_MTA},
        {"VERSION_MIN", MKIT_VERSION_MIN},
        {"VERSION_MAX", MKIT_VERSION_MAX},
        {"ALL_ACTIONS", MKIT_ALL_ACTIONS},
        {"ALL_PROTOCOL", MKIT_ALL_PROTOCOL},
        {"CHUNK", MKIT_CHUNK},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (PyModule_AddIntConstant(module, numbers[i].name, numbers[i].value) < 0)
            return -1;
    if (add(module, "COMMANDS", packets(MKIT_TO_FILTER)) < 0 ||
        add(module, "REPLIES", packets(MKIT_TO_MTA)) < 0 ||
        add(module, "ACTIONS", flags(mkit_action_name)) < 0 ||
        add(module, "PROTOCOL", flags(mkit_protocol_name)) < 0)
        return -1;
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = PyModule_GetState(module);
    Py_VISIT(state->error);
    Py_VISIT(state->decoder);
    return 0;
}

static int module_clear(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->error);
    Py_CLEAR(state->decoder);
    return 0;
}

static PyMethodDef module_methods[] = {
    {"encode", encode, METH_VARARGS, encode_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)(uintptr_t)module_exec},
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "Milter._wire",
    .m_doc = "The milter protocol's packets: from fields to bytes and back.",
    .m_size = sizeof(struct module_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__wire(void)
{
    return PyModuleDef_Init(&module_def);
}
