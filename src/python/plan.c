/* Plans: how the callbacks of a class are called, worked out once for each class and kept in it.
 * What a class means is decided in Python (Milter.plan); here it is made quick to use. */
#include "extension.h"

static int plan_traverse(struct plan_object *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->type);
    for (int i = 0; i < WATCHED; i++)
        Py_VISIT(self->attributes[i]);
    for (int i = 0; i < MKIT_STEPS; i++) {
        Py_VISIT(self->entries[i].function);
        Py_VISIT(self->entries[i].errors_owner);
    }
    return 0;
}

static int plan_clear(struct plan_object *self)
{
    Py_CLEAR(self->type);
    for (int i = 0; i < WATCHED; i++)
        Py_CLEAR(self->attributes[i]);
    for (int i = 0; i < MKIT_STEPS; i++) {
        Py_CLEAR(self->entries[i].function);
        Py_CLEAR(self->entries[i].errors_owner);
    }
    return 0;
}

static void plan_dealloc(struct plan_object *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)plan_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot plan_slots[] = {
    {Py_tp_doc, (void *)"How the callbacks of a class are called; made by the package Milter."},
    {Py_tp_traverse, plan_traverse},
    {Py_tp_clear, plan_clear},
    {Py_tp_dealloc, plan_dealloc},
    {0, NULL},
};

PyType_Spec plan_spec = {
    .name = "milter._Plan",
    .basicsize = sizeof(struct plan_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = plan_slots,
};

/* An attribute of a class, or NULL without an exception. */
static PyObject *attribute_of(PyTypeObject *type, PyObject *name)
{
    PyObject *found = PyObject_GetAttr((PyObject *)type, name);
    if (!found)
        PyErr_Clear();
    return found;
}

/* Whether the class still has the methods that the plan was made for. */
static bool is_true(const struct module_state *state, const struct plan_object *plan,
                    PyTypeObject *type)
{
    if (plan->type != type)
        return false;
    for (int i = 0; i < WATCHED; i++) {
        PyObject *now = attribute_of(type, state->watched[i]);
        bool same = now == plan->attributes[i];
        Py_XDECREF(now);
        if (!same)
            return false;
    }
    return true;
}

/* Fills an entry from what the planner says: None, or (name or function, NR_* bit, strategy). */
static int fill_entry(struct plan_entry *entry, PyObject *said)
{
    PyObject *function;
    unsigned long no_reply;
    const char *strategy;
    if (said == Py_None)
        return 0;
    if (!PyTuple_Check(said)) {
        PyErr_SetString(PyExc_TypeError, "a planner's entry must be None or a tuple");
        return -1;
    }
    if (!PyArg_ParseTuple(said, "Oks", &function, &no_reply, &strategy))
        return -1;
    entry->function = Py_NewRef(function);
    entry->no_reply = (uint32_t)no_reply;
    entry->errors_owner = Py_NewRef(PyTuple_GET_ITEM(said, 2));
    entry->errors = strategy;
    entry->decoding = strcmp(strategy, "bytes") == 0    ? DECODE_NONE
                      : strcmp(strategy, "strict") == 0 ? DECODE_STRICT
                                                        : DECODE_ERRORS;
    return 0;
}

static struct plan_object *make_plan(struct module_state *state, PyTypeObject *type,
                                     PyObject *planner)
{
    struct plan_object *plan = PyObject_GC_New(struct plan_object, state->plan_type);
    if (!plan)
        return NULL;
    memset((char *)plan + sizeof(PyObject), 0, sizeof *plan - sizeof(PyObject));
    plan->type = (PyTypeObject *)Py_NewRef((PyObject *)type);
    PyObject_GC_Track(plan);
    for (int i = 0; i < WATCHED; i++)
        plan->attributes[i] = attribute_of(type, state->watched[i]);
    PyObject *said = PyObject_CallOneArg(planner, (PyObject *)type);
    PyObject *fast = said ? PySequence_Fast(said, "a planner must return a sequence") : NULL;
    bool good = fast != NULL;
    if (good && PySequence_Fast_GET_SIZE(fast) != MKIT_STEPS) {
        PyErr_SetString(PyExc_TypeError, "a planner must return one entry for each step");
        good = false;
    }
    for (int i = 0; good && i < MKIT_STEPS; i++)
        good = fill_entry(&plan->entries[i], PySequence_Fast_GET_ITEM(fast, i)) == 0;
    Py_XDECREF(fast);
    Py_XDECREF(said);
    if (!good)
        Py_CLEAR(plan);
    return plan;
}

struct plan_object *plan_of(struct module_state *state, PyTypeObject *type, PyObject *planner)
{
    PyObject *kept = attribute_of(type, state->plan_name);
    if (kept && Py_IS_TYPE(kept, state->plan_type) &&
        is_true(state, (struct plan_object *)kept, type))
        return (struct plan_object *)kept;
    Py_XDECREF(kept);
    struct plan_object *plan = make_plan(state, type, planner);
    if (plan && PyObject_SetAttr((PyObject *)type, state->plan_name, (PyObject *)plan) < 0)
        PyErr_Clear(); /* a class that cannot be changed: planned anew each time */
    return plan;
}
