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
    for (size_t t = 0; t < n; t++)
      out[(flip ? n - 1 - t : t) * channels + i] = alpha * w[i * n + t];
  }
}

enum { MOST_COLUMNS = 256, MOST_PIXELS = 6 };

/* One output pixel by its taps inside the image: windows too large for the table of columns. */
static void lone_pixel(const el_conv *c, const el_product *p, const float *x, const float *w,
                       int32_t b, int32_t oy, int32_t ox) {
  size_t ch = 0;
  for (; ch + LANES <= (size_t)c->in_c; ch += LANES) border_pixel_wide(c, p, x, w, b, oy, ox, ch);
#if LANES > 4
  for (; ch + 4 <= (size_t)c->in_c; ch += 4) border_pixel_four(c, p, x, w, b, oy, ox, ch);
#endif
  for (; ch < (size_t)c->in_c; ch++) border_pixel_one(c, p, x, w, b, oy, ox, ch);
}

/* y = conv(x) with turned weights, rows [begin, end) of batch * out[0]. zeros: one pixel of them.
 */
static void forward(const el_conv *c, const el_product *p, const float *x, const float *w,
                    const float *zeros, size_t begin, size_t end) {
  const el_window *d = &c->w;
  const float *cols[MOST_COLUMNS];
  size_t channels = (size_t)c->in_c, kw = (size_t)d->taps[1];
  size_t stride = (size_t)d->stride[1], step = (size_t)d->step[1], reach = (kw - 1) * step + 1;
  int32_t width = d->out[1], segments = (width + MOST_PIXELS - 1) / MOST_PIXELS;
  for (size_t row = begin; row < end; row++) {
    int32_t b = (int32_t)(row / (size_t)d->out[0]), oy = (int32_t)(row % (size_t)d->out[0]), y0, y1;
    el_taps(d, 0, oy, &y0, &y1);
    for (int32_t g = 0, ox = 0; g < segments; g++) {
      int32_t stop = (int32_t)((int64_t)width * (g + 1) / segments);
      size_t pixels = (size_t)(stop - ox), n_cols = (pixels - 1) * stride + reach;
      if (n_cols > MOST_COLUMNS / (size_t)d->taps[0]) {
        for (; ox < stop; ox++) lone_pixel(c, p, x, w, b, oy, ox);
        continue;
      }
      const float **at = cols;
      for (int32_t ky = y0; ky < y1; ky++) {
        int32_t iy = oy * d->stride[0] - d->pad[0] + ky * d->step[0];
        int32_t ix = ox * d->stride[1] - d->pad[1];
        for (size_t i = 0; i < n_cols; i++, ix++) {
          *at++ = ix >= 0 && ix < d->in[1] ? x + el_pixel(b, iy, ix, d->in, c->in_c) : zeros;
        }
      }
      size_t out = el_pixel(b, oy, ox, d->out, c->in_c), rows = (size_t)(y1 - y0), ch;
      const float *taps = w + (size_t)y0 * kw * channels;
      ch = segments_wide(p, cols, n_cols, rows, kw, stride, step, taps, channels, 0, out, pixels);
#if LANES > 4
      ch = segments_four(p, cols, n_cols, rows, kw, stride, step, taps, channels, ch, out, pixels);
#endif
      segments_one(p, cols, n_cols, rows, kw, stride, step, taps, channels, ch, out, pixels);
      ox = stop;
    }
  }
}

/* The block of zeros behind the turned weights. */
static const float *zero_pixel(const el_conv *c, float *w) {
  float *zeros = w + el_taps_of(c) * (size_t)c->in_c;
  for (int32_t i = 0; i < c->in_c; i++) zeros[i] = 0.0f;
  return zeros;
}

void EL_K(depthwise)(const el_call *call, const el_conv *c, const float *weights, const float *bias,
                     const float *acc, void *scratch) {
  float *w = scratch;
  turn_weights(c, weights, 1.0f, 0, w);
  el_product p = {.c = el_f32(&call->t[call->n - 1]),
                  .bias = bias,
                  .acc = acc,
                  .alpha = c->alpha,
                  .keep = 1.0f,
                  .act = c->act};
  size_t begin, end;
  el_range(call, (size_t)c->batch * (size_t)c->w.out[0], 1, &begin, &end);
  forward(c, &p, el_cf32(&call->t[0]), w, zero_pixel(c, w), begin, end);
}

/* The geometry of dx as a convolution of dy with the taps reversed; strides of 1. */
static el_conv turned(const el_conv *c) {
  el_conv back = *c;
  for (int a = 0; a < 2; a++) {
    back.w.in[a] = c->w.out[a];
    back.w.out[a] = c->w.in[a];
    back.w.pad[a] = c->w.step[a] * (c->w.taps[a] - 1) - c->w.pad[a];
  }
  return back;
}

/* `count` channels, at most EL_PLANES_VEC, of pixels that lie to_step and from_step floats apart.
 */
static void copy_channels(float *to, size_t to_step, const float *from, size_t from_step,
                          size_t pixels, size_t count) {
  for (size_t i = 0; i < pixels; i++, to += to_step, from += from_step) {
    size_t j = 0;
    for (; j + 4 <= count; j += 4) store4(to + j, load4(from + j));
    for (; j < count; j++) to[j] = from[j];
  }
}

/* The portable kernel says what this is. A block of channels is an image of its own here: its
 * copy, its result, its weights and its zeros are in scratch. */
EL_KERNEL(depthwise_plane) {
  const el_tensor *xt = &call->t[0], *wt = &call->t[1], *yt = &call->t[call->n - 1];
  const float *bias = call->n > 3 && el_has(&call->t[2]) ? el_cf32(&call->t[2]) : NULL;
  el_conv c = el_get_conv(call, xt, wt, yt);
  int flip = call->attr[EL_W_END + 3].i;
  size_t channels = (size_t)c.in_c, pixels = (size_t)c.w.in[0] * (size_t)c.w.in[1];
  size_t taps = el_taps_of(&c), blocks = (channels + EL_PLANES_VEC - 1) / EL_PLANES_VEC, begin, end;
  float *x = (float *)call->scratch, *y = x + pixels * EL_PLANES_VEC,
        *w = y + pixels * EL_PLANES_VEC;
  el_product p = {.c = y, .alpha = c.alpha, .keep = 1.0f, .act = call->attr[EL_W_END + 2].i};
  if (flip) c = turned(&c);
  el_range(call, (size_t)c.batch * blocks, 1, &begin, &end);
  c.batch = 1;
  for (size_t block = begin; block < end; block++) {
    size_t first = block % blocks * EL_PLANES_VEC;
    size_t count = channels - first < EL_PLANES_VEC ? channels - first : EL_PLANES_VEC;
    float *image = el_f32(yt) + block / blocks * pixels * channels + first;
    const float *from = el_cf32(xt) + (image - el_f32(yt));
    copy_channels(x, count, from, channels, pixels, count);
    c.in_c = c.out_c = c.groups = (int32_t)count;
    turn_weights(&c, el_cf32(wt) + first * taps, 1.0f, flip, w);
    p.bias = bias != NULL ? bias + first : NULL;
    forward(&c, &p, x, w, zero_pixel(&c, w), 0, (size_t)c.w.out[0]);
    copy_channels(image, channels, y, count, pixels, count);
  }
}

/* dx[line of input row iy] += dy w, tap by tap; strides other than 1. */
static void back_row(const el_conv *c, const float *dy, const float *w, int32_t b, int32_t iy,
                     float *dx) {
  const el_window *d = &c->w;
  size_t channels = (size_t)c->in_c, far = (size_t)d->stride[1] * channels;
  for (int32_t ky = 0; ky < d->taps[0]; ky++) {
    int32_t oy = el_seen_by(d, 0, iy, ky);
    if (oy < 0) continue;
    for (int32_t kx = 0; kx < d->taps[1]; kx++) {
      int32_t shift = kx * d->step[1] - d->pad[1],
              ox = shift < 0 ? (d->stride[1] - 1 - shift) / d->stride[1] : 0;
      const float *e = dy + el_pixel(b, oy, 0, d->out, c->in_c) + (size_t)ox * channels;
      const float *t = w + (size_t)(ky * d->taps[1] + kx) * channels;
      int64_t ix = (int64_t)ox * d->stride[1] + shift;
      float *out = dx + (size_t)ix * channels;
      for (; ox < d->out[1] && ix < d->in[1]; ox++, ix += d->stride[1], e += channels, out += far) {
        size_t i = 0;
        for (; i + LANES <= channels; i += LANES)
          store(out + i, load(out + i) + load(e + i) * load(t + i));
        for (; i < channels; i++) out[i] += e[i] * t[i];
      }
    }
  }
}

void EL_K(depthwise_dx)(const el_call *call, const el_conv *c, const float *weights,
                        const float *acc, void *scratch) {
  const float *dy = el_cf32(&call->t[0]);
  float *w = scratch, *dx = el_f32(&call->t[call->n - 1]);
  size_t begin, end;
  el_range(call, (size_t)c->batch * (size_t)c->w.in[0], 1, &begin, &end);
  if (c->w.stride[0] == 1 && c->w.stride[1] == 1) {
    el_conv back = turned(c);
    turn_weights(c, weights, 1.0f, 1, w);
    el_product p = {.c = dx, .acc = acc, .alpha = c->alpha, .keep = 1.0f};
    forward(&back, &p, dy, w, zero_pixel(c, w), begin, end);
    return;
  }
  turn_weights(c, weights, c->alpha, 0, w);
  size_t line = (size_t)c->w.in[1] * (size_t)c->in_c;
  for (size_t row = begin; row < end; row++) {
    for (size_t i = row * line; i < (row + 1) * line; i++) dx[i] = acc != NULL ? acc[i] : 0.0f;
    back_row(c, dy, w, (int32_t)(row / (size_t)c->w.in[0]), (int32_t)(row % (size_t)c->w.in[0]),
             dx + row * line);
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
