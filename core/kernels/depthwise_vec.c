/* Depthwise convolution over NHWC images: vectors along the channels, sums in registers. */
#include "conv_blocks.h"
#include "depthwise.h"
#include "vec.h"


static inline float load1(const float *p) { return *p; }
static inline void store1(float *p, float v) { *p = v; }
INLINE void finish1(const el_product *p, size_t at, float sum, float bias) {
  p->c[at] = el_finish(sum, p, bias, p->acc != NULL ? p->acc[at] : 0.0f);
}

#define V vec
#define W LANES
#define LD load
#define ST store
#define FIN finish_vec
#define NAME(f) f##_wide
#include "depthwise_lanes.h"

#if LANES > 4
#define V vec4
#define W 4
#define LD load4
#define ST store4
#define FIN finish_vec4
#define NAME(f) f##_four
#include "depthwise_lanes.h"
#endif

#define V float
#define W 1
#define LD load1
#define ST store1
#define FIN finish1
#define NAME(f) f##_one
#include "depthwise_lanes.h"

/* The weights [c, taps] as [taps, c], times alpha; `flip` reverses the taps. */
static void turn_weights(const el_conv *c, const float *w, float alpha, int flip, float *out) {
  size_t n = el_taps_of(c), channels = (size_t)c->in_c;
  for (size_t i = 0; i < channels; i++) {
    for (size_t t = 0; t < n; t++) out[(flip ? n - 1 - t : t) * channels + i] = alpha * w[i * n + t];
  }
}

/* y = conv(x) with turned weights, rows [begin, end) of batch * out[0]. */
static void forward(const el_conv *c, const el_product *p, const float *x, const float *w, size_t begin,
                    size_t end) {
  /* Columns [xa, xb) see every tap. */
  int32_t xa = 0, xb = c->w.out[1];
  int32_t reach = (c->w.taps[1] - 1) * c->w.step[1];
  while (xa < xb && xa * c->w.stride[1] - c->w.pad[1] < 0) xa++;
  while (xb > xa && (xb - 1) * c->w.stride[1] - c->w.pad[1] + reach >= c->w.in[1]) xb--;
  size_t channels = (size_t)c->in_c;
  for (size_t row = begin; row < end; row++) {
    int32_t b = (int32_t)(row / (size_t)c->w.out[0]), oy = (int32_t)(row % (size_t)c->w.out[0]);
    size_t ch = 0;
    for (; ch + LANES <= channels; ch += LANES) row_wide(c, p, x, w, b, oy, xa, xb, ch);
#if LANES > 4
    for (; ch + 4 <= channels; ch += 4) row_four(c, p, x, w, b, oy, xa, xb, ch);
#endif
    for (; ch < channels; ch++) row_one(c, p, x, w, b, oy, xa, xb, ch);
  }
}

void EL_K(depthwise)(const el_call *call, const el_conv *c, const float *bias, const float *acc) {
  float *w = call->scratch;
  turn_weights(c, el_cf32(&call->t[1]), 1.0f, 0, w);
  el_product p = {.c = el_f32(&call->t[call->n - 1]), .bias = bias, .acc = acc, .alpha = c->alpha,
                  .keep = 1.0f, .act = c->act};
  size_t begin, end;
  el_range(call, (size_t)c->batch * (size_t)c->w.out[0], 1, &begin, &end);
  forward(c, &p, el_cf32(&call->t[0]), w, begin, end);
}

/* dx += dy w for the pixels of one input row, tap by tap; strides other than 1. */
static void back_row(const el_conv *c, const float *dy, const float *w, int32_t b, int32_t iy, float *dx) {
  size_t channels = (size_t)c->in_c;
  for (int32_t ix = 0; ix < c->w.in[1]; ix++, dx += channels) {
    for (int32_t ky = 0; ky < c->w.taps[0]; ky++) {
      int32_t oy = el_seen_by(&c->w, 0, iy, ky);
      if (oy < 0) continue;
      for (int32_t kx = 0; kx < c->w.taps[1]; kx++) {
        int32_t ox = el_seen_by(&c->w, 1, ix, kx);
        if (ox < 0) continue;
        const float *d = dy + el_pixel(b, oy, ox, c->w.out, c->in_c);
        const float *t = w + (size_t)(ky * c->w.taps[1] + kx) * channels;
        size_t i = 0;
        for (; i + LANES <= channels; i += LANES) store(dx + i, load(dx + i) + load(d + i) * load(t + i));
        for (; i < channels; i++) dx[i] += d[i] * t[i];
      }
    }
  }
}

void EL_K(depthwise_dx)(const el_call *call, const el_conv *c, const float *acc) {
  const float *dy = el_cf32(&call->t[0]);
  float *w = call->scratch, *dx = el_f32(&call->t[call->n - 1]);
  size_t begin, end;
  el_range(call, (size_t)c->batch * (size_t)c->w.in[0], 1, &begin, &end);
  if (c->w.stride[0] == 1 && c->w.stride[1] == 1) { /* a convolution of dy with the taps reversed */
    el_conv back = *c;
    for (int a = 0; a < 2; a++) {
      back.w.in[a] = c->w.out[a];
      back.w.out[a] = c->w.in[a];
      back.w.pad[a] = c->w.step[a] * (c->w.taps[a] - 1) - c->w.pad[a];
    }
    turn_weights(c, el_cf32(&call->t[1]), 1.0f, 1, w);
    el_product p = {.c = dx, .acc = acc, .alpha = c->alpha, .keep = 1.0f};
    forward(&back, &p, dy, w, begin, end);
    return;
  }
  turn_weights(c, el_cf32(&call->t[1]), c->alpha, 0, w);
  size_t line = (size_t)c->w.in[1] * (size_t)c->in_c;
  for (size_t row = begin; row < end; row++) {
    for (size_t i = row * line; i < (row + 1) * line; i++) dx[i] = acc != NULL ? acc[i] : 0.0f;
    back_row(c, dy, w, (int32_t)(row / (size_t)c->w.in[0]), (int32_t)(row % (size_t)c->w.in[0]), dx + row * line);
  }
}

void EL_K(depthwise_dw)(const el_call *call, const el_conv *c, const float *acc) {
  const float *dy = el_cf32(&call->t[0]), *x = el_cf32(&call->t[1]);
  el_product p = {.c = el_f32(&call->t[call->n - 1]), .acc = acc, .alpha = c->alpha, .keep = 1.0f};
  size_t ch, end;
  el_range(call, (size_t)c->in_c, LANES, &ch, &end);
  for (; ch + LANES <= end; ch += LANES) all_weights_wide(c, &p, dy, x, ch);
#if LANES > 4
  for (; ch + 4 <= end; ch += 4) all_weights_four(c, &p, dy, x, ch);
#endif
  for (; ch < end; ch++) all_weights_one(c, &p, dy, x, ch);
}
