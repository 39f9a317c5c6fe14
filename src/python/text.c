/* Bytes and str: UTF-8 with surrogateescape in both directions, so that nothing is ever lost. */
#include "extension.h"

#include <string.h>

PyObject *text_decode(const char *at, size_t len)
{
    return PyUnicode_DecodeUTF8(at, (Py_ssize_t)len, "surrogateescape");
}

const char *text_argument(struct module_state *state, PyObject *object, const char *call,
                          const char *what, PyObject **holder)
{
    const char *text = NULL;
    Py_ssize_t len = 0;
    *holder = NULL;
    if (PyUnicode_Check(object)) {
        text = PyUnicode_AsUTF8AndSize(object, &len);
        if (text) {
            *holder = Py_NewRef(object);
        } else {
            PyErr_Clear();
            *holder = PyUnicode_AsEncodedString(object, "utf-8", "surrogateescape");
            if (!*holder)
                return NULL;
        }
    } else if (PyBytes_Check(object)) {
        *holder = Py_NewRef(object);
    } else {
        PyErr_Format(PyExc_TypeError, "%s: %s must be str or bytes, not %.100s", call, what,
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    if (!text) {
        text = PyBytes_AS_STRING(*holder);
        len = PyBytes_GET_SIZE(*holder);
    }
    if (memchr(text, '\0', (size_t)len)) {
        PyErr_Format(state->error, "%s: %s has a NUL in it: MTAs would cut it there", call, what);
        Py_CLEAR(*holder);
        return NULL;
    }
    return text;
}
