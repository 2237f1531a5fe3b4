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

static inline int el_same_dims(const el_tensor *a, const el_tensor *b) {
  if (a->rank != b->rank) return 0;
  for (int32_t i = 0; i < a->rank; i++) {
    if (a->dims[i] != b->dims[i]) return 0;
  }
  return 1;
}

#endif
