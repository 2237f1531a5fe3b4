/* Plan helpers shared by kernels: checks of a call's operands, and how it is cut into chunks. */
#ifndef EL_PLAN_H
#define EL_PLAN_H

#include "kernel.h"

/* Elements of work below which cutting a step further does not pay. */
#define EL_CHUNK_WORK 16384u

/* How many chunks `items` pieces of `work` elements each are cut into; at most 16. */
static inline uint32_t el_cut(size_t items, size_t work) {
  size_t n = work / EL_CHUNK_WORK;
  if (n > items) n = items;
  if (n > 16) n = 16;
  return n < 1 ? 1u : (uint32_t)n;
}

static inline int el_is(const el_tensor *t, int32_t dtype) { return t->dtype == dtype; }

/* Rank, dims and their product are in range, so that el_size and el_dense cannot overflow. */
static inline int el_sane(const el_tensor *t) {
  if (t->rank < 0 || t->rank > EL_RANK) return 0;
  int64_t n = 1;
  for (int32_t i = 0; i < t->rank; i++) {
    if (t->dims[i] < 1) return 0;
    n *= t->dims[i];
    if (n > INT32_MAX) return 0;
  }
  return 1;
}

/* Sane, dense, of this type, and there: what most kernels ask of each operand. */
static inline int el_plain(const el_tensor *t, int32_t dtype) {
  return t->dtype == dtype && el_sane(t) && el_dense(t);
}

/* Both sane. */
static inline int el_same_dims(const el_tensor *a, const el_tensor *b) {
  if (a->rank != b->rank) return 0;
  for (int32_t i = 0; i < a->rank; i++) {
    if (a->dims[i] != b->dims[i]) return 0;
  }
  return 1;
}

#endif
