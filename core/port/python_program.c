/* Programs from Python: check a table, open it over memory that Python owns, run its entries. */
#include <errno.h>
#include <string.h>

#include "pool.h"
#include "python.h"

static const char runner_name[] = "edgeloop._core.runner";

/* What a session holds: a checked program, the buffers it runs over, and its worker threads. */
typedef struct runner {
  el_program program;
  el_memory memory;
  el_isa isa;
  el_pool *pool;
  el_reader *reader; /* or NULL: the weights are in memory */
  Py_buffer table, region[EL_REGIONS];
} runner;

/* Parse and check; ValueError with the place when refused. */
static int parse_and_check(const Py_buffer *table, el_isa isa, uint32_t threads, el_program *p) {
  el_status s = el_parse(table->buf, (size_t)table->len, p);
  uint32_t bad = EL_NO_STEP;
  if (s == EL_OK) s = el_check(p, isa, threads, &bad);
  if (s == EL_OK) return 0;
  if (bad == EL_NO_STEP) {
    PyErr_SetString(PyExc_ValueError, el_status_text(s));
  } else {
    PyErr_Format(PyExc_ValueError, "step %u: %s", bad, el_status_text(s));
  }
  return -1;
}

/* check(table, isa, threads) -> None; ValueError says what is wrong with the table */
PyObject *el_py_check(PyObject *self, PyObject *args) {
  (void)self;
  Py_buffer table;
  const char *isa_name;
  unsigned threads;
  if (!PyArg_ParseTuple(args, "y*sI", &table, &isa_name, &threads)) return NULL;
  el_program program;
  int isa = el_isa_of(isa_name);
  int failed = isa < 0 || parse_and_check(&table, (el_isa)isa, threads, &program) < 0;
  PyBuffer_Release(&table);
  if (failed) return NULL;
  Py_RETURN_NONE;
}

static void runner_free(runner *r) {
  el_pool_free(r->pool);
  el_reader_free(r->reader);
  for (int i = 0; i < EL_REGIONS; i++) PyBuffer_Release(&r->region[i]);
  PyBuffer_Release(&r->table);
  PyMem_Free(r);
}

static void capsule_free(PyObject *capsule) {
  runner_free(PyCapsule_GetPointer(capsule, runner_name));
}

/* open(table, isa, threads, weights, arena, params, state, io) -> runner
 * Checks the table and the sizes of the buffers, and starts the worker threads. The weights may be
 * read-only; the buffers stay exported until the runner goes. */
PyObject *el_py_open(PyObject *self, PyObject *args) {
  (void)self;
  const char *isa_name;
  unsigned threads;
  PyObject *table, *region[EL_REGIONS];
  if (!PyArg_ParseTuple(args, "OsIOOOOO", &table, &isa_name, &threads, &region[0], &region[1],
                        &region[2], &region[3], &region[4])) {
    return NULL;
  }
  int isa = el_isa_of(isa_name);
  if (isa < 0) return NULL;
  if ((int)el_best_isa((el_isa)isa) != isa) {
    return PyErr_Format(PyExc_ValueError, "this machine does not run '%s'", isa_name);
  }
  runner *r = PyMem_Malloc(sizeof *r);
  if (r == NULL) return PyErr_NoMemory();
  memset(r, 0, sizeof *r);
  r->isa = (el_isa)isa;
  if (PyObject_GetBuffer(table, &r->table, PyBUF_SIMPLE) < 0) goto fail;
  if (parse_and_check(&r->table, r->isa, threads, &r->program) < 0) goto fail;
  for (int i = 0; i < EL_REGIONS; i++) {
    int flags = i == EL_WEIGHTS ? PyBUF_SIMPLE : PyBUF_WRITABLE;
    if (PyObject_GetBuffer(region[i], &r->region[i], flags) < 0) goto fail;
    if ((uint64_t)r->region[i].len < r->program.size[i]) {
      PyErr_Format(PyExc_ValueError, "region %d has %zd bytes, fewer than the program needs", i,
                   r->region[i].len);
      goto fail;
    }
    r->memory.base[i] = r->program.size[i] > 0 ? r->region[i].buf : NULL;
  }
  el_status s = el_check_memory(&r->program, &r->memory);
  if (s != EL_OK) {
    PyErr_SetString(PyExc_ValueError, "a region is not aligned to 64 bytes");
    goto fail;
  }
  r->pool = el_pool_new(threads);
  if (r->pool == NULL) {
    PyErr_NoMemory();
    goto fail;
  }
  PyObject *capsule = PyCapsule_New(r, runner_name, capsule_free);
  if (capsule == NULL) goto fail;
  return capsule;
fail:
  runner_free(r);
  return NULL;
}

/* stream(runner, fd, start, hold_ns=0, unordered=False) -> None: from now on fetches read the file,
 * in which region weights begins at byte `start`. The last two are for tests (reader.h). */
PyObject *el_py_stream(PyObject *self, PyObject *args) {
  (void)self;
  PyObject *capsule;
  unsigned long long start, hold_ns = 0;
  el_reader_options options = {0};
  if (!PyArg_ParseTuple(args, "OiK|Kp", &capsule, &options.fd, &start, &hold_ns,
                        &options.unordered)) {
    return NULL;
  }
  runner *r = PyCapsule_GetPointer(capsule, runner_name);
  if (r == NULL) return NULL;
  options.start = start;
  options.hold_ns = hold_ns;
  el_reader *reader = el_reader_new(&options);
  if (reader == NULL) return PyErr_SetFromErrno(PyExc_OSError);
  el_reader_free(r->reader);
  r->reader = reader;
  el_pool_read_with(r->pool, reader);
  Py_RETURN_NONE;
}

/* Sets the exception of a status; 0 when there is none. */
static int failed(unsigned entry, el_status s, int error) {
  if (s == EL_OK) return 0;
  if (s == EL_E_IO) {
    errno = error != 0 ? error : EIO;
    PyErr_SetFromErrno(PyExc_OSError);
  } else {
    PyErr_Format(PyExc_ValueError, "entry %u: %s", entry, el_status_text(s));
  }
  return 1;
}

/* What a run came to once no read is under way: a failed read outweighs the rest. */
static el_status finish(runner *r, el_status s, int *error) {
  *error = 0;
  el_status reads = r->reader != NULL ? el_reader_finish(r->reader, error) : EL_OK;
  return reads != EL_OK ? reads : s;
}

/* run(runner, entry, first, last) -> None; without the GIL. One caller at a time. OSError: weights
 * could not be read (EIO: also when the file is too short), and the run stopped half-way. */
PyObject *el_py_run(PyObject *self, PyObject *args) {
  (void)self;
  PyObject *capsule;
  unsigned entry, first, last;
  if (!PyArg_ParseTuple(args, "OIII", &capsule, &entry, &first, &last)) return NULL;
  runner *r = PyCapsule_GetPointer(capsule, runner_name);
  if (r == NULL) return NULL;
  el_status s;
  int error;
  Py_BEGIN_ALLOW_THREADS s =
      el_pool_run(r->pool, &r->program, &r->memory, r->isa, entry, first, last);
  s = finish(r, s, &error);
  Py_END_ALLOW_THREADS if (failed(entry, s, error)) return NULL;
  Py_RETURN_NONE;
}

/* Spans that an entry fills: one for every step, and one for every chunk of every step. */
static el_status count_spans(const el_program *p, const el_memory *m, el_isa isa, uint32_t entry,
                             uint64_t *steps, uint64_t *chunks) {
  el_entry e;
  el_status s = el_get_entry(p, entry, &e);
  *steps = s == EL_OK ? e.count : 0;
  *chunks = 0;
  for (uint32_t i = 0; s == EL_OK && i < e.count; i++) {
    el_step step;
    s = el_bind(p, m, isa, e.first + i, &step);
    if (s == EL_OK) *chunks += step.call.chunks;
  }
  return s;
}

/* profile(runner, entry, steps, chunks) -> None; fills two arrays of u64 [n, 3]: begin and end in
 * nanoseconds, and the worker. Without the GIL. */
PyObject *el_py_profile(PyObject *self, PyObject *args) {
  (void)self;
  PyObject *capsule;
  unsigned entry;
  Py_buffer steps, chunks;
  if (!PyArg_ParseTuple(args, "OIw*w*", &capsule, &entry, &steps, &chunks)) return NULL;
  runner *r = PyCapsule_GetPointer(capsule, runner_name);
  uint64_t n_steps, n_chunks;
  if (r != NULL) {
    int error = 0;
    el_status s = count_spans(&r->program, &r->memory, r->isa, entry, &n_steps, &n_chunks);
    if (s == EL_OK && ((uint64_t)steps.len != n_steps * sizeof(el_span) ||
                       (uint64_t)chunks.len != n_chunks * sizeof(el_span))) {
      s = EL_E_ARG;
    }
    if (s == EL_OK) {
      Py_BEGIN_ALLOW_THREADS s =
          el_pool_profile(r->pool, &r->program, &r->memory, r->isa, entry, steps.buf, chunks.buf);
      s = finish(r, s, &error);
      Py_END_ALLOW_THREADS
    }
    failed(entry, s, error);
  }
  PyBuffer_Release(&steps);
  PyBuffer_Release(&chunks);
  if (PyErr_Occurred()) return NULL;
  Py_RETURN_NONE;
}

/* Index of the first word in 0 .. n - 1 whose exponent bits are all ones, or n. */
static Py_ssize_t first_bad(const unsigned char *b, Py_ssize_t n) {
  for (Py_ssize_t i = 0; i < n; i++) {
    uint32_t word;
    memcpy(&word, b + 4 * i, 4);
    if ((word & 0x7F800000u) == 0x7F800000u) return i;
  }
  return n;
}

/* first_nonfinite(buffer of f32) -> index of the first NaN or infinity, or -1
 * Whole blocks are looked at without a branch, so that compilers use vectors. */
PyObject *el_py_first_nonfinite(PyObject *self, PyObject *object) {
  (void)self;
  enum { BLOCK = 64 };
  Py_buffer view;
  if (PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) < 0) return NULL;
  const unsigned char *b = view.buf;
  Py_ssize_t n = view.len / 4, i = 0;
  for (; i + BLOCK <= n; i += BLOCK) {
    uint32_t words[BLOCK], bad = 0;
    memcpy(words, b + 4 * i, sizeof words);
    for (int k = 0; k < BLOCK; k++) bad |= (words[k] & 0x7F800000u) + 0x00800000u;
    if (bad >> 31) break;
  }
  Py_ssize_t found = i + first_bad(b + 4 * i, n - i);
  PyBuffer_Release(&view);
  return PyLong_FromSsize_t(found < n ? found : -1);
}
