/* edgeloop core: run compiled training steps over caller-owned memory.
 *
 * No malloc, no libm, no stdio, no mutable globals. The caller passes every byte that is written.
 * Errors are negative el_status values whose numbers are never reused; results go through pointers.
 */
#ifndef EDGELOOP_H
#define EDGELOOP_H

#include <stddef.h>
#include <stdint.h>

#define EL_VERSION_MAJOR 0
#define EL_VERSION_MINOR 1

/* Largest rank of a tensor and most operands of one step. */
#define EL_RANK 6
#define EL_OPERANDS 12

/* Alignment, in bytes, of every region pointer, tensor offset and scratch block. */
#define EL_ALIGN 64

typedef enum el_status {
  EL_OK = 0,
  EL_E_ARG = -1,       /* an argument is NULL, out of range or misaligned */
  EL_E_FORMAT = -2,    /* the program table is damaged or of another version */
  EL_E_BOUNDS = -3,    /* an offset, size or stride leaves its region */
  EL_E_KERNEL = -4,    /* unknown opcode, or no variant for this machine */
  EL_E_MISMATCH = -5,  /* operand types or shapes do not fit the kernel */
} el_status;

typedef enum el_dtype { EL_F32 = 0, EL_I32 = 1, EL_U8 = 2 } el_dtype;

/* Instruction sets, best last. EL_ISA_REF is portable C, bit-identical on every machine. */
typedef enum el_isa { EL_ISA_REF = 0, EL_ISA_NEON = 1, EL_ISA_AVX2 = 2, EL_ISA_AVX512 = 3, EL_ISA_COUNT = 4 } el_isa;

/* A view of memory. Strides are in elements and may be 0 (broadcast). rank 0 is a scalar. */
typedef struct el_tensor {
  void *data; /* NULL: an optional operand that is absent */
  int32_t dtype;
  int32_t rank;
  int32_t dims[EL_RANK];
  int32_t strides[EL_RANK];
} el_tensor;

/* One attribute word: an integer, or the bits of a float. */
typedef union el_word {
  int32_t i;
  float f;
} el_word;

/* What a kernel sees. Operands stand in the order of the operator's record: inputs, then outputs. */
typedef struct el_call {
  const el_tensor *t;
  const el_word *attr;
  void *scratch; /* this worker's own block, EL_ALIGN aligned; size from the plan function */
  uint32_t n;
  uint32_t n_attr;
  uint32_t chunk;  /* this call does part `chunk` of `chunks`; all parts together do the step */
  uint32_t chunks; /* fixed by the plan, never by the number of threads */
} el_call;

typedef void el_kernel(const el_call *call);

/* What a step needs besides its operands. */
typedef struct el_need {
  uint32_t chunks;  /* parts that may run in any order and at the same time; depends on shapes only */
  size_t scratch;   /* bytes for each worker */
  uint32_t outputs; /* the last `outputs` operands are written; 1 before the plan function is called */
} el_need;

/* Fills *need for a call (data pointers may be NULL or fake) on one instruction set.
 * EL_E_MISMATCH when dtypes, ranks or dims do not fit the kernel: the program checker calls it
 * on every step, so a kernel may rely on what its plan function accepted. */
typedef el_status el_plan(const el_call *call, el_isa isa, el_need *need);

typedef struct el_op {
  const char *name;
  uint16_t opcode;
  el_plan *plan;
  el_kernel *kernel[EL_ISA_COUNT]; /* NULL where not built */
  float tolerance;                 /* 0: variants are bit-equal to ref; else see kernels.def */
} el_op;

/* All operators of this build, ascending opcode. */
const el_op *el_ops(uint32_t *count);
const el_op *el_find_op(uint16_t opcode);

/* Best instruction set that this machine runs and this build holds, at most `limit`. */
el_isa el_best_isa(el_isa limit);

/* The variant of `op` to use for `isa`: itself, or the best one below it (ref always exists). */
el_kernel *el_variant(const el_op *op, el_isa isa);

#endif
