/* Dropout: y = keep ? x / (1 - p) : 0. Whether element i is kept is a hash of (seed, step, i), so
 * the gradient draws the same mask again and nothing depends on chunks or threads. */
#include "kernel.h"
#include "math.h"

/* x, step [1] -> y; attr: p, seed. The counter is the bits of step, so no conversion can fail. */
EL_KERNEL(dropout) {
  const float *x = el_cf32(&call->t[0]);
  float *y = el_f32(&call->t[2]);
  float p = call->attr[0].f, scale = 1.0f / (1.0f - p);
  uint32_t drop = (uint32_t)(p * 16777216.0f);
  el_word step;
  step.f = el_cf32(&call->t[1])[0];
  uint32_t key = el_mix(el_mix((uint32_t)call->attr[1].i) + (uint32_t)step.i);
  size_t i, end;
  el_range(call, el_size(&call->t[0]), 16, &i, &end);
  EL_INDEPENDENT for (; i < end; i++) {
    uint32_t u = el_mix((uint32_t)i * 0x9E3779B9u + key);
    float kept = x[i] * scale;
    y[i] = (u >> 8) >= drop ? kept : 0.0f;
  }
}
