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

EL_KERNEL(conv2d) {
  const el_tensor *xt = &call->t[0], *wt = &call->t[1], *yt = &call->t[call->n - 1];
  el_conv c = el_get_conv(call, xt, wt, yt);
  c.act = call->attr[EL_W_END + 2].i;
  const float *bias = optional(call, 2), *acc = optional(call, 3);
  int32_t cg = c.in_c / c.groups, og = c.out_c / c.groups, kh = c.w.taps[0], kw = c.w.taps[1];
  size_t begin, end;
  el_range(call, (size_t)c.batch * (size_t)c.w.out[0], 1, &begin, &end);
  for (size_t row = begin; row < end; row++) {
    int32_t b = (int32_t)(row / (size_t)c.w.out[0]), oy = (int32_t)(row % (size_t)c.w.out[0]), y0,
            y1;
    el_taps(&c.w, 0, oy, &y0, &y1);
    for (int32_t ox = 0; ox < c.w.out[1]; ox++) {
      int32_t x0, x1;
      el_taps(&c.w, 1, ox, &x0, &x1);
      size_t at = el_pixel(b, oy, ox, c.w.out, c.out_c);
      for (int32_t o = 0; o < c.out_c; o++) {
        float sum = 0.0f;
        for (int32_t ky = y0; ky < y1; ky++) {
          for (int32_t kx = x0; kx < x1; kx++) {
            int32_t iy = oy * c.w.stride[0] - c.w.pad[0] + ky * c.w.step[0];
            int32_t ix = ox * c.w.stride[1] - c.w.pad[1] + kx * c.w.step[1];
            const float *x =
                el_cf32(xt) + el_pixel(b, iy, ix, c.w.in, c.in_c) + (size_t)(o / og * cg);
            const float *w =
                el_cf32(wt) +
                (((size_t)o * (size_t)kh + (size_t)ky) * (size_t)kw + (size_t)kx) * (size_t)cg;
            for (int32_t i = 0; i < cg; i++) sum += x[i] * w[i];
          }
        }
        el_f32(yt)[at + (size_t)o] =
            finish(&c, sum, at_or_null(bias, (size_t)o), at_or_null(acc, at + (size_t)o));
      }
    }
  }
}

EL_KERNEL(conv2d_dx) {
  const el_tensor *dyt = &call->t[0], *wt = &call->t[1], *dxt = &call->t[call->n - 1];
  el_conv c = el_get_conv(call, dxt, wt, dyt);
  const float *acc = optional(call, 2);
  int32_t cg = c.in_c / c.groups, og = c.out_c / c.groups, kh = c.w.taps[0], kw = c.w.taps[1];
  size_t begin, end;
  el_range(call, (size_t)c.batch * (size_t)c.w.in[0], 1, &begin, &end);
  for (size_t row = begin; row < end; row++) {
    int32_t b = (int32_t)(row / (size_t)c.w.in[0]), iy = (int32_t)(row % (size_t)c.w.in[0]);
    for (int32_t ix = 0; ix < c.w.in[1]; ix++) {
      size_t at = el_pixel(b, iy, ix, c.w.in, c.in_c);
      for (int32_t i = 0; i < c.in_c; i++) {
        float sum = 0.0f;
        int32_t o0 = i / cg * og;
        for (int32_t ky = 0; ky < kh; ky++) {
          int32_t oy = el_seen_by(&c.w, 0, iy, ky);
          if (oy < 0) continue;
          for (int32_t kx = 0; kx < kw; kx++) {
            int32_t ox = el_seen_by(&c.w, 1, ix, kx);
            if (ox < 0) continue;
            const float *dy = el_cf32(dyt) + el_pixel(b, oy, ox, c.w.out, c.out_c);
            for (int32_t o = o0; o < o0 + og; o++) {
              size_t tap = ((size_t)o * (size_t)kh + (size_t)ky) * (size_t)kw + (size_t)kx;
              sum += dy[o] * el_cf32(wt)[tap * (size_t)cg + (size_t)(i % cg)];
            }
          }
        }
        el_f32(dxt)[at + (size_t)i] = finish(&c, sum, NULL, at_or_null(acc, at + (size_t)i));
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
