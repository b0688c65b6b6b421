/* The Python face of building indexes in parts: checks every argument, so that the C behind it can trust its own. */
#include "exact_merge.h"
#include "kernel.h"
#include "mih_build.h"

enum { MAX_RECORD_BYTES = 64 };

/* How many items of that size a buffer holds; -1 with an error if it is not whole items, or not aligned for them. */
static Py_ssize_t count_items(const Py_buffer *buffer, size_t item_bytes, size_t alignment, const char *what)
{
    if ((size_t)buffer->len % item_bytes != 0 || (uintptr_t)buffer->buf % alignment != 0) {
        PyErr_Format(PyExc_ValueError, "%s must be whole items of %zu bytes, aligned to %zu", what, item_bytes, alignment);
        return -1;
    }
    return (Py_ssize_t)((size_t)buffer->len / item_bytes);
}

static Py_ssize_t count_words(const Py_buffer *buffer, const char *what)
{
    return count_items(buffer, sizeof(uint32_t), sizeof(uint32_t), what);
}

static PyObject *mih_key_bits(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_ssize_t code_bytes, tables, line_bits;
    if (!PyArg_ParseTuple(arguments, "nnn:mih_key_bits", &code_bytes, &tables, &line_bits))
        return NULL;
    ug_mih index;
    if (code_bytes < 0 || tables < 0 || tables > UG_MIH_MAX_TABLES || line_bits < 0 || line_bits > UG_MIH_MAX_LINE_BITS ||
        ug_mih_layout(&index, 0, (size_t)code_bytes, (unsigned)tables, (unsigned)line_bits) < 0) {
        PyErr_SetString(PyExc_ValueError, "no such tables can be made");
        return NULL;
    }
    PyObject *found = PyTuple_New(tables);
    for (Py_ssize_t table = 0; found != NULL && table < tables; table++) {
        PyObject *bits = PyLong_FromUnsignedLong(index.key_bits[table]);
        if (bits == NULL || PyTuple_SetItem(found, table, bits) < 0) {
            Py_DECREF(found);
            return NULL;
        }
    }
    return found;
}

static PyObject *mih_keys(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer codes, keys;
    Py_ssize_t code_bytes, tables, line_bits, table;
    if (!PyArg_ParseTuple(arguments, "y*nnnnw*:mih_keys", &codes, &code_bytes, &tables, &line_bits, &table, &keys))
        return NULL;
    ug_mih index;
    PyObject *result = NULL;
    Py_ssize_t rows = count_words(&keys, "keys");
    if (rows < 0)
        goto done;
    if (code_bytes <= 0 || codes.len % code_bytes != 0 || codes.len / code_bytes != rows || tables < 0 ||
        tables > UG_MIH_MAX_TABLES || line_bits < 0 || line_bits > UG_MIH_MAX_LINE_BITS || table < 0 || table >= tables ||
        ug_mih_layout(&index, (size_t)rows, (size_t)code_bytes, (unsigned)tables, (unsigned)line_bits) < 0) {
        PyErr_SetString(PyExc_ValueError, "codes, keys and table do not fit each other");
        goto done;
    }
    index.codes = codes.buf;
    Py_BEGIN_ALLOW_THREADS
    ug_mih_keys(&index, (unsigned)table, keys.buf);
    Py_END_ALLOW_THREADS
    result = Py_None;
    Py_INCREF(result);
done:
    PyBuffer_Release(&codes);
    PyBuffer_Release(&keys);
    return result;
}

/* Fills in the block; -1 with an error where the buffers do not fit it. */
static int block_of(ug_mih_block *block, const Py_buffer *keys, Py_ssize_t low_bits, Py_ssize_t first_line,
                    const Py_buffer *places, const Py_buffer *lines)
{
    Py_ssize_t rows = count_words(keys, "keys"), values = count_words(places, "places");
    Py_ssize_t line_count = count_items(lines, sizeof(uint32_t) * UG_MIH_LINE_WORDS, sizeof(uint32_t), "lines");
    if (rows < 0 || values < 0 || line_count < 0)
        return -1;
    const Py_ssize_t most_lines = (Py_ssize_t)1 << UG_MIH_MAX_LINE_BITS;
    if (rows > INT32_MAX || low_bits < 0 || low_bits > UG_MIH_MAX_LOW_BITS || line_count < 1 || first_line < 0 ||
        line_count > most_lines || first_line > most_lines - line_count || values != line_count << low_bits ||
        (first_line + line_count) << low_bits > (Py_ssize_t)1 << UG_MIH_MAX_KEY_BITS) {
        PyErr_SetString(PyExc_ValueError, "keys, places and lines do not fit each other");
        return -1;
    }
    *block = (ug_mih_block){keys->buf, (size_t)rows, (size_t)first_line, (size_t)line_count, (unsigned)low_bits};
    return 0;
}

static PyObject *mih_place(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer keys, places, lines;
    Py_ssize_t low_bits, first_line;
    if (!PyArg_ParseTuple(arguments, "y*nnw*w*:mih_place", &keys, &low_bits, &first_line, &places, &lines))
        return NULL;
    ug_mih_block block;
    PyObject *result = NULL;
    if (block_of(&block, &keys, low_bits, first_line, &places, &lines) == 0) {
        int status;
        size_t words = 0;
        Py_BEGIN_ALLOW_THREADS
        status = ug_mih_place(&block, places.buf, lines.buf, &words);
        Py_END_ALLOW_THREADS
        result = status < 0 ? PyErr_NoMemory() : PyLong_FromSize_t(words);
    }
    PyBuffer_Release(&keys);
    PyBuffer_Release(&places);
    PyBuffer_Release(&lines);
    return result;
}

static PyObject *mih_fill(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer keys, places, lines, overflow;
    Py_ssize_t low_bits, first_line, first_word;
    if (!PyArg_ParseTuple(arguments, "y*nnw*w*w*n:mih_fill", &keys, &low_bits, &first_line, &places, &lines, &overflow,
                          &first_word))
        return NULL;
    ug_mih_block block;
    PyObject *result = NULL;
    Py_ssize_t words = count_words(&overflow, "overflow");
    if (words >= 0 && block_of(&block, &keys, low_bits, first_line, &places, &lines) == 0) {
        int status = -1;
        if (first_word >= 0 && words <= INT32_MAX) {
            Py_BEGIN_ALLOW_THREADS
            status = ug_mih_fill(&block, places.buf, lines.buf, overflow.buf, (size_t)first_word, (size_t)words);
            Py_END_ALLOW_THREADS
        }
        if (status < 0) {
            PyErr_SetString(PyExc_ValueError, "lines and places are not those of the keys");
        } else {
            result = Py_None;
            Py_INCREF(result);
        }
    }
    PyBuffer_Release(&keys);
    PyBuffer_Release(&places);
    PyBuffer_Release(&lines);
    PyBuffer_Release(&overflow);
    return result;
}

static PyObject *mih_shift_overflow(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer lines;
    unsigned int shift;
    if (!PyArg_ParseTuple(arguments, "w*I:mih_shift_overflow", &lines, &shift))
        return NULL;
    PyObject *result = NULL;
    Py_ssize_t count = count_items(&lines, sizeof(uint32_t) * UG_MIH_LINE_WORDS, sizeof(uint32_t), "lines");
    if (count >= 0) {
        Py_BEGIN_ALLOW_THREADS
        ug_mih_shift_overflow(lines.buf, (size_t)count, shift);
        Py_END_ALLOW_THREADS
        result = Py_None;
        Py_INCREF(result);
    }
    PyBuffer_Release(&lines);
    return result;
}

/* Takes the next rows of checked runs; what came of it as a Python number. */
static PyObject *merge(const Py_buffer *records, size_t record_bytes, const Py_buffer *ids, const Py_buffer *runs,
                       const Py_buffer *merged, const Py_buffer *merged_ids)
{
    ptrdiff_t taken;
    Py_BEGIN_ALLOW_THREADS
    taken = ug_exact_merge(records->buf, record_bytes, ids->buf, runs->buf, (size_t)runs->len / sizeof(ug_run),
                           merged->buf, merged_ids->buf, (size_t)merged_ids->len / sizeof(uint32_t));
    Py_END_ALLOW_THREADS
    return taken < 0 ? PyErr_NoMemory() : PyLong_FromSsize_t((Py_ssize_t)taken);
}

static int check_runs(const Py_buffer *runs, Py_ssize_t rows)
{
    Py_ssize_t count = count_items(runs, sizeof(ug_run), sizeof(uint64_t), "runs");
    const ug_run *run = runs->buf;
    for (Py_ssize_t i = 0; i < count; i++)
        if (run[i].at > run[i].end || run[i].end > (uint64_t)rows) {
            PyErr_SetString(PyExc_ValueError, "a run lies outside the records");
            return -1;
        }
    return count < 0 ? -1 : 0;
}

static PyObject *exact_merge(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer records, ids, runs, merged, merged_ids;
    Py_ssize_t record_bytes;
    if (!PyArg_ParseTuple(arguments, "y*ny*w*w*w*:exact_merge", &records, &record_bytes, &ids, &runs, &merged,
                          &merged_ids))
        return NULL;
    PyObject *result = NULL;
    if (record_bytes < 1 || record_bytes > MAX_RECORD_BYTES) {
        PyErr_SetString(PyExc_ValueError, "records must be of 1 to 64 bytes");
    } else {
        Py_ssize_t rows = count_words(&ids, "ids"), room = count_words(&merged_ids, "merged_ids");
        if (rows >= 0 && room >= 0) {
            if (records.len % record_bytes != 0 || records.len / record_bytes != rows || merged.len % record_bytes != 0 ||
                merged.len / record_bytes != room)
                PyErr_SetString(PyExc_ValueError, "records and ids do not fit each other");
            else if (check_runs(&runs, rows) == 0)
                result = merge(&records, (size_t)record_bytes, &ids, &runs, &merged, &merged_ids);
        }
    }
    PyBuffer_Release(&records);
    PyBuffer_Release(&ids);
    PyBuffer_Release(&runs);
    PyBuffer_Release(&merged);
    PyBuffer_Release(&merged_ids);
    return result;
}

PyMethodDef ug_build_methods[] = {
    {"mih_key_bits", mih_key_bits, METH_VARARGS,
     "mih_key_bits(code_bytes, tables, line_bits) -> how many bits of a code each table has"},
    {"mih_keys", mih_keys, METH_VARARGS,
     "mih_keys(codes, code_bytes, tables, line_bits, table, keys): write each code's substring of one table"},
    {"mih_place", mih_place, METH_VARARGS,
     "mih_place(keys, low_bits, first_line, places, lines) -> words of overflow; lays out a block of a table's lines"},
    {"mih_fill", mih_fill, METH_VARARGS,
     "mih_fill(keys, low_bits, first_line, places, lines, overflow, first_word): put the rows in"},
    {"mih_shift_overflow", mih_shift_overflow, METH_VARARGS,
     "mih_shift_overflow(lines, shift): move the places that lines note"},
    {"exact_merge", exact_merge, METH_VARARGS,
     "exact_merge(records, record_bytes, ids, runs, merged, merged_ids) -> how many rows were taken"},
    {NULL, NULL, 0, NULL},
};
