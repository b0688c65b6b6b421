/* The Python face of PDQ: argument checks, the GIL, and nothing else. */
#include "kernel.h"
#include "pdq.h"

/* Reads (pixels, width, height, channels, full_width, full_height, scale) and a flag; the caller releases `view`. */
static int parse_picture(PyObject *args, PyObject *kwargs, const char *format, const char *flag_name, Py_buffer *view,
                         ug_picture *p, int *flag)
{
    char *names[] = {"pixels",      "width", "height",          "channels", "full_width",
                     "full_height", "scale", (char *)flag_name, NULL};
    p->full_width = p->full_height = 0;
    p->scale = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, names, view, &p->width, &p->height, &p->channels,
                                     &p->full_width, &p->full_height, &p->scale, flag))
        return -1;
    if (p->full_width == 0 && p->full_height == 0) {
        p->full_width = p->width;
        p->full_height = p->height;
    }
    p->pixels = view->buf;
    const char *problem = NULL;
    if (p->channels != 1 && p->channels != 3)
        problem = "channels must be 1 or 3";
    else if (p->scale < 1 || p->scale > 8)
        problem = "scale must be 1 to 8";
    else if (p->width < 1 || p->height < 1 || p->full_width > (1 << 26) || p->full_height > (1 << 26))
        problem = "width and height must be 1 to 2**26";
    else if (p->full_width < 1 || p->full_height < 1 ||
             p->width != (p->full_width + p->scale - 1) / p->scale ||
             p->height != (p->full_height + p->scale - 1) / p->scale)
        problem = "width and height must be full_width and full_height divided by scale, rounded up";
    else if ((Py_ssize_t)p->width * p->height * p->channels != view->len)
        problem = "pixels must hold width * height * channels bytes";
    if (problem) {
        PyErr_SetString(PyExc_ValueError, problem);
        PyBuffer_Release(view);
        return -1;
    }
    return 0;
}

static PyObject *py_pdq_hash(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    Py_buffer view;
    ug_picture picture;
    int bit_exact = 0, status;
    if (parse_picture(args, kwargs, "y*iii|iiip:pdq_hash", "bit_exact", &view, &picture, &bit_exact) < 0)
        return NULL;
    if (bit_exact && picture.scale != 1) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_ValueError, "bit_exact needs scale 1");
        return NULL;
    }
    ug_pdq result;
    Py_BEGIN_ALLOW_THREADS
    status = ug_pdq_hash(&picture, bit_exact, &result);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&view);
    if (status < 0)
        return PyErr_NoMemory();
    return Py_BuildValue("y#iOi", (const char *)result.hashes, (Py_ssize_t)sizeof result.hashes, result.quality,
                         result.reference_order ? Py_True : Py_False, result.close);
}

static PyObject *py_pdq_coefficients(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    Py_buffer view;
    ug_picture picture;
    int reference_order = 0, status;
    if (parse_picture(args, kwargs, "y*iii|iiip:pdq_coefficients", "reference_order", &view, &picture,
                      &reference_order) < 0)
        return NULL;
    if (picture.full_width < UG_PDQ_MIN_SIDE || picture.full_height < UG_PDQ_MIN_SIDE ||
        (reference_order && picture.scale != 1)) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_ValueError, "sides must be 5 pixels or more, and reference_order needs scale 1");
        return NULL;
    }
    double samples[UG_PDQ_SIDE][UG_PDQ_SIDE], coeffs[UG_PDQ_COEFFS];
    Py_BEGIN_ALLOW_THREADS
    if (reference_order) {
        float narrow[UG_PDQ_SIDE][UG_PDQ_SIDE], narrow_coeffs[UG_PDQ_COEFFS];
        status = ug_pdq_reference(&picture, 1, narrow, narrow_coeffs);
        for (int i = 0; status == 0 && i < UG_PDQ_SIDE; i++)
            for (int j = 0; j < UG_PDQ_SIDE; j++)
                samples[i][j] = narrow[i][j];
        for (int n = 0; status == 0 && n < UG_PDQ_COEFFS; n++)
            coeffs[n] = narrow_coeffs[n];
    } else {
        status = ug_pdq_fast(&picture, samples, coeffs);
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&view);
    if (status < 0)
        return PyErr_NoMemory();
    return Py_BuildValue("y#y#", (const char *)samples, (Py_ssize_t)sizeof samples, (const char *)coeffs,
                         (Py_ssize_t)sizeof coeffs);
}

PyMethodDef ug_pdq_methods[] = {
    {"pdq_hash", (PyCFunction)(void (*)(void))py_pdq_hash, METH_VARARGS | METH_KEYWORDS,
     "pdq_hash(pixels, width, height, channels, full_width=0, full_height=0, scale=1, bit_exact=False)\n"
     "-> (eight hashes in 256 bytes, quality 0..100, whether the reference's order of sums had to decide,\n"
     "    how many coefficients are close to the median)"},
    {"pdq_coefficients", (PyCFunction)(void (*)(void))py_pdq_coefficients, METH_VARARGS | METH_KEYWORDS,
     "pdq_coefficients(pixels, width, height, channels, full_width=0, full_height=0, scale=1, reference_order=False)\n"
     "-> (64x64 samples, 16x16 coefficients), both float64 in native order"},
    {NULL, NULL, 0, NULL},
};
