/* Shared by the kernel's C files: the Python face (limited API) and what the compiler offers. */
#ifndef UPLOADGUARD_KERNEL_H
#define UPLOADGUARD_KERNEL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* One build serves every x86-64: the loader picks the widest clone that the machine runs. Elsewhere the compiler's
   baseline (NEON on arm64) is what there is. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__)
#define UG_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define UG_CLONES
#endif

extern PyMethodDef ug_pdq_methods[];
extern PyMethodDef ug_search_methods[];
extern PyMethodDef ug_mih_methods[];
extern PyMethodDef ug_sandbox_methods[];
extern PyMethodDef ug_build_methods[];
extern PyMethodDef ug_jpeg_methods[];

#endif
