/* The module uploadguard._native._kernel: gathers the methods of the kernel's parts. */
#include "kernel.h"
#include "mih.h"
#include "pdq.h"

static int kernel_exec(PyObject *module)
{
    ug_pdq_init();
    if (PyModule_AddFunctions(module, ug_pdq_methods) < 0)
        return -1;
    if (PyModule_AddFunctions(module, ug_search_methods) < 0)
        return -1;
    if (PyModule_AddIntConstant(module, "MIH_LAYOUT", UG_MIH_LAYOUT) < 0)
        return -1;
    if (PyModule_AddFunctions(module, ug_mih_methods) < 0)
        return -1;
    if (PyModule_AddFunctions(module, ug_build_methods) < 0)
        return -1;
    if (PyModule_AddFunctions(module, ug_jpeg_methods) < 0)
        return -1;
    return PyModule_AddFunctions(module, ug_sandbox_methods);
}

static PyModuleDef_Slot kernel_slots[] = {
    {Py_mod_exec, (void *)kernel_exec},
    {0, NULL},
};

static struct PyModuleDef kernel_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_kernel",
    .m_doc = "PDQ reduction, Hamming and exact look-up, JPEG scans, and the sandbox's walls. Use it through uploadguard.signals,\n"
             "uploadguard.hashset and uploadguard.sandbox.",
    .m_size = 0,
    .m_slots = kernel_slots,
};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModuleDef_Init(&kernel_def);
}
