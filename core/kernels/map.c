/* Elementwise maps of one tensor: y[i] = f(x[i]). x and y dense, same dims; y may be x. */
#include "kernel.h"

EL_KERNEL(relu) {
  const float *x = el_cf32(&call->t[0]);
  float *y = el_f32(&call->t[1]);
  size_t i, end;
  el_range(call, el_size(&call->t[0]), 16, &i, &end);
  for (; i < end; i++) y[i] = x[i] > 0.0f ? x[i] : 0.0f;
}
