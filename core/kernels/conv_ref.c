/* The portable convolution: a plain sum for each element, nothing stored aside.
 *
 * Order of each sum, which is the definition:
 *   y   over tap rows, tap columns, channels of the group
 *   dx  over tap rows, tap columns, output channels of the group
 *   dw  over images, output rows, output columns
 * Taps outside the image are skipped. Then alpha, bias, acc, act as in product.h.
 */
#include "conv.h"

static const float *optional(const el_call *call, uint32_t i) {
  return i + 1 < call->n && el_has(&call->t[i]) ? el_cf32(&call->t[i]) : NULL;
}

static const float *at_or_null(const float *p, size_t i) { return p != NULL ? p + i : NULL; }

static float finish(const el_conv *c, float sum, const float *bias, const float *acc) {
  el_product p = {.alpha = c->alpha, .keep = 1.0f, .act = c->act, .bias = bias, .acc = acc};
  return el_finish(sum, &p, bias != NULL ? *bias : 0.0f, acc != NULL ? *acc : 0.0f);
}

/* Channels whose sums are made at once, so that they overlap. */
enum { SUMS = 4 };

/* s[j] += sum over t and i of a[j * a_next + t * a_tap + i]
 * times w[j * w_next + t * w_tap + i * w_step] */
typedef struct sums {
  size_t taps, n, a_next, a_tap, w_next, w_tap, w_step;
} sums;

static inline void add_four(float s[SUMS], const float *a, const float *w, const sums *f) {
  float s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3];
  for (size_t t = 0; t < f->taps; t++, a += f->a_tap, w += f->w_tap) {
    const float *at = a, *of = w;
    for (size_t i = 0; i < f->n; i++, at++, of += f->w_step) {
      s0 += at[0] * of[0];
      s1 += at[f->a_next] * of[f->w_next];
      s2 += at[2 * f->a_next] * of[2 * f->w_next];
      s3 += at[3 * f->a_next] * of[3 * f->w_next];
    }
  }
  s[0] = s0, s[1] = s1, s[2] = s2, s[3] = s3;
}

static inline void add_one(float *s, const float *a, const float *w, const sums *f) {
  float sum = *s;
  for (size_t t = 0; t < f->taps; t++) {
    for (size_t i = 0; i < f->n; i++) {
      sum += a[t * f->a_tap + i] * w[t * f->w_tap + i * f->w_step];
    }
  }
  *s = sum;
}

static inline void add(float s[SUMS], int32_t count, const float *a, const float *w,
                       const sums *f) {
  if (count == SUMS) {
    add_four(s, a, w, f);
  } else {
    add_one(s, a, w, f);
  }
}

/* Channels from `c` whose sums are made at once: of one group of `size`, or of groups of one
 * channel each. */
static int32_t together(int32_t c, int32_t channels, int32_t size) {
  int32_t left = size == 1 ? channels - c : size - c % size;
  return left >= SUMS ? SUMS : 1;
}

EL_KERNEL(conv2d) {
  const el_tensor *xt = &call->t[0], *wt = &call->t[1], *yt = &call->t[call->n - 1];
  el_conv c = el_get_conv(call, xt, wt, yt);
  c.act = call->attr[EL_W_END + 2].i;
  const float *bias = optional(call, 2), *acc = optional(call, 3);
  int32_t cg = c.in_c / c.groups, og = c.out_c / c.groups, kh = c.w.taps[0], kw = c.w.taps[1];
  size_t row_of_x = (size_t)c.w.in[1] * (size_t)c.in_c * (size_t)c.w.step[0];
  sums f = {.n = (size_t)cg, .a_next = og == 1 ? (size_t)cg : 0, .w_step = 1};
  f.a_tap = (size_t)c.in_c * (size_t)c.w.step[1];
  f.w_tap = (size_t)cg;
  f.w_next = (size_t)(kh * kw) * (size_t)cg;
  size_t begin, end;
  el_range(call, (size_t)c.batch * (size_t)c.w.out[0], 1, &begin, &end);
  for (size_t row = begin; row < end; row++) {
    int32_t b = (int32_t)(row / (size_t)c.w.out[0]), oy = (int32_t)(row % (size_t)c.w.out[0]), y0,
            y1;
    el_taps(&c.w, 0, oy, &y0, &y1);
    for (int32_t ox = 0; ox < c.w.out[1]; ox++) {
      int32_t x0, x1;
      el_taps(&c.w, 1, ox, &x0, &x1);
      int32_t iy = oy * c.w.stride[0] - c.w.pad[0] + y0 * c.w.step[0];
      int32_t ix = ox * c.w.stride[1] - c.w.pad[1] + x0 * c.w.step[1];
      size_t x = el_pixel(b, iy, ix, c.w.in, c.in_c);
      size_t at = el_pixel(b, oy, ox, c.w.out, c.out_c);
      f.taps = (size_t)(x1 - x0);
      if (f.a_tap == f.w_tap) f.n = f.taps * (size_t)cg, f.taps = 1; /* side by side in both */
      for (int32_t o = 0, count; o < c.out_c; o += count) {
        float sum[SUMS] = {0};
        count = together(o, c.out_c, og);
        for (int32_t ky = y0; ky < y1; ky++) {
          size_t a = x + (size_t)(ky - y0) * row_of_x + (size_t)(o / og * cg);
          size_t w = (size_t)o * f.w_next + (size_t)(ky * kw + x0) * f.w_tap;
          if (x0 < x1) add(sum, count, el_cf32(xt) + a, el_cf32(wt) + w, &f);
        }
        for (int32_t j = 0; j < count; j++) {
          size_t to = at + (size_t)(o + j);
          el_f32(yt)[to] =
              finish(&c, sum[j], at_or_null(bias, (size_t)(o + j)), at_or_null(acc, to));
        }
      }
    }
  }
}

EL_KERNEL(conv2d_dx) {
  const el_tensor *dyt = &call->t[0], *wt = &call->t[1], *dxt = &call->t[call->n - 1];
  el_conv c = el_get_conv(call, dxt, wt, dyt);
  const float *acc = optional(call, 2);
  int32_t cg = c.in_c / c.groups, og = c.out_c / c.groups, kh = c.w.taps[0], kw = c.w.taps[1];
  sums f = {.taps = 1, .n = (size_t)og, .w_next = 1, .w_step = (size_t)(kh * kw) * (size_t)cg};
  if (cg == 1) f.a_next = (size_t)og, f.w_next = (size_t)og * f.w_step;
  size_t begin, end;
  el_range(call, (size_t)c.batch * (size_t)c.w.in[0], 1, &begin, &end);
  for (size_t row = begin; row < end; row++) {
    int32_t b = (int32_t)(row / (size_t)c.w.in[0]), iy = (int32_t)(row % (size_t)c.w.in[0]);
    for (int32_t ix = 0; ix < c.w.in[1]; ix++) {
      size_t at = el_pixel(b, iy, ix, c.w.in, c.in_c);
      for (int32_t i = 0, count; i < c.in_c; i += count) {
        float sum[SUMS] = {0};
        size_t o = (size_t)(i / cg * og); /* the first output channel of the group */
        count = together(i, c.in_c, cg);
        for (int32_t ky = 0; ky < kh; ky++) {
          int32_t oy = el_seen_by(&c.w, 0, iy, ky);
          if (oy < 0) continue;
          for (int32_t kx = 0; kx < kw; kx++) {
            int32_t ox = el_seen_by(&c.w, 1, ix, kx);
            if (ox < 0) continue;
            size_t tap = (o * (size_t)kh + (size_t)ky) * (size_t)kw + (size_t)kx;
            const float *a = el_cf32(dyt) + el_pixel(b, oy, ox, c.w.out, c.out_c) + o;
            const float *w = el_cf32(wt) + tap * (size_t)cg + (size_t)(i % cg);
            add(sum, count, a, w, &f);
          }
        }
        for (int32_t j = 0; j < count; j++) {
          size_t to = at + (size_t)(i + j);
          el_f32(dxt)[to] = finish(&c, sum[j], NULL, at_or_null(acc, to));
        }
      }
    }
  }
}

EL_KERNEL(conv2d_dw) {
  const el_tensor *dyt = &call->t[0], *xt = &call->t[1], *dwt = &call->t[call->n - 1];
  el_conv c = el_get_conv(call, xt, dwt, dyt);
  const float *acc = optional(call, 2);
  int32_t cg = c.in_c / c.groups, og = c.out_c / c.groups, kh = c.w.taps[0], kw = c.w.taps[1];
  size_t begin, end;
  el_range(call, (size_t)c.out_c, 1, &begin, &end);
  for (int32_t o = (int32_t)begin; o < (int32_t)end; o++) {
    for (int32_t tap = 0; tap < kh * kw; tap++) {
      int32_t ky = tap / kw, kx = tap % kw;
      for (int32_t i = 0; i < cg; i++) {
        float sum = 0.0f;
        for (int32_t b = 0; b < c.batch; b++) {
          for (int32_t oy = 0; oy < c.w.out[0]; oy++) {
            int32_t iy = oy * c.w.stride[0] - c.w.pad[0] + ky * c.w.step[0];
            if (iy < 0 || iy >= c.w.in[0]) continue;
            for (int32_t ox = 0; ox < c.w.out[1]; ox++) {
              int32_t ix = ox * c.w.stride[1] - c.w.pad[1] + kx * c.w.step[1];
              if (ix < 0 || ix >= c.w.in[1]) continue;
              float x =
                  el_cf32(xt)[el_pixel(b, iy, ix, c.w.in, c.in_c) + (size_t)(o / og * cg + i)];
              sum += el_cf32(dyt)[el_pixel(b, oy, ox, c.w.out, c.out_c) + (size_t)o] * x;
            }
          }
        }
        size_t at = ((size_t)o * (size_t)(kh * kw) + (size_t)tap) * (size_t)cg + (size_t)i;
        el_f32(dwt)[at] = finish(&c, sum, NULL, at_or_null(acc, at));
      }
    }
  }
}
