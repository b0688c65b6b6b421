/* The Python face of multi-index hashing: checks every argument, so that the C behind it can trust its own. */
#include "kernel.h"
#include "mih.h"

#include <stdlib.h>

/* Fills the layout; -1 with an error where the arguments make none. */
static int layout_of(ug_mih *index, Py_ssize_t rows, Py_ssize_t code_bytes, Py_ssize_t tables)
{
    if (rows < 0 || code_bytes < 0 || tables < 0 || tables > UG_MIH_MAX_TABLES ||
        ug_mih_layout(index, (size_t)rows, (size_t)code_bytes, (unsigned)tables) < 0) {
        PyErr_Format(PyExc_ValueError, "no index of %zd rows of %zd bytes in %zd tables can be made", rows, code_bytes,
                     tables);
        return -1;
    }
    return 0;
}

static int check_length(const Py_buffer *buffer, size_t expected, const char *what)
{
    if ((size_t)buffer->len != expected) {
        PyErr_Format(PyExc_ValueError, "%s must hold %zu bytes, not %zd", what, expected, buffer->len);
        return -1;
    }
    return 0;
}

static int check_aligned(const Py_buffer *buffer, const char *what)
{
    if ((uintptr_t)buffer->buf % sizeof(uint32_t) != 0) {
        PyErr_Format(PyExc_ValueError, "%s must be aligned to 4 bytes", what);
        return -1;
    }
    return 0;
}

static PyObject *mih_layout(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_ssize_t rows, code_bytes, tables;
    ug_mih index;
    if (!PyArg_ParseTuple(arguments, "nnn:mih_layout", &rows, &code_bytes, &tables) ||
        layout_of(&index, rows, code_bytes, tables) < 0)
        return NULL;
    PyObject *starts = PyTuple_New(tables + 1);
    for (Py_ssize_t t = 0; starts != NULL && t <= tables; t++) {
        PyObject *start = PyLong_FromSize_t(index.first_offset[t]);
        if (start == NULL || PyTuple_SetItem(starts, t, start) < 0)
            Py_CLEAR(starts);
    }
    return starts;
}

static PyObject *mih_build_table(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer codes, offsets, row_ids;
    Py_ssize_t code_bytes, tables, table;
    if (!PyArg_ParseTuple(arguments, "y*nnnw*w*:mih_build_table", &codes, &code_bytes, &tables, &table, &offsets,
                          &row_ids))
        return NULL;
    ug_mih index;
    Py_ssize_t rows = code_bytes > 0 ? codes.len / code_bytes : -1;
    PyObject *result = NULL;
    if (layout_of(&index, rows, code_bytes, tables) < 0)
        goto done;
    if (table < 0 || table >= tables) {
        PyErr_SetString(PyExc_ValueError, "there is no such table");
        goto done;
    }
    size_t offset_count = index.first_offset[table + 1] - index.first_offset[table];
    if (check_length(&codes, (size_t)rows * (size_t)code_bytes, "codes") < 0 ||
        check_length(&offsets, offset_count * sizeof(uint32_t), "offsets") < 0 ||
        check_length(&row_ids, (size_t)rows * sizeof(uint32_t), "row_ids") < 0 ||
        check_aligned(&offsets, "offsets") < 0 || check_aligned(&row_ids, "row_ids") < 0)
        goto done;
    index.codes = codes.buf;
    Py_BEGIN_ALLOW_THREADS
    ug_mih_build_table(&index, (unsigned)table, offsets.buf, row_ids.buf);
    Py_END_ALLOW_THREADS
    result = Py_None;
    Py_INCREF(result);
done:
    PyBuffer_Release(&codes);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&row_ids);
    return result;
}

static PyObject *mih_cost(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_ssize_t rows, code_bytes, tables, max_distance_bits;
    ug_mih index;
    double probes, candidates;
    if (!PyArg_ParseTuple(arguments, "nnnn:mih_cost", &rows, &code_bytes, &tables, &max_distance_bits) ||
        layout_of(&index, rows, code_bytes, tables) < 0)
        return NULL;
    if (max_distance_bits < 0)
        return PyErr_Format(PyExc_ValueError, "max_distance_bits is %zd; it must be 0 or more", max_distance_bits);
    Py_ssize_t bits = 8 * code_bytes;
    ug_mih_cost(&index, (unsigned)(max_distance_bits < bits ? max_distance_bits : bits), &probes, &candidates);
    return Py_BuildValue("dd", probes, candidates);
}

static PyObject *mih_query(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer codes, offsets, row_ids, queries;
    Py_ssize_t code_bytes, tables, max_distance_bits, max_candidates;
    if (!PyArg_ParseTuple(arguments, "y*nny*y*y*nn:mih_query", &codes, &code_bytes, &tables, &offsets, &row_ids,
                          &queries, &max_distance_bits, &max_candidates))
        return NULL;
    ug_mih index;
    Py_ssize_t rows = code_bytes > 0 ? codes.len / code_bytes : -1;
    PyObject *packed = NULL;
    if (layout_of(&index, rows, code_bytes, tables) < 0)
        goto done;
    if (check_length(&codes, (size_t)rows * (size_t)code_bytes, "codes") < 0 ||
        check_length(&offsets, index.first_offset[tables] * sizeof(uint32_t), "offsets") < 0 ||
        check_length(&row_ids, (size_t)tables * (size_t)rows * sizeof(uint32_t), "row_ids") < 0 ||
        check_aligned(&offsets, "offsets") < 0 || check_aligned(&row_ids, "row_ids") < 0)
        goto done;
    if (max_distance_bits < 0 || max_candidates < 0 || queries.len % code_bytes != 0 || queries.len / code_bytes > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "queries must be whole codes, max_distance_bits and max_candidates 0 or more");
        goto done;
    }
    index.codes = codes.buf;
    index.offsets = offsets.buf;
    index.row_ids = row_ids.buf;
    unsigned limit = (unsigned)(max_distance_bits < 8 * code_bytes ? max_distance_bits : 8 * code_bytes);
    ug_hits hits = {NULL, 0, 0};
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = ug_mih_query(&index, queries.buf, (size_t)(queries.len / code_bytes), limit,
                          (size_t)max_candidates, &hits);
    Py_END_ALLOW_THREADS
    if (status == 1) {
        packed = Py_None;
        Py_INCREF(packed);
    } else if (status == -2)
        PyErr_SetString(PyExc_ValueError, "the tables are damaged");
    else if (status < 0 || hits.count > (size_t)PY_SSIZE_T_MAX / sizeof *hits.items)
        PyErr_NoMemory();
    else
        packed = PyBytes_FromStringAndSize((const char *)hits.items, (Py_ssize_t)(hits.count * sizeof *hits.items));
    free(hits.items);
done:
    PyBuffer_Release(&codes);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&row_ids);
    PyBuffer_Release(&queries);
    return packed;
}

PyMethodDef ug_mih_methods[] = {
    {"mih_layout", mih_layout, METH_VARARGS,
     "mih_layout(rows, code_bytes, tables) -> where each table's offsets start, and how many there are in all"},
    {"mih_build_table", mih_build_table, METH_VARARGS,
     "mih_build_table(codes, code_bytes, tables, table, offsets, row_ids): fill one table's offsets and rows"},
    {"mih_cost", mih_cost, METH_VARARGS,
     "mih_cost(rows, code_bytes, tables, max_distance_bits) -> (probes, expected candidates) of one query"},
    {"mih_query", mih_query, METH_VARARGS,
     "mih_query(codes, code_bytes, tables, offsets, row_ids, queries, max_distance_bits, max_candidates)\n"
     "-> packed (query, row, distance) triples, or None if there are more candidates"},
    {NULL, NULL, 0, NULL},
};
