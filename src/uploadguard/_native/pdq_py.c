#include "kernel.h"
PyMethodDef ug_pdq_methods[] = {{NULL, NULL, 0, NULL}};
