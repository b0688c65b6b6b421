/* The Python face of the look-ups: checks every argument, so that the C behind it can trust its own. */
#include "kernel.h"
#include "search.h"

#include <stdlib.h>

static const Py_ssize_t MAX_RECORD_BYTES = 64;

/* How many records of record_bytes a buffer holds; -1 with an error where it is not a whole number of them. */
static Py_ssize_t count_records(const Py_buffer *buffer, Py_ssize_t record_bytes, const char *what)
{
    if (buffer->len % record_bytes != 0) {
        PyErr_Format(PyExc_ValueError, "%s holds %zd bytes, which is not a multiple of %zd", what, buffer->len,
                     record_bytes);
        return -1;
    }
    return buffer->len / record_bytes;
}

static int check_rows(Py_ssize_t rows, const char *what)
{
    if ((uint64_t)rows > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "%s holds %zd rows; at most 4294967295 can be numbered", what, rows);
        return -1;
    }
    return 0;
}

static PyObject *scan_buffers(const Py_buffer *codes, Py_ssize_t code_bytes, const Py_buffer *queries,
                              Py_ssize_t max_distance_bits)
{
    if (code_bytes != 8 && code_bytes != 32)
        return PyErr_Format(PyExc_ValueError, "codes of %zd bytes are not supported; use 8 or 32", code_bytes);
    if (max_distance_bits < 0)
        return PyErr_Format(PyExc_ValueError, "max_distance_bits is %zd; it must be 0 or more", max_distance_bits);
    Py_ssize_t rows = count_records(codes, code_bytes, "codes");
    if (rows < 0 || check_rows(rows, "codes") < 0)
        return NULL;
    Py_ssize_t query_count = count_records(queries, code_bytes, "queries");
    if (query_count < 0 || check_rows(query_count, "queries") < 0)
        return NULL;
    unsigned limit = (unsigned)(max_distance_bits < 8 * code_bytes ? max_distance_bits : 8 * code_bytes);
    ug_hits hits = {NULL, 0, 0};
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = ug_hamming_scan(codes->buf, (size_t)rows, (size_t)code_bytes, queries->buf, (size_t)query_count, limit,
                             &hits);
    Py_END_ALLOW_THREADS
    PyObject *packed = NULL;
    if (status < 0 || hits.count > (size_t)PY_SSIZE_T_MAX / sizeof *hits.items)
        PyErr_NoMemory();
    else
        packed = PyBytes_FromStringAndSize((const char *)hits.items, (Py_ssize_t)(hits.count * sizeof *hits.items));
    free(hits.items);
    return packed;
}

static PyObject *hamming_scan(PyObject *module, PyObject *arguments)
{
    (void)module;
    Py_buffer codes, queries;
    Py_ssize_t code_bytes, max_distance_bits;
    if (!PyArg_ParseTuple(arguments, "y*ny*n:hamming_scan", &codes, &code_bytes, &queries, &max_distance_bits))
        return NULL;
    PyObject *packed = scan_buffers(&codes, code_bytes, &queries, max_distance_bits);
    PyBuffer_Release(&codes);
    PyBuffer_Release(&queries);
    return packed;
}

/* How many records there are to search; -1 with an error where their length or the buffer's is wrong. */
static Py_ssize_t count_searched(const Py_buffer *records, Py_ssize_t record_bytes)
{
    if (record_bytes < 1 || record_bytes > MAX_RECORD_BYTES) {
        PyErr_Format(PyExc_ValueError, "records of %zd bytes are not supported; use 1 to %zd", record_bytes,
                     MAX_RECORD_BYTES);
        return -1;
    }
    return count_records(records, record_bytes, "records");
}

static PyObject *find_one(const Py_buffer *records, Py_ssize_t record_bytes, const Py_buffer *key)
{
    Py_ssize_t rows = count_searched(records, record_bytes);
    if (rows < 0)
        return NULL;
    if (key->len != record_bytes)
        return PyErr_Format(PyExc_ValueError, "key holds %zd bytes, records %zd each", key->len, record_bytes);
    size_t low, high;
    Py_BEGIN_ALLOW_THREADS
    ug_exact_find(records->buf, (size_t)rows, (size_t)record_bytes, key->buf, &low, &high);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("nn", (Py_ssize_t)low, (Py_ssize_t)high);
}

static PyObject *find_many(const Py_buffer *records, Py_ssize_t record_bytes, const Py_buffer *keys)
{
    Py_ssize_t rows = count_searched(records, record_bytes);
    if (rows < 0)
        return NULL;
    Py_ssize_t key_count = count_records(keys, record_bytes, "keys");
    if (key_count < 0)
        return NULL;
    if (key_count > PY_SSIZE_T_MAX / (Py_ssize_t)(2 * sizeof(uint64_t)))
        return PyErr_NoMemory();
    size_t answer_bytes = (size_t)key_count * 2 * sizeof(uint64_t);
    uint64_t *ranges = malloc(answer_bytes ? answer_bytes : 1);
    if (ranges == NULL)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < key_count; i++) {
        const uint8_t *key = (const uint8_t *)keys->buf + i * record_bytes;
        size_t low, high;
        ug_exact_find(records->buf, (size_t)rows, (size_t)record_bytes, key, &low, &high);
        ranges[2 * i] = low;
        ranges[2 * i + 1] = high;
    }
    Py_END_ALLOW_THREADS
    PyObject *packed = PyBytes_FromStringAndSize((const char *)ranges, (Py_ssize_t)answer_bytes);
    free(ranges);
    return packed;
}

typedef PyObject *find_function(const Py_buffer *records, Py_ssize_t record_bytes, const Py_buffer *keys);

static PyObject *parse_and_find(PyObject *arguments, const char *format, find_function *find)
{
    Py_buffer records, keys;
    Py_ssize_t record_bytes;
    if (!PyArg_ParseTuple(arguments, format, &records, &record_bytes, &keys))
        return NULL;
    PyObject *found = find(&records, record_bytes, &keys);
    PyBuffer_Release(&records);
    PyBuffer_Release(&keys);
    return found;
}

static PyObject *exact_find(PyObject *module, PyObject *arguments)
{
    (void)module;
    return parse_and_find(arguments, "y*ny*:exact_find", find_one);
}

static PyObject *exact_find_many(PyObject *module, PyObject *arguments)
{
    (void)module;
    return parse_and_find(arguments, "y*ny*:exact_find_many", find_many);
}

PyDoc_STRVAR(hamming_scan_doc, "hamming_scan(codes, code_bytes, queries, max_distance_bits)\n--\n\n"
             "Every (query, row, distance) within the limit, as packed native uint32 triples in no set order.");
PyDoc_STRVAR(exact_find_doc, "exact_find(records, record_bytes, key)\n--\n\n"
             "The range (low, high) of rows equal to the key among sorted records.");
PyDoc_STRVAR(exact_find_many_doc, "exact_find_many(records, record_bytes, keys)\n--\n\n"
             "The range of each key, as packed native uint64 pairs (low, high).");

PyMethodDef ug_search_methods[] = {
    {"hamming_scan", hamming_scan, METH_VARARGS, hamming_scan_doc},
    {"exact_find", exact_find, METH_VARARGS, exact_find_doc},
    {"exact_find_many", exact_find_many, METH_VARARGS, exact_find_many_doc},
    {NULL, NULL, 0, NULL},
};
