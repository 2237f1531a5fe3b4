/* Geometry of convolutions and pools over NHWC images, read from a call that its plan accepted. */
#ifndef EL_CONV_H
#define EL_CONV_H

#include "product.h"

/* Channels that a depthwise convolution in place sets aside at once: few for memory; as many as
 * keep vectors busy where there are vectors. */
enum { EL_PLANES = 4, EL_PLANES_VEC = 16 };

/* Two axes (0 height, 1 width): output o and tap t meet input i = o * stride - pad + t * step. */
typedef struct el_window {
  int32_t in[2], out[2], taps[2], stride[2], pad[2], step[2];
} el_window;

typedef struct el_conv {
  el_window w;
  int32_t batch, in_c, out_c, groups; /* weights [out_c, taps, taps, in_c / groups] */
  float alpha;
  int act;
} el_conv;

/* Words: strides[2] pads[4] (top, left, bottom, right) dilations[2], as every window starts. */
enum { EL_W_STRIDE = 0, EL_W_PAD = 2, EL_W_STEP = 6, EL_W_END = 8 };

/* x [b, h, w, c], y [b, oh, ow, o], window of taps[0] x taps[1]. */
static inline el_window el_get_window(const el_call *call, const el_tensor *x, const el_tensor *y,
                                      int32_t taps0, int32_t taps1) {
  const el_word *a = call->attr;
  return (el_window){
      .in = {x->dims[1], x->dims[2]},
      .out = {y->dims[1], y->dims[2]},
      .taps = {taps0, taps1},
      .stride = {a[EL_W_STRIDE].i, a[EL_W_STRIDE + 1].i},
      .pad = {a[EL_W_PAD].i, a[EL_W_PAD + 1].i},
      .step = {a[EL_W_STEP].i, a[EL_W_STEP + 1].i},
  };
}

static inline el_conv el_get_conv(const el_call *call, const el_tensor *x, const el_tensor *w,
                                  const el_tensor *y) {
  return (el_conv){
      .w = el_get_window(call, x, y, w->dims[1], w->dims[2]),
      .batch = x->dims[0],
      .in_c = x->dims[3],
      .out_c = y->dims[3],
      .groups = call->attr[EL_W_END].i,
      .alpha = call->attr[EL_W_END + 1].f,
  };
}

/* Taps [*t0, *t1) of axis `a` that fall inside the input for output `o`. */
static inline void el_taps(const el_window *w, int a, int32_t o, int32_t *t0, int32_t *t1) {
  int32_t first = o * w->stride[a] - w->pad[a]; /* input position of tap 0 */
  int32_t last = first + (w->taps[a] - 1) * w->step[a];
  *t0 = first >= 0 ? 0 : (int32_t)(((int64_t)w->step[a] - 1 - first) / w->step[a]);
  *t1 = w->taps[a];
  if (last >= w->in[a]) *t1 = first >= w->in[a] ? 0 : (w->in[a] - 1 - first) / w->step[a] + 1;
  if (*t1 > w->taps[a]) *t1 = w->taps[a];
  if (*t0 > *t1) *t0 = *t1;
}

/* Position of pixel (b, y, x) in an image of `size` pixels and c channels. */
static inline size_t el_pixel(int32_t b, int32_t y, int32_t x, const int32_t size[2], int32_t c) {
  return (((size_t)b * (size_t)size[0] + (size_t)y) * (size_t)size[1] + (size_t)x) * (size_t)c;
}

/* The output that sees input `i` through tap `t` on axis `a`, or -1. */
static inline int32_t el_seen_by(const el_window *w, int a, int32_t i, int32_t t) {
  int64_t at = (int64_t)i + w->pad[a] - (int64_t)t * w->step[a];
  if (at < 0) return -1;
  if (w->stride[a] > 1) {
    if (at % w->stride[a] != 0) return -1;
    at /= w->stride[a];
  }
  return at < w->out[a] ? (int32_t)at : -1;
}

#endif
