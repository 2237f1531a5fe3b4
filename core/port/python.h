/* Shared by the sources of the Python extension. */
#ifndef EL_PYTHON_H
#define EL_PYTHON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "edgeloop.h"

const char *el_status_text(el_status s);

/* The instruction set of that name, or -1 with ValueError set. */
int el_isa_of(const char *name);

PyObject *el_py_check(PyObject *self, PyObject *args);
PyObject *el_py_open(PyObject *self, PyObject *args);
PyObject *el_py_stream(PyObject *self, PyObject *args);
PyObject *el_py_run(PyObject *self, PyObject *args);
PyObject *el_py_profile(PyObject *self, PyObject *args);
PyObject *el_py_peak(PyObject *self, PyObject *args);
PyObject *el_py_bandwidth(PyObject *self, PyObject *args);
PyObject *el_py_first_nonfinite(PyObject *self, PyObject *buffer);

#endif
