#include "kernel.h"
PyMethodDef ug_search_methods[] = {{NULL, NULL, 0, NULL}};
