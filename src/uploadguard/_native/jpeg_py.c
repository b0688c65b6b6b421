/* Finds the end of a JPEG's entropy-coded data, where 0xFF is followed by 0x00 or begins a restart marker. */
#include "kernel.h"

#include <stdint.h>
#include <string.h>

typedef struct {
    Py_ssize_t end;
    Py_ssize_t restarts;
    int in_order;
} scan;

static scan find_end(const uint8_t *data, Py_ssize_t length, Py_ssize_t start)
{
    scan found = {length, 0, 1};
    const uint8_t *at = data + start, *stop = data + length;
    while (at < stop && (at = memchr(at, 0xFF, (size_t)(stop - at))) != NULL && at + 1 < stop) {
        uint8_t code = at[1];
        if (code == 0xFF) { /* a fill byte */
            at += 1;
        } else if (code == 0x00) {
            at += 2;
        } else if (code >= 0xD0 && code <= 0xD7) {
            if ((code & 7) != (found.restarts & 7))
                found.in_order = 0;
            found.restarts += 1;
            at += 2;
        } else {
            found.end = at - data;
            break;
        }
    }
    return found;
}

static PyObject *jpeg_scan_end(PyObject *module, PyObject *arguments)
{
    (void)module;
    Py_buffer data;
    Py_ssize_t start;
    if (!PyArg_ParseTuple(arguments, "y*n:jpeg_scan_end", &data, &start))
        return NULL;
    if (start < 0 || start > data.len) {
        PyBuffer_Release(&data);
        PyErr_SetString(PyExc_ValueError, "start lies outside the data");
        return NULL;
    }
    scan found;
    Py_BEGIN_ALLOW_THREADS
    found = find_end(data.buf, data.len, start);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    return Py_BuildValue("(nnO)", found.end, found.restarts, found.in_order ? Py_True : Py_False);
}

PyDoc_STRVAR(jpeg_scan_end_doc, "jpeg_scan_end(data, start)\n--\n\n"
             "Where the entropy-coded data from start on ends, its restart markers, and whether these count 0 to 7 in turn.");

PyMethodDef ug_jpeg_methods[] = {
    {"jpeg_scan_end", jpeg_scan_end, METH_VARARGS, jpeg_scan_end_doc},
    {NULL, NULL, 0, NULL},
};
