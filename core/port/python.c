/* The Python extension edgeloop._core: a plain C module over the stable ABI (no C++ compiler). */
#include "python.h"

#include <string.h>

static const char *const isa_names[EL_ISA_COUNT] = {
    [EL_ISA_REF] = "ref",
    [EL_ISA_NEON] = "neon",
    [EL_ISA_NEONDOT] = "neondot",
    [EL_ISA_NEONI8MM] = "neoni8mm",
    [EL_ISA_AVX2] = "avx2",
    [EL_ISA_AVXVNNI] = "avxvnni",
    [EL_ISA_AVX512] = "avx512",
    [EL_ISA_AVX512VNNI] = "avx512vnni",
    [EL_ISA_AVX512BF16] = "avx512bf16",
};

const char *el_status_text(el_status s) {
  switch (s) {
    case EL_OK:
      return "ok";
    case EL_E_ARG:
      return "bad argument";
    case EL_E_FORMAT:
      return "damaged table or other version";
    case EL_E_BOUNDS:
      return "offset, size or stride out of bounds";
    case EL_E_KERNEL:
      return "unknown kernel";
    case EL_E_MISMATCH:
      return "operands do not fit the kernel";
    case EL_E_IO:
      return "weights could not be read";
  }
  return "unknown status";
}

/* kernels() -> [(opcode, name, tolerance)] */
static PyObject *py_kernels(PyObject *self, PyObject *args) {
  (void)self;
  (void)args;
  uint32_t n;
  const el_op *ops = el_ops(&n);
  PyObject *list = PyList_New(0);
  for (uint32_t i = 0; list != NULL && i < n; i++) {
    PyObject *item =
        Py_BuildValue("(isd)", (int)ops[i].opcode, ops[i].name, (double)ops[i].tolerance);
    if (item == NULL || PyList_Append(list, item) < 0) Py_CLEAR(list);
    Py_XDECREF(item);
  }
  return list;
}

/* plans() -> {kernel: name of its plan function}, for the emitter of C source */
static PyObject *py_plans(PyObject *self, PyObject *args) {
  (void)self;
  (void)args;
  static const char *const names[][2] = {
#define EL_OP(opcode, name, plan, tolerance) {#name, #plan},
#include "kernels.def"
  };
  PyObject *dict = PyDict_New();
  for (size_t i = 0; dict != NULL && i < sizeof names / sizeof names[0]; i++) {
    PyObject *plan = PyUnicode_FromString(names[i][1]);
    if (plan == NULL || PyDict_SetItemString(dict, names[i][0], plan) < 0) Py_CLEAR(dict);
    Py_XDECREF(plan);
  }
  return dict;
}

/* isas() -> names of the instruction sets that this machine runs, ref first */
static PyObject *py_isas(PyObject *self, PyObject *args) {
  (void)self;
  (void)args;
  PyObject *list = PyList_New(0);
  for (int i = 0; list != NULL && i < EL_ISA_COUNT; i++) {
    if ((int)el_best_isa((el_isa)i) != i) continue;
    PyObject *name = PyUnicode_FromString(isa_names[i]);
    if (name == NULL || PyList_Append(list, name) < 0) Py_CLEAR(list);
    Py_XDECREF(name);
  }
  return list;
}

/* below() -> {instruction set: the next lower one}, in el_isa's order; ref stands below itself */
static PyObject *py_below(PyObject *self, PyObject *args) {
  (void)self;
  (void)args;
  PyObject *dict = PyDict_New();
  for (int i = 0; dict != NULL && i < EL_ISA_COUNT; i++) {
    PyObject *name = PyUnicode_FromString(isa_names[el_isa_below((el_isa)i)]);
    if (name == NULL || PyDict_SetItemString(dict, isa_names[i], name) < 0) Py_CLEAR(dict);
    Py_XDECREF(name);
  }
  return dict;
}

int el_isa_of(const char *name) {
  for (int i = 0; i < EL_ISA_COUNT; i++) {
    if (strcmp(name, isa_names[i]) == 0) return i;
  }
  PyErr_Format(PyExc_ValueError, "unknown instruction set '%s'", name);
  return -1;
}

/* Fill one operand from None or (buffer or None, dtype, dims, strides). 0 on success. */
static int operand(PyObject *item, el_tensor *t, Py_buffer *view) {
  memset(t, 0, sizeof *t);
  t->dtype = EL_ABSENT;
  if (item == Py_None) return 0;
  PyObject *buffer, *dims, *strides;
  int dtype;
  if (!PyArg_ParseTuple(item, "OiO!O!", &buffer, &dtype, &PyTuple_Type, &dims, &PyTuple_Type,
                        &strides))
    return -1;
  Py_ssize_t rank = PyTuple_Size(dims);
  if (rank > EL_RANK || PyTuple_Size(strides) != rank) {
    PyErr_SetString(PyExc_ValueError, "rank too large, or dims and strides differ in length");
    return -1;
  }
  t->dtype = dtype;
  t->rank = (int32_t)rank;
  for (Py_ssize_t i = 0; i < rank; i++) {
    t->dims[i] = (int32_t)PyLong_AsLong(PyTuple_GetItem(dims, i));
    t->strides[i] = (int32_t)PyLong_AsLong(PyTuple_GetItem(strides, i));
  }
  if (PyErr_Occurred()) return -1;
  static char present; /* plan functions see an address, and never read it */
  t->data = &present;
  if (buffer == Py_None) return 0;
  if (PyObject_GetBuffer(buffer, view, PyBUF_SIMPLE) < 0) return -1;
  t->data = view->buf;
  return 0;
}

/* call(opcode, isa, operands, words, run) -> (chunks, scratch bytes, outputs)
 * Plans one kernel call and, if run is true, runs every chunk of it on the caller's buffers. */
static PyObject *py_call(PyObject *self, PyObject *args) {
  (void)self;
  int opcode, run;
  const char *isa_name;
  PyObject *operands, *words, *result = NULL;
  if (!PyArg_ParseTuple(args, "isO!O!p", &opcode, &isa_name, &PyList_Type, &operands, &PyList_Type,
                        &words, &run))
    return NULL;
  int isa = el_isa_of(isa_name);
  if (isa < 0) return NULL;
  const el_op *op = el_find_op((uint16_t)opcode);
  Py_ssize_t n = PyList_Size(operands), nw = PyList_Size(words);
  if (op == NULL || n > EL_OPERANDS || nw > 32) {
    return PyErr_Format(PyExc_ValueError, "unknown opcode %d, or too many operands", opcode);
  }
  el_tensor t[EL_OPERANDS];
  Py_buffer views[EL_OPERANDS];
  el_word attr[32];
  memset(views, 0, sizeof views);
  memset(t, 0, sizeof t);
  memset(attr, 0, sizeof attr);
  for (Py_ssize_t i = 0; i < nw; i++) attr[i].i = (int32_t)PyLong_AsLong(PyList_GetItem(words, i));
  for (Py_ssize_t i = 0; i < n && !PyErr_Occurred(); i++)
    operand(PyList_GetItem(operands, i), &t[i], &views[i]);
  el_call call = {
      .t = t, .attr = attr, .n = (uint32_t)n, .n_attr = (uint32_t)nw, .chunk = 0, .chunks = 1};
  el_need need = {.chunks = 1, .scratch = 0, .outputs = 1};
  void *scratch = NULL;
  if (!PyErr_Occurred()) {
    el_status s = op->plan(&call, (el_isa)isa, &need);
    if (s != EL_OK) {
      PyErr_Format(PyExc_ValueError, "%s: %s", op->name, el_status_text(s));
    } else if (run) {
      scratch = PyMem_Malloc(need.scratch + EL_ALIGN);
      if (scratch == NULL) PyErr_NoMemory();
    }
  }
  if (!PyErr_Occurred()) {
    if (run) {
      uintptr_t p = ((uintptr_t)scratch + EL_ALIGN - 1) & ~(uintptr_t)(EL_ALIGN - 1);
      call.scratch = (void *)p;
      call.chunks = need.chunks;
      for (call.chunk = 0; call.chunk < need.chunks; call.chunk++)
        el_variant(op, (el_isa)isa)(&call);
    }
    result = Py_BuildValue("(InI)", need.chunks, (Py_ssize_t)need.scratch, need.outputs);
  }
  PyMem_Free(scratch);
  for (Py_ssize_t i = 0; i < n; i++) PyBuffer_Release(&views[i]);
  return result;
}

/* variant(opcode, isa) -> the instruction set whose kernel of this build runs for `isa` */
static PyObject *py_variant(PyObject *self, PyObject *args) {
  (void)self;
  int opcode;
  const char *name;
  if (!PyArg_ParseTuple(args, "is", &opcode, &name)) return NULL;
  int isa = el_isa_of(name);
  if (isa < 0) return NULL;
  const el_op *op = el_find_op((uint16_t)opcode);
  if (op == NULL) return PyErr_Format(PyExc_ValueError, "unknown opcode %d", opcode);
  while (op->kernel[isa] != el_variant(op, (el_isa)isa)) isa = (int)el_isa_below((el_isa)isa);
  return PyUnicode_FromString(isa_names[isa]);
}

static PyMethodDef methods[] = {
    {"kernels", py_kernels, METH_NOARGS, "kernels() -> list of (opcode, name, tolerance)"},
    {"plans", py_plans, METH_NOARGS, "plans() -> {kernel: name of its plan function}"},
    {"isas", py_isas, METH_NOARGS, "isas() -> instruction sets that this machine runs"},
    {"below", py_below, METH_NOARGS, "below() -> {instruction set: the next lower one}"},
    {"variant", py_variant, METH_VARARGS,
     "variant(opcode, isa) -> instruction set whose kernel runs for isa"},
    {"call", py_call, METH_VARARGS,
     "call(opcode, isa, operands, words, run) -> (chunks, scratch bytes, outputs)"},
    {"check", el_py_check, METH_VARARGS,
     "check(table, isa, threads): ValueError if a table is refused"},
    {"open", el_py_open, METH_VARARGS,
     "open(table, isa, threads, weights, arena, params, state, io) -> runner"},
    {"stream", el_py_stream, METH_VARARGS,
     "stream(runner, fd, start, hold_ns=0, unordered=False): fetches read the file"},
    {"run", el_py_run, METH_VARARGS,
     "run(runner, entry, first, last): run steps first .. last - 1"},
    {"profile", el_py_profile, METH_VARARGS,
     "profile(runner, entry, steps, chunks): run an entry, fill u64 [n, 3] of begin, end, worker"},
    {"peak", el_py_peak, METH_VARARGS,
     "peak(kind, rounds) -> (operations, instruction); kind: f32, bf16, int8"},
    {"bandwidth", el_py_bandwidth, METH_VARARGS,
     "bandwidth(buffer, copy, rounds) -> bytes read and written"},
    {"first_nonfinite", el_py_first_nonfinite, METH_O,
     "first_nonfinite(f32 buffer) -> index or -1"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "edgeloop._core", "The C core.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__core(void) { return PyModule_Create(&module); }
