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
#define EL_OPERANDS 16

/* Alignment, in bytes, of every region pointer, tensor offset and scratch block; of a tensor's
 * offset in region state. */
#define EL_ALIGN 64
#define EL_STATE_ALIGN 16

typedef enum el_status {
  EL_OK = 0,
  EL_E_ARG = -1,      /* an argument is NULL, out of range or misaligned */
  EL_E_FORMAT = -2,   /* the program table is damaged or of another version */
  EL_E_BOUNDS = -3,   /* an offset, size or stride leaves its region */
  EL_E_KERNEL = -4,   /* unknown opcode, or no variant for this machine */
  EL_E_MISMATCH = -5, /* operand types or shapes do not fit the kernel */
  EL_E_IO = -6,       /* weights could not be read (ports that read them from a file) */
} el_status;

/* EL_U8 also holds int4 codes, two in a byte; EL_F16 is IEEE binary16, EL_BF16 the upper half of a
 * f32. */
typedef enum el_dtype {
  EL_F32 = 0,
  EL_I32 = 1,
  EL_U8 = 2,
  EL_I8 = 3,
  EL_F16 = 4,
  EL_BF16 = 5
} el_dtype;

/* Instruction sets, best last within an architecture; the numbers are in no file. EL_ISA_REF is
 * portable C, bit-identical on every machine. NEON, AVX2 and AVX512 have a variant of every
 * operator; the others, those with products of narrow numbers, only where kernels.def says so. */
typedef enum el_isa {
  EL_ISA_REF = 0,
  EL_ISA_NEON = 1,
  EL_ISA_NEONDOT = 2,    /* dot products of int8: Armv8.2 dotprod */
  EL_ISA_NEONI8MM = 3,   /* and products of int8 matrices */
  EL_ISA_AVX2 = 4,       /* with FMA */
  EL_ISA_AVXVNNI = 5,    /* dot products of int8, 256 bits */
  EL_ISA_AVX512 = 6,     /* F, BW, DQ, VL */
  EL_ISA_AVX512VNNI = 7, /* dot products of int8, 512 bits */
  EL_ISA_AVX512BF16 = 8, /* and of bfloat16 */
  EL_ISA_COUNT = 9
} el_isa;

/* A view of memory. Strides are in elements and may be 0 (broadcast). rank 0 is a scalar.
 * An optional operand that is absent has data NULL, dtype EL_ABSENT (so that a plan function
 * which asks for a type refuses it) and rank 0. */
#define EL_ABSENT (-1)
typedef struct el_tensor {
  void *data; /* plan functions may only compare it with NULL */
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

/* What a kernel sees. Operands stand in the order of the operator's record, inputs before outputs.
 */
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
  size_t scratch;   /* bytes for each worker */
  uint32_t chunks;  /* parts that may run in any order, also at once; depends on shapes only */
  uint32_t outputs; /* the last `outputs` operands are written; 1 before the plan is called */
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

/* The next lower instruction set that every machine with `isa` runs too; of EL_ISA_REF, itself. */
el_isa el_isa_below(el_isa isa);

/* The variant of `op` to use for `isa`: its own, or the first one below (ref always exists). */
el_kernel *el_variant(const el_op *op, el_isa isa);

/* ---- programs -------------------------------------------------------------------------------
 *
 * A program is a step table (docs/spec/artifact.md: little-endian, any alignment) over five
 * regions of memory. el_parse finds its way around the table, el_check proves that every step
 * stays inside its regions and fits its kernel, el_run runs a range of steps. Run nothing that
 * el_check has not accepted for the same table, instruction set and number of threads. */

#define EL_TABLE_MAJOR 1
#define EL_TABLE_MINOR 3

#define EL_WORDS 32        /* most attribute words of one step */
#define EL_MAX_CHUNKS 1024 /* most chunks of one step */
#define EL_MAX_THREADS 64

/* Weights are read-only; the other regions are disjoint RAM. */
typedef enum el_region {
  EL_WEIGHTS = 0,
  EL_ARENA = 1,
  EL_PARAMS = 2,
  EL_STATE = 3,
  EL_IO = 4,
  EL_REGIONS = 5
} el_region;

/* Filled by el_parse; points into the table, which must outlive it. Members are for the core. */
typedef struct el_program {
  const uint8_t *tensors, *steps, *entries, *words, *operands;
  uint32_t n_tensors, n_steps, n_entries, n_words, n_operands;
  uint32_t threads;          /* most workers that the plan has scratch for */
  uint64_t size[EL_REGIONS]; /* bytes, multiples of EL_ALIGN */
} el_program;

/* One entry (train, predict, ...): steps first .. first + count - 1 of the table. */
typedef struct el_entry {
  uint32_t first, count;
  uint64_t arena; /* bytes of the arena that this entry uses */
} el_entry;

/* Base of each region, EL_ALIGN aligned; may be NULL where the program's size is 0. */
typedef struct el_memory {
  void *base[EL_REGIONS];
} el_memory;

/* One step made ready: operands and words decoded, kernel chosen. Not to be copied or moved:
 * call.t and call.attr point into it. About 1 KiB. */
typedef struct el_step {
  el_tensor t[EL_OPERANDS];
  el_word attr[EL_WORDS];
  el_call call; /* scratch: the block of worker 0, or NULL when the step needs none */
  el_kernel *kernel;
  size_t scratch_step; /* bytes from one worker's scratch block to the next */
  const el_op *op;
} el_step;

/* Reads the header and checks that the sections fill `bytes` exactly. EL_E_FORMAT otherwise. */
el_status el_parse(const void *table, size_t bytes, el_program *program);

/* Checks the whole table: opcodes, offsets, strides, dims, what each kernel relies on (its plan
 * function), scratch for `threads` workers, and that nothing writes into the weights.
 * *bad (may be NULL) gets the first refused step, or EL_NO_STEP when the fault is elsewhere. */
#define EL_NO_STEP 0xFFFFFFFFu
el_status el_check(const el_program *program, el_isa isa, uint32_t threads, uint32_t *bad);

/* Describes entry `index` < program->n_entries. */
el_status el_get_entry(const el_program *program, uint32_t index, el_entry *entry);

/* EL_E_ARG when a region that the program uses is NULL or misaligned. */
el_status el_check_memory(const el_program *program, const el_memory *memory);

/* Makes step `index` of the whole table ready on checked memory. */
el_status el_bind(const el_program *program, const el_memory *memory, el_isa isa, uint32_t index,
                  el_step *step);

/* Runs steps first .. last - 1 of an entry (last is cut to its count) on the calling thread.
 * A run may stop at any step and go on later at that index, as long as arena, params, state and
 * io are left alone; the result is the same as in one go. */
el_status el_run(const el_program *program, const el_memory *memory, el_isa isa, uint32_t entry,
                 uint32_t first, uint32_t last);

#endif
