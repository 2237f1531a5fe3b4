/* Layout of the step table (docs/spec/artifact.md) and readers of its records. */
#ifndef EL_TABLE_H
#define EL_TABLE_H

#include "bytes.h"
#include "edgeloop.h"

#define EL_HEADER_BYTES 96u
#define EL_TENSOR_BYTES 64u
#define EL_STEP_BYTES 32u
#define EL_ENTRY_BYTES 16u
#define EL_NO_TENSOR 0xFFFFu

/* A tensor record: where the bytes are, and the view without its address. */
typedef struct el_place {
  uint8_t region;
  uint64_t offset;
} el_place;

/* A step record, decoded. */
typedef struct el_record {
  uint16_t opcode;
  uint8_t n, n_words;
  uint32_t chunks;
  uint32_t operand, word; /* first index in the operand and word sections */
  uint64_t scratch_offset, scratch_bytes;
} el_record;

static inline void el_read_tensor(const el_program *p, uint32_t i, el_tensor *t, el_place *at) {
  const uint8_t *b = p->tensors + (size_t)i * EL_TENSOR_BYTES;
  at->region = b[0];
  t->dtype = b[1];
  t->rank = b[2];
  at->offset = el_u64(b + 8);
  for (int k = 0; k < EL_RANK; k++) {
    t->dims[k] = el_i32(b + 16 + 4 * k);
    t->strides[k] = el_i32(b + 40 + 4 * k);
  }
  t->data = NULL;
}

static inline el_record el_read_step(const el_program *p, uint32_t i) {
  const uint8_t *b = p->steps + (size_t)i * EL_STEP_BYTES;
  el_record r;
  r.opcode = el_u16(b);
  r.n = b[2];
  r.n_words = b[3];
  r.chunks = el_u32(b + 4);
  r.operand = el_u32(b + 8);
  r.word = el_u32(b + 12);
  r.scratch_offset = el_u64(b + 16);
  r.scratch_bytes = el_u64(b + 24);
  return r;
}

static inline uint32_t el_read_operand(const el_program *p, uint32_t i) {
  return el_u16(p->operands + (size_t)i * 2);
}

static inline uint64_t el_align_up(uint64_t n) { return (n + EL_ALIGN - 1) / EL_ALIGN * EL_ALIGN; }

#endif
