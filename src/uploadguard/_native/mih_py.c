/* The Python face of multi-index hashing: checks every argument, so that the C behind it can trust its own. */
#include "kernel.h"
#include "mih.h"

#include <stdlib.h>

/* Fills the layout; -1 with an error where the arguments make none. */
static int layout_of(ug_mih *index, Py_ssize_t rows, Py_ssize_t code_bytes, Py_ssize_t tables, Py_ssize_t line_bits)
{
    if (rows < 0 || code_bytes < 0 || tables < 0 || tables > UG_MIH_MAX_TABLES || line_bits < 0 ||
        line_bits > UG_MIH_MAX_LINE_BITS ||
        ug_mih_layout(index, (size_t)rows, (size_t)code_bytes, (unsigned)tables, (unsigned)line_bits) < 0) {
        PyErr_Format(PyExc_ValueError, "no index of %zd rows of %zd bytes in %zd tables of 2^%zd lines can be made", rows,
                     code_bytes, tables, line_bits);
        return -1;
    }
    return 0;
}

static size_t line_bytes(const ug_mih *index)
{
    return (sizeof(uint32_t) * UG_MIH_LINE_WORDS) << index->line_bits;
}

/* Checks that a buffer of 32-bit words has that many bytes and is aligned. */
static int check_words(const Py_buffer *buffer, size_t expected_bytes, const char *what)
{
    if ((size_t)buffer->len != expected_bytes) {
        PyErr_Format(PyExc_ValueError, "%s must hold %zu bytes, not %zd", what, expected_bytes, buffer->len);
        return -1;
    }
    if ((uintptr_t)buffer->buf % sizeof(uint32_t) != 0) {
        PyErr_Format(PyExc_ValueError, "%s must be aligned to 4 bytes", what);
        return -1;
    }
    return 0;
}

static int layout_of_codes(ug_mih *index, const Py_buffer *codes, Py_ssize_t code_bytes, Py_ssize_t tables,
                           Py_ssize_t line_bits)
{
    if (layout_of(index, code_bytes > 0 ? codes->len / code_bytes : -1, code_bytes, tables, line_bits) < 0)
        return -1;
    if (codes->len % code_bytes != 0) {
        PyErr_SetString(PyExc_ValueError, "codes must be whole codes");
        return -1;
    }
    index->codes = codes->buf;
    return 0;
}

static PyObject *mih_cost(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_ssize_t rows, code_bytes, tables, line_bits, max_distance_bits;
    ug_mih index;
    double lines, candidates;
    if (!PyArg_ParseTuple(arguments, "nnnnn:mih_cost", &rows, &code_bytes, &tables, &line_bits, &max_distance_bits) ||
        layout_of(&index, rows, code_bytes, tables, line_bits) < 0)
        return NULL;
    if (max_distance_bits < 0)
        return PyErr_Format(PyExc_ValueError, "max_distance_bits is %zd; it must be 0 or more", max_distance_bits);
    Py_ssize_t bits = 8 * code_bytes;
    ug_mih_cost(&index, (unsigned)(max_distance_bits < bits ? max_distance_bits : bits), &lines, &candidates);
    return Py_BuildValue("dd", lines, candidates);
}

static PyObject *mih_query(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer codes, lines, overflow, queries;
    Py_ssize_t code_bytes, tables, line_bits, max_distance_bits, max_candidates;
    if (!PyArg_ParseTuple(arguments, "y*nnny*y*y*nn:mih_query", &codes, &code_bytes, &tables, &line_bits, &lines,
                          &overflow, &queries, &max_distance_bits, &max_candidates))
        return NULL;
    ug_mih index;
    PyObject *packed = NULL;
    if (layout_of_codes(&index, &codes, code_bytes, tables, line_bits) < 0 ||
        check_words(&lines, (size_t)tables * line_bytes(&index), "lines") < 0 ||
        check_words(&overflow, (size_t)overflow.len / sizeof(uint32_t) * sizeof(uint32_t), "overflow") < 0)
        goto done;
    if (max_distance_bits < 0 || max_candidates < 0 || queries.len % code_bytes != 0 ||
        (uint64_t)(queries.len / code_bytes) > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "queries must be whole codes, max_distance_bits and max_candidates 0 or more");
        goto done;
    }
    index.lines = lines.buf;
    index.overflow = overflow.buf;
    index.overflow_words = (size_t)overflow.len / sizeof(uint32_t);
    unsigned limit = (unsigned)(max_distance_bits < 8 * code_bytes ? max_distance_bits : 8 * code_bytes);
    ug_hits hits = {NULL, 0, 0};
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = ug_mih_query(&index, queries.buf, (size_t)(queries.len / code_bytes), limit, (size_t)max_candidates, &hits);
    Py_END_ALLOW_THREADS
    if (status == 1) {
        packed = Py_None;
        Py_INCREF(packed);
    } else if (status == -2) {
        PyErr_SetString(PyExc_ValueError, "the tables are damaged");
    } else if (status < 0 || hits.count > (size_t)PY_SSIZE_T_MAX / sizeof *hits.items) {
        PyErr_NoMemory();
    } else {
        packed = PyBytes_FromStringAndSize((const char *)hits.items, (Py_ssize_t)(hits.count * sizeof *hits.items));
    }
    free(hits.items);
done:
    PyBuffer_Release(&codes);
    PyBuffer_Release(&lines);
    PyBuffer_Release(&overflow);
    PyBuffer_Release(&queries);
    return packed;
}

PyMethodDef ug_mih_methods[] = {
    {"mih_cost", mih_cost, METH_VARARGS,
     "mih_cost(rows, code_bytes, tables, line_bits, max_distance_bits) -> (lines, expected candidates) of one query"},
    {"mih_query", mih_query, METH_VARARGS,
     "mih_query(codes, code_bytes, tables, line_bits, lines, overflow, queries, max_distance_bits, max_candidates)\n"
     "-> packed (query, row, distance) triples, or None if there are more candidates"},
    {NULL, NULL, 0, NULL},
};
