/* What every kernel source includes. A source is compiled once per instruction set with
 * EL_ISA_NAME set to ref, avx2 or another; EL_K(relu) is then el_k_relu_avx2 and so on. */
#ifndef EL_KERNEL_H
#define EL_KERNEL_H

#include "edgeloop.h"

#ifndef EL_ISA_NAME
#define EL_ISA_NAME ref
#endif

#define EL_CAT3_(a, b, c) a##b##_##c
#define EL_CAT3(a, b, c) EL_CAT3_(a, b, c)
#define EL_K(name) EL_CAT3(el_k_, name, EL_ISA_NAME)
#define EL_KERNEL(name)                 \
  void EL_K(name)(const el_call *call); \
  void EL_K(name)(const el_call *call)

/* Before a loop whose iterations are independent even where an output is its input's memory. */
#define EL_INDEPENDENT _Pragma("GCC ivdep")

static inline float *el_f32(const el_tensor *t) { return (float *)t->data; }
static inline const float *el_cf32(const el_tensor *t) { return (const float *)t->data; }
static inline const int32_t *el_ci32(const el_tensor *t) { return (const int32_t *)t->data; }

/* Number of elements. */
static inline size_t el_size(const el_tensor *t) {
  size_t n = 1;
  for (int32_t i = 0; i < t->rank; i++) n *= (size_t)t->dims[i];
  return n;
}

/* Bytes of one element. */
static inline size_t el_item_bytes(int32_t dtype) {
  return dtype == EL_U8 || dtype == EL_I8 ? 1u : dtype == EL_F16 || dtype == EL_BF16 ? 2u : 4u;
}

/* Dense row-major: what most kernels require of their operands. */
static inline int el_dense(const el_tensor *t) {
  int32_t s = 1;
  for (int32_t i = t->rank - 1; i >= 0; i--) {
    if (t->dims[i] != 1 && t->strides[i] != s) return 0;
    s *= t->dims[i];
  }
  return 1;
}

/* The half-open range [*begin, *end) of `n` items that this call's chunk covers, in multiples of
 * `grain` items so that vectors stay whole. */
static inline void el_range(const el_call *c, size_t n, size_t grain, size_t *begin, size_t *end) {
  size_t grains = (n + grain - 1) / grain;
  *begin = grains * c->chunk / c->chunks * grain;
  *end = grains * (c->chunk + 1) / c->chunks * grain;
  if (*begin > n) *begin = n;
  if (*end > n) *end = n;
}

#endif
