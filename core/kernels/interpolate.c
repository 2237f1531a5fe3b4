/* Weighted picks along one axis, and their transpose. Operands dense, seen as [outer, dim, inner].
 *
 *   interpolate       x, index[out,taps], weight[out,taps] -> y;   attr: axis
 *   interpolate_grad  dy, index, weight                    -> dx;  attr: axis, dim
 */
#include "kernel.h"

/* Columns of inner that one piece of work of the gradient covers. */
#define BLOCK 64

typedef struct picks {
  size_t outer, dim, inner, out, taps;
  const int32_t *index;
  const float *weight;
} picks;

/* t: the tensor whose axis is picked from. */
static picks picks_of(const el_call *call, const el_tensor *t) {
  int32_t axis = call->attr[0].i;
  picks p = {1,
             (size_t)t->dims[axis],
             1,
             (size_t)call->t[1].dims[0],
             (size_t)call->t[1].dims[1],
             el_ci32(&call->t[1]),
             el_cf32(&call->t[2])};
  for (int32_t i = 0; i < axis; i++) p.outer *= (size_t)t->dims[i];
  for (int32_t i = axis + 1; i < t->rank; i++) p.inner *= (size_t)t->dims[i];
  return p;
}

/* What is outside goes to the nearest end, so that no data can lead out of bounds. */
static size_t inside(int32_t at, size_t dim) {
  return at < 0 ? 0u : ((size_t)at >= dim ? dim - 1 : (size_t)at);
}

EL_KERNEL(interpolate) {
  picks p = picks_of(call, &call->t[0]);
  size_t row, end;
  el_range(call, p.outer * p.out, 1, &row, &end);
  for (; row < end; row++) {
    const float *x = el_cf32(&call->t[0]) + row / p.out * p.dim * p.inner;
    float *y = el_f32(&call->t[3]) + row * p.inner;
    size_t first = row % p.out * p.taps;
    for (size_t t = first; t < first + p.taps; t++) {
      const float *from = x + inside(p.index[t], p.dim) * p.inner;
      float w = p.weight[t];
      if (t == first) {
        EL_INDEPENDENT for (size_t i = 0; i < p.inner; i++) y[i] = w * from[i];
      } else {
        EL_INDEPENDENT for (size_t i = 0; i < p.inner; i++) y[i] += w * from[i];
      }
    }
  }
}

/* Contributions add up in the order of the picks. */
EL_KERNEL(interpolate_grad) {
  picks p = picks_of(call, &call->t[3]);
  size_t blocks = (p.inner + BLOCK - 1) / BLOCK, piece, end;
  el_range(call, p.outer * blocks, 1, &piece, &end);
  for (; piece < end; piece++) {
    size_t outer = piece / blocks, column = piece % blocks * BLOCK;
    size_t n = p.inner - column < BLOCK ? p.inner - column : BLOCK;
    const float *dy = el_cf32(&call->t[0]) + outer * p.out * p.inner + column;
    float *dx = el_f32(&call->t[3]) + outer * p.dim * p.inner + column;
    for (size_t k = 0; k < p.dim; k++) {
      for (size_t i = 0; i < n; i++) dx[k * p.inner + i] = 0.0f;
    }
    for (size_t t = 0; t < p.out * p.taps; t++) {
      const float *from = dy + t / p.taps * p.inner;
      float *to = dx + inside(p.index[t], p.dim) * p.inner;
      float w = p.weight[t];
      EL_INDEPENDENT for (size_t i = 0; i < n; i++) to[i] += w * from[i];
    }
  }
}
