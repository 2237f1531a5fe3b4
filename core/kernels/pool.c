/* Pools over NHWC images. Taps are taken row by row; taps outside the image are skipped.
 *
 * The gradient of a maximum goes to the first tap that holds it. An average is the sum divided by
 * the number of taps inside the image or, with count_pads, inside the padded image. */
#include "conv.h"

static el_window window_of(const el_call *call, const el_tensor *x, const el_tensor *y) {
  return el_get_window(call, x, y, call->attr[EL_W_END].i, call->attr[EL_W_END + 1].i);
}

typedef struct span {
  int32_t y0, y1, x0, x1; /* taps inside the image */
} span;

static span taps_of(const el_window *w, int32_t oy, int32_t ox) {
  span s;
  el_taps(w, 0, oy, &s.y0, &s.y1);
  el_taps(w, 1, ox, &s.x0, &s.x1);
  return s;
}

static size_t input_at(const el_window *w, int32_t b, int32_t oy, int32_t ox, int32_t ky,
                       int32_t kx, int32_t c) {
  int32_t iy = oy * w->stride[0] - w->pad[0] + ky * w->step[0];
  int32_t ix = ox * w->stride[1] - w->pad[1] + kx * w->step[1];
  return el_pixel(b, iy, ix, w->in, c);
}

static void zero(float *p, size_t n) {
  for (size_t i = 0; i < n; i++) p[i] = 0.0f;
}

EL_KERNEL(max_pool2d) {
  const el_tensor *xt = &call->t[0], *yt = &call->t[1];
  el_window w = window_of(call, xt, yt);
  int32_t c = xt->dims[3];
  size_t begin, end;
  el_range(call, (size_t)xt->dims[0], 1, &begin, &end);
  for (int32_t b = (int32_t)begin; b < (int32_t)end; b++) {
    for (int32_t oy = 0; oy < w.out[0]; oy++) {
      for (int32_t ox = 0; ox < w.out[1]; ox++) {
        span s = taps_of(&w, oy, ox);
        float *restrict y = el_f32(yt) + el_pixel(b, oy, ox, w.out, c);
        int first = 1;
        for (int32_t ky = s.y0; ky < s.y1; ky++) {
          for (int32_t kx = s.x0; kx < s.x1; kx++) {
            const float *restrict x = el_cf32(xt) + input_at(&w, b, oy, ox, ky, kx, c);
            if (first) {
              for (int32_t i = 0; i < c; i++) y[i] = x[i];
              first = 0;
            } else { /* a NaN wins and stays */
              for (int32_t i = 0; i < c; i++) y[i] = x[i] > y[i] || x[i] != x[i] ? x[i] : y[i];
            }
          }
        }
        if (first) zero(y, (size_t)c);
      }
    }
  }
}

EL_KERNEL(max_pool2d_grad) {
  const el_tensor *dyt = &call->t[0], *xt = &call->t[1], *yt = &call->t[2], *dxt = &call->t[3];
  el_window w = window_of(call, xt, yt);
  int32_t c = xt->dims[3];
  size_t begin, end, image = el_size(xt) / (size_t)xt->dims[0];
  el_range(call, (size_t)xt->dims[0], 1, &begin, &end);
  for (int32_t b = (int32_t)begin; b < (int32_t)end; b++) {
    zero(el_f32(dxt) + (size_t)b * image, image);
    for (int32_t oy = 0; oy < w.out[0]; oy++) {
      for (int32_t ox = 0; ox < w.out[1]; ox++) {
        span s = taps_of(&w, oy, ox);
        size_t out = el_pixel(b, oy, ox, w.out, c);
        for (int32_t i = 0; i < c; i++) {
          float top = el_cf32(yt)[out + (size_t)i];
          int found = 0;
          for (int32_t ky = s.y0; ky < s.y1 && !found; ky++) {
            for (int32_t kx = s.x0; kx < s.x1 && !found; kx++) {
              size_t at = input_at(&w, b, oy, ox, ky, kx, c) + (size_t)i;
              float x = el_cf32(xt)[at];
              if (x == top || x != x) {
                el_f32(dxt)[at] += el_cf32(dyt)[out + (size_t)i];
                found = 1;
              }
            }
          }
        }
      }
    }
  }
}

/* For each maximum the number of its tap, row by row; 255 where no tap is inside the image. */
EL_KERNEL(max_pool2d_tap) {
  const el_tensor *xt = &call->t[0], *tt = &call->t[1];
  el_window w = window_of(call, xt, tt);
  int32_t c = xt->dims[3];
  size_t begin, end;
  el_range(call, (size_t)xt->dims[0], 1, &begin, &end);
  for (int32_t b = (int32_t)begin; b < (int32_t)end; b++) {
    for (int32_t oy = 0; oy < w.out[0]; oy++) {
      for (int32_t ox = 0; ox < w.out[1]; ox++) {
        span s = taps_of(&w, oy, ox);
        uint8_t *tap = (uint8_t *)tt->data + el_pixel(b, oy, ox, w.out, c);
        for (int32_t i = 0; i < c; i++) {
          float top = 0.0f;
          int32_t found = 255;
          for (int32_t ky = s.y0; ky < s.y1; ky++) {
            for (int32_t kx = s.x0; kx < s.x1; kx++) {
              float x = el_cf32(xt)[input_at(&w, b, oy, ox, ky, kx, c) + (size_t)i];
              if (found == 255 || x > top || (x != x && top == top)) {
                top = x;
                found = ky * w.taps[1] + kx;
              }
            }
          }
          tap[i] = (uint8_t)found;
        }
      }
    }
  }
}

EL_KERNEL(max_pool2d_tap_grad) {
  const el_tensor *dyt = &call->t[0], *tt = &call->t[1], *dxt = &call->t[2];
  el_window w = window_of(call, dxt, dyt);
  int32_t c = dxt->dims[3];
  size_t begin, end, image = el_size(dxt) / (size_t)dxt->dims[0];
  el_range(call, (size_t)dxt->dims[0], 1, &begin, &end);
  for (int32_t b = (int32_t)begin; b < (int32_t)end; b++) {
    zero(el_f32(dxt) + (size_t)b * image, image);
    for (int32_t oy = 0; oy < w.out[0]; oy++) {
      for (int32_t ox = 0; ox < w.out[1]; ox++) {
        span s = taps_of(&w, oy, ox);
        size_t out = el_pixel(b, oy, ox, w.out, c);
        for (int32_t i = 0; i < c; i++) {
          int32_t tap = ((const uint8_t *)tt->data)[out + (size_t)i];
          int32_t ky = tap / w.taps[1], kx = tap % w.taps[1];
          if (ky < s.y0 || ky >= s.y1 || kx < s.x0 || kx >= s.x1) continue;
          el_f32(dxt)[input_at(&w, b, oy, ox, ky, kx, c) + (size_t)i] +=
              el_cf32(dyt)[out + (size_t)i];
        }
      }
    }
  }
}

/* Taps of one axis inside the image plus its counted padding. */
static int32_t counted(const el_window *w, int a, int32_t o, int32_t after) {
  el_window padded = *w;
  padded.pad[a] = 0;
  padded.in[a] = w->in[a] + w->pad[a] + after;
  int32_t t0, t1;
  el_taps(&padded, a, o, &t0, &t1);
  return t1 - t0;
}

static float divisor(const el_call *call, const el_window *w, int32_t oy, int32_t ox, span s) {
  const el_word *a = call->attr;
  int32_t n = (s.y1 - s.y0) * (s.x1 - s.x0);
  if (a[EL_W_END + 2].i) {
    n = counted(w, 0, oy, a[EL_W_PAD + 2].i - a[EL_W_END + 3].i) *
        counted(w, 1, ox, a[EL_W_PAD + 3].i - a[EL_W_END + 4].i);
  }
  return n > 0 ? (float)n : 1.0f;
}

EL_KERNEL(avg_pool2d) {
  const el_tensor *xt = &call->t[0], *yt = &call->t[1];
  el_window w = window_of(call, xt, yt);
  int32_t c = xt->dims[3];
  size_t begin, end;
  el_range(call, (size_t)xt->dims[0], 1, &begin, &end);
  for (int32_t b = (int32_t)begin; b < (int32_t)end; b++) {
    for (int32_t oy = 0; oy < w.out[0]; oy++) {
      for (int32_t ox = 0; ox < w.out[1]; ox++) {
        span s = taps_of(&w, oy, ox);
        float *restrict y = el_f32(yt) + el_pixel(b, oy, ox, w.out, c);
        zero(y, (size_t)c);
        for (int32_t ky = s.y0; ky < s.y1; ky++) {
          for (int32_t kx = s.x0; kx < s.x1; kx++) {
            const float *restrict x = el_cf32(xt) + input_at(&w, b, oy, ox, ky, kx, c);
            for (int32_t i = 0; i < c; i++) y[i] += x[i];
          }
        }
        float n = divisor(call, &w, oy, ox, s);
        for (int32_t i = 0; i < c; i++) y[i] /= n;
      }
    }
  }
}

EL_KERNEL(avg_pool2d_grad) {
  const el_tensor *dyt = &call->t[0], *dxt = &call->t[1];
  el_window w = window_of(call, dxt, dyt);
  int32_t c = dxt->dims[3];
  size_t begin, end, image = el_size(dxt) / (size_t)dxt->dims[0];
  el_range(call, (size_t)dxt->dims[0], 1, &begin, &end);
  for (int32_t b = (int32_t)begin; b < (int32_t)end; b++) {
    zero(el_f32(dxt) + (size_t)b * image, image);
    for (int32_t oy = 0; oy < w.out[0]; oy++) {
      for (int32_t ox = 0; ox < w.out[1]; ox++) {
        span s = taps_of(&w, oy, ox);
        const float *restrict dy = el_cf32(dyt) + el_pixel(b, oy, ox, w.out, c);
        float n = divisor(call, &w, oy, ox, s);
        for (int32_t ky = s.y0; ky < s.y1; ky++) {
          for (int32_t kx = s.x0; kx < s.x1; kx++) {
            float *restrict dx = el_f32(dxt) + input_at(&w, b, oy, ox, ky, kx, c);
            for (int32_t i = 0; i < c; i++) dx[i] += dy[i] / n;
          }
        }
      }
    }
  }
}
