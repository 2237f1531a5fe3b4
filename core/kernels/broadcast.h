/* Walks two dense operands that broadcast into a dense output, row by row. */
#ifndef EL_BROADCAST_H
#define EL_BROADCAST_H

#include "kernel.h"

typedef void el_row(const float *a, int sa, const float *b, int sb, float *y, size_t n);

/* Stride of output dimension i in an operand that is aligned to the right; 0 where it repeats. */
static inline size_t el_aligned_stride(const el_tensor *t, const el_tensor *y, int32_t i) {
  int32_t k = i - (y->rank - t->rank);
  return k < 0 || t->dims[k] == 1 ? 0u : (size_t)t->strides[k];
}

static inline void el_broadcast(const el_call *call, el_row *row) {
  const el_tensor *ta = &call->t[0], *tb = &call->t[1], *ty = &call->t[2];
  const float *a = el_cf32(ta), *b = el_cf32(tb);
  float *y = el_f32(ty);
  /* Dimensions that both operands step through alike become one. dims[0] is the innermost. */
  size_t dims[EL_RANK + 1] = {1}, sa[EL_RANK + 1] = {0}, sb[EL_RANK + 1] = {0};
  int32_t rank = 0;
  for (int32_t i = ty->rank - 1; i >= 0; i--) {
    size_t d = (size_t)ty->dims[i];
    if (d == 1) continue;
    size_t na = el_aligned_stride(ta, ty, i), nb = el_aligned_stride(tb, ty, i);
    int joins =
        rank > 0 && na == sa[rank - 1] * dims[rank - 1] && nb == sb[rank - 1] * dims[rank - 1];
    if (joins) {
      dims[rank - 1] *= d;
    } else {
      dims[rank] = d;
      sa[rank] = na;
      sb[rank] = nb;
      rank++;
    }
  }
  size_t begin, end, n = dims[0];
  el_range(call, el_size(ty), 16, &begin, &end);
  while (begin < end) {
    size_t rest = begin / n, col = begin % n, oa = col * sa[0], ob = col * sb[0];
    for (int32_t k = 1; k < rank; k++) {
      size_t at = rest % dims[k];
      rest /= dims[k];
      oa += at * sa[k];
      ob += at * sb[k];
    }
    size_t len = n - col < end - begin ? n - col : end - begin;
    row(a + oa, sa[0] != 0, b + ob, sb[0] != 0, y + begin, len);
    begin += len;
  }
}

#endif
