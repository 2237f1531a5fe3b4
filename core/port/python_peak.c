/* The yardsticks of a profile from Python. */
#include <string.h>

#include "peak.h"
#include "python.h"

/* peak(kind, rounds) -> (operations, instruction); (0, "") where the machine has none */
PyObject *el_py_peak(PyObject *self, PyObject *args) {
  (void)self;
  static const char *const kinds[EL_PEAK_KINDS] = {"f32", "bf16", "int8"};
  const char *kind, *name = "";
  unsigned long long rounds;
  if (!PyArg_ParseTuple(args, "sK", &kind, &rounds)) return NULL;
  int k = 0;
  while (k < EL_PEAK_KINDS && strcmp(kind, kinds[k]) != 0) k++;
  if (k == EL_PEAK_KINDS) return PyErr_Format(PyExc_ValueError, "unknown kind '%s'", kind);
  uint64_t ops;
  Py_BEGIN_ALLOW_THREADS ops = el_peak_run((el_peak_kind)k, rounds, &name);
  Py_END_ALLOW_THREADS return Py_BuildValue("(Ks)", (unsigned long long)ops, name);
}

/* bandwidth(buffer, copy, rounds) -> bytes read and written */
PyObject *el_py_bandwidth(PyObject *self, PyObject *args) {
  (void)self;
  Py_buffer view;
  int copy;
  unsigned long long rounds;
  if (!PyArg_ParseTuple(args, "w*pK", &view, &copy, &rounds)) return NULL;
  uint64_t bytes;
  Py_BEGIN_ALLOW_THREADS bytes = copy ? el_peak_copy(view.buf, (size_t)view.len, rounds)
                                      : el_peak_read(view.buf, (size_t)view.len, rounds);
  Py_END_ALLOW_THREADS PyBuffer_Release(&view);
  return PyLong_FromUnsignedLongLong(bytes);
}
