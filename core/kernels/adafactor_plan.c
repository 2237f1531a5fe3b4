/* What Adafactor's kernels need: a tensor, its gradient, its factors, then eight scalars [1]. */
#include "plan.h"

#define SCALARS 8

static int vector(const el_tensor *t, size_t size) {
  return el_plain(t, EL_F32) && t->rank == 1 && el_size(t) == size;
}

/* Tensor i is a parameter, its gradient or its new version; scalars begin at `first`. */
static int update(const el_call *call, uint32_t gradient, uint32_t first) {
  const el_tensor *t = call->t;
  uint32_t out = first + SCALARS;
  if (call->n_attr != 0 || !el_plain(&t[0], EL_F32) || !el_plain(&t[gradient], EL_F32) ||
      !el_same_dims(&t[gradient], &t[0]) || !el_plain(&t[out], EL_F32) ||
      !el_same_dims(&t[out], &t[0])) {
    return 0;
  }
  for (uint32_t i = first; i < out; i++) {
    if (!vector(&t[i], 1)) return 0;
  }
  return 1;
}

/* A step is one chunk: every element depends on sums over the tensor. */
static el_status whole(el_need *need, uint32_t outputs) {
  need->chunks = 1;
  need->scratch = 0;
  need->outputs = outputs;
  return EL_OK;
}

el_plan el_plan_adafactor, el_plan_adafactor_vector;
el_status el_plan_adafactor(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t;
  if (call->n != 15 || !update(call, 3, 4) || t[0].rank < 2) return EL_E_MISMATCH;
  size_t n = (size_t)t[0].dims[0], k = el_size(&t[0]) / n;
  if (!vector(&t[1], n) || !vector(&t[2], k) || !vector(&t[13], n) || !vector(&t[14], k)) {
    return EL_E_MISMATCH;
  }
  return whole(need, 3);
}
el_status el_plan_adafactor_vector(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t;
  if (call->n != 13 || !update(call, 2, 3) || t[0].rank != 1) return EL_E_MISMATCH;
  size_t size = el_size(&t[0]);
  if (!vector(&t[1], size) || !vector(&t[12], size)) return EL_E_MISMATCH;
  return whole(need, 2);
}
