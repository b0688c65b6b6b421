/* The Python face of the sandbox: one function a step, errno as OSError. */
#include "kernel.h"
#include "sandbox.h"

static PyObject *done(int status)
{
    if (status < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_INCREF(Py_None);
    return Py_None;
}

static PyObject *py_probe(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(arguments))
{
    return Py_BuildValue("Oi", ug_seccomp_available() ? Py_True : Py_False, ug_landlock_abi());
}

static PyObject *py_state(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(arguments))
{
    ug_process_state state;
    if (ug_read_state(&state) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return Py_BuildValue("OOOO", state.non_dumpable ? Py_True : Py_False, state.dies_with_parent ? Py_True : Py_False,
                         state.no_new_privs ? Py_True : Py_False, state.no_capabilities ? Py_True : Py_False);
}

static PyObject *py_try_thread(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(arguments))
{
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = ug_try_thread();
    Py_END_ALLOW_THREADS
    return done(status);
}

static PyObject *py_die_with_parent(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(arguments))
{
    return done(ug_die_with_parent());
}

static PyObject *py_make_non_dumpable(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(arguments))
{
    return done(ug_make_non_dumpable());
}

static PyObject *py_drop_capabilities(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(arguments))
{
    return done(ug_drop_capabilities());
}

static PyObject *py_set_no_new_privs(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(arguments))
{
    return done(ug_set_no_new_privs());
}

static PyObject *py_restrict_landlock(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    int abi;
    if (!PyArg_ParseTuple(arguments, "i:sandbox_restrict_landlock", &abi))
        return NULL;
    return done(ug_restrict_landlock(abi));
}

static PyObject *py_filter_calls(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(arguments))
{
    return done(ug_filter_calls());
}

PyMethodDef ug_sandbox_methods[] = {
    {"sandbox_probe", py_probe, METH_NOARGS, "sandbox_probe() -> (whether calls can be filtered, Landlock's version or 0)"},
    {"sandbox_state", py_state, METH_NOARGS,
     "sandbox_state() -> (non-dumpable, dies with its parent, no new privileges, no capabilities)"},
    {"sandbox_try_thread", py_try_thread, METH_NOARGS, "Start a thread that ends at once."},
    {"sandbox_die_with_parent", py_die_with_parent, METH_NOARGS, "Have the kernel kill this process after its parent."},
    {"sandbox_make_non_dumpable", py_make_non_dumpable, METH_NOARGS, "Keep others of the same user out of this process."},
    {"sandbox_drop_capabilities", py_drop_capabilities, METH_NOARGS, "Give up this thread's capabilities."},
    {"sandbox_set_no_new_privs", py_set_no_new_privs, METH_NOARGS, "Never gain privileges by exec."},
    {"sandbox_restrict_landlock", py_restrict_landlock, METH_VARARGS,
     "sandbox_restrict_landlock(abi): give up every right that this version of Landlock knows"},
    {"sandbox_filter_calls", py_filter_calls, METH_NOARGS, "Allow only the system calls that decoding needs."},
    {NULL, NULL, 0, NULL},
};
