/* Checks shared by the plan functions of products, convolutions and pools. */
#ifndef EL_LINALG_PLAN_H
#define EL_LINALG_PLAN_H

#include "plan.h"
#include "conv.h"

/* Products below which one more chunk does not pay. */
#define EL_CHUNK_PRODUCTS 262144u

/* A dense f32 tensor of at least one element and at most INT32_MAX, of one of these ranks. */
static inline int el_array(const el_tensor *t, int32_t rank_min, int32_t rank_max) {
  if (t->dtype != EL_F32 || t->rank < rank_min || t->rank > rank_max || t->rank > EL_RANK) return 0;
  int64_t size = 1;
  for (int32_t i = 0; i < t->rank; i++) {
    if (t->dims[i] < 1) return 0;
    size *= t->dims[i];
    if (size > INT32_MAX) return 0;
  }
  return el_dense(t);
}

/* Operand i is absent, or a dense array like `like` (NULL: a vector [n]). The output never is. */
static inline int el_optional(const el_call *call, uint32_t i, const el_tensor *like, int32_t n) {
  if (i + 1 >= call->n || !el_has(&call->t[i])) return 1;
  const el_tensor *t = &call->t[i];
  if (!el_array(t, 1, EL_RANK)) return 0;
  return like != NULL ? el_same_dims(t, like) : t->rank == 1 && t->dims[0] == n;
}

static inline int el_act_ok(int32_t act) { return act >= 0 && act < EL_ACTS; }

/* The window fits its images and no position overflows: all in 0 .. INT32_MAX. */
static inline int el_window_ok(const el_window *w, const el_word *pads) {
  for (int a = 0; a < 2; a++) {
    int64_t before = pads[a].i, after = pads[a + 2].i;
    if (before < 0 || after < 0 || w->stride[a] < 1 || w->step[a] < 1 || w->taps[a] < 1) return 0;
    int64_t padded = (int64_t)w->in[a] + before + after;
    int64_t reach = (int64_t)w->step[a] * (w->taps[a] - 1) + 1;
    if (padded > INT32_MAX / 2 || reach > padded || w->stride[a] > INT32_MAX / 2) return 0;
    if (w->out[a] != (padded - reach) / w->stride[a] + 1) return 0;
  }
  return 1;
}

/* Chunks for a step of `work` products: a function of shapes only. */
static inline uint32_t el_cut_products(uint64_t work) {
  uint64_t n = work / EL_CHUNK_PRODUCTS;
  return n < 1 ? 1u : n > 8 ? 8u : (uint32_t)n;
}

/* Bytes of scratch of one worker for a product on an instruction set. */
uint64_t el_product_scratch(const el_product *p, el_isa isa);
uint64_t el_conv_scratch(const el_conv *c, el_isa isa);
uint64_t el_conv_dx_scratch(const el_conv *c, el_isa isa);
uint64_t el_conv_dw_scratch(const el_conv *c, uint32_t chunks, el_isa isa);

/* Write the need; EL_E_MISMATCH when the scratch does not fit the machine's size_t. */
static inline el_status el_needs(el_need *need, uint64_t work, uint64_t scratch) {
  if (scratch > SIZE_MAX / 4) return EL_E_MISMATCH;
  need->chunks = el_cut_products(work);
  need->scratch = (size_t)scratch;
  need->outputs = 1;
  return EL_OK;
}

#endif
