/* Rounding to a grid and back in f32: y = (clamp(round(x / scale) + zero, lo, hi) - zero) * scale,
 * rounding half to even. scale and zero have one element or one per index of an axis. */
#include "lanes.h"
#include "kernel.h"

/* Adding 1.5 * 2^23 rounds to a whole number: exact below 2^22, which the plan's bounds ensure. */
#define EL_ROUND 12582912.0f

/* round(x / scale) + zero, at most one beyond lo and hi; NaN stays NaN */
static inline float level(float x, float scale, float zero, float lo, float hi) {
  float r = el_min(el_max(x / scale, lo - 1.0f - zero), hi + 1.0f - zero);
  return ((r + EL_ROUND) - EL_ROUND) + zero;
}

typedef struct grid {
  const float *scale, *zero;
  size_t n, inner; /* channels, elements of one channel in a row */
  float lo, hi;
} grid;

static grid grid_of(const el_call *call, const el_tensor *x, const el_tensor *scale) {
  grid g = {el_cf32(scale),         el_cf32(scale + 1),    el_size(scale), 1,
            (float)call->attr[0].i, (float)call->attr[1].i};
  for (int32_t i = call->attr[2].i + 1; i < x->rank; i++) g.inner *= (size_t)x->dims[i];
  return g;
}

/* Elements from i on that share a channel, and the channel. */
static size_t run_of(const grid *g, size_t i, size_t end, size_t *channel) {
  size_t left = end - i, rest = g->inner - i % g->inner;
  *channel = g->n == 1 ? 0 : i / g->inner % g->n;
  return g->n == 1 || left < rest ? left : rest;
}

/* x, scale, zero -> y; attr: lo, hi, axis */
EL_KERNEL(fake_quant) {
  const el_tensor *t = call->t;
  grid g = grid_of(call, &t[0], &t[1]);
  size_t i, end, c;
  el_range(call, el_size(&t[0]), 16, &i, &end);
  while (i < end) {
    size_t len = run_of(&g, i, end, &c);
    const float *x = el_cf32(&t[0]) + i;
    float *y = el_f32(&t[3]) + i, scale = g.scale[c], zero = g.zero[c];
    EL_INDEPENDENT for (size_t j = 0; j < len; j++) {
      float q = el_min(el_max(level(x[j], scale, zero, g.lo, g.hi), g.lo), g.hi);
      y[j] = (q - zero) * scale;
    }
    i += len;
  }
}

/* dy, x, scale, zero -> dx: dy where x was not cut off; attr: lo, hi, axis */
EL_KERNEL(fake_quant_grad) {
  const el_tensor *t = call->t;
  grid g = grid_of(call, &t[1], &t[2]);
  size_t i, end, c;
  el_range(call, el_size(&t[0]), 16, &i, &end);
  while (i < end) {
    size_t len = run_of(&g, i, end, &c);
    const float *dy = el_cf32(&t[0]) + i, *x = el_cf32(&t[1]) + i;
    float *dx = el_f32(&t[4]) + i, scale = g.scale[c], zero = g.zero[c];
    EL_INDEPENDENT for (size_t j = 0; j < len; j++) {
      float q = level(x[j], scale, zero, g.lo, g.hi);
      dx[j] = (q >= g.lo) & (q <= g.hi) ? dy[j] : 0.0f;
    }
    i += len;
  }
}

/* x -> scale [1], zero [1] of the grid of levels lo..hi over min(x, 0)..max(x, 0), as ONNX's
 * DynamicQuantizeLinear has it; attr: lo, hi */
EL_KERNEL(quant_range) {
  const float *x = el_cf32(&call->t[0]);
  size_t n = el_size(&call->t[0]);
  float lo = (float)call->attr[0].i, hi = (float)call->attr[1].i;
  float low[EL_LANES] = {0}, high[EL_LANES] = {0};
  EL_LANES_LOOP(n, {
    low[j] = el_min(x[i + j], low[j]);
    high[j] = el_max(x[i + j], high[j]);
  });
  for (size_t j = 1; j < EL_LANES; j++) {
    low[0] = el_min(low[j], low[0]);
    high[0] = el_max(high[j], high[0]);
  }
  float span = high[0] - low[0], scale = span == 0.0f ? 1.0f : span / (hi - lo);
  float zero = el_min(el_max(lo - low[0] / scale, lo), hi);
  el_f32(&call->t[1])[0] = scale;
  el_f32(&call->t[2])[0] = (zero + EL_ROUND) - EL_ROUND;
}
