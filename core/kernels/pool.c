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

/* One place of the result: the taps of its window, and its first element. */
typedef struct place {
  const el_call *call;
  el_window w;
  span s;
  int32_t b, oy, ox, c;
  size_t out;
} place;

/* The first element of the image that a tap sees. */
static inline size_t seen_at(const place *p, int32_t ky, int32_t kx) {
  int32_t iy = p->oy * p->w.stride[0] - p->w.pad[0] + ky * p->w.step[0];
  int32_t ix = p->ox * p->w.stride[1] - p->w.pad[1] + kx * p->w.step[1];
  return el_pixel(p->b, iy, ix, p->w.in, p->c);
}

/* Calls `at` for every place of this chunk's images: x is the image, y the result. */
static inline void each_place(const el_call *call, const el_tensor *x, const el_tensor *y,
                              void (*at)(const place *)) {
  place p = {.call = call, .w = window_of(call, x, y), .c = x->dims[3]};
  size_t begin, end;
  el_range(call, (size_t)x->dims[0], 1, &begin, &end);
  for (p.b = (int32_t)begin; p.b < (int32_t)end; p.b++) {
    for (p.oy = 0; p.oy < p.w.out[0]; p.oy++) {
      for (p.ox = 0; p.ox < p.w.out[1]; p.ox++) {
        p.s = taps_of(&p.w, p.oy, p.ox);
        p.out = el_pixel(p.b, p.oy, p.ox, p.w.out, p.c);
        at(&p);
      }
    }
  }
}

static void zero(float *p, size_t n) {
  for (size_t i = 0; i < n; i++) p[i] = 0.0f;
}

/* The images of this chunk, before gradients are added to them. */
static void zero_images(const el_call *call, const el_tensor *x) {
  size_t begin, end, image = el_size(x) / (size_t)x->dims[0];
  el_range(call, (size_t)x->dims[0], 1, &begin, &end);
  zero(el_f32(x) + begin * image, (end - begin) * image);
}

static void largest(const place *p) {
  float *restrict y = el_f32(&p->call->t[1]) + p->out;
  int first = 1;
  for (int32_t ky = p->s.y0; ky < p->s.y1; ky++) {
    for (int32_t kx = p->s.x0; kx < p->s.x1; kx++) {
      const float *restrict x = el_cf32(&p->call->t[0]) + seen_at(p, ky, kx);
      if (first) {
        for (int32_t i = 0; i < p->c; i++) y[i] = x[i];
        first = 0;
      } else { /* a NaN wins and stays */
        for (int32_t i = 0; i < p->c; i++) y[i] = x[i] > y[i] || x[i] != x[i] ? x[i] : y[i];
      }
    }
  }
  if (first) zero(y, (size_t)p->c);
}

EL_KERNEL(max_pool2d) { each_place(call, &call->t[0], &call->t[1], largest); }

static void to_largest(const place *p) {
  const el_tensor *t = p->call->t;
  for (int32_t i = 0; i < p->c; i++) {
    float top = el_cf32(&t[2])[p->out + (size_t)i];
    int found = 0;
    for (int32_t ky = p->s.y0; ky < p->s.y1 && !found; ky++) {
      for (int32_t kx = p->s.x0; kx < p->s.x1 && !found; kx++) {
        size_t at = seen_at(p, ky, kx) + (size_t)i;
        float x = el_cf32(&t[1])[at];
        if (x == top || x != x) {
          el_f32(&t[3])[at] += el_cf32(&t[0])[p->out + (size_t)i];
          found = 1;
        }
      }
    }
  }
}

EL_KERNEL(max_pool2d_grad) {
  zero_images(call, &call->t[3]);
  each_place(call, &call->t[3], &call->t[0], to_largest);
}

/* For each maximum the number of its tap, row by row; 255 where no tap is inside the image. */
static void tap_of(const place *p) {
  uint8_t *tap = (uint8_t *)p->call->t[1].data + p->out;
  for (int32_t i = 0; i < p->c; i++) {
    float top = 0.0f;
    int32_t found = 255;
    for (int32_t ky = p->s.y0; ky < p->s.y1; ky++) {
      for (int32_t kx = p->s.x0; kx < p->s.x1; kx++) {
        float x = el_cf32(&p->call->t[0])[seen_at(p, ky, kx) + (size_t)i];
        if (found == 255 || x > top || (x != x && top == top)) {
          top = x;
          found = ky * p->w.taps[1] + kx;
        }
      }
    }
    tap[i] = (uint8_t)found;
  }
}

EL_KERNEL(max_pool2d_tap) { each_place(call, &call->t[0], &call->t[1], tap_of); }

static void to_tap(const place *p) {
  const el_tensor *t = p->call->t;
  const uint8_t *tap = (const uint8_t *)t[1].data + p->out;
  for (int32_t i = 0; i < p->c; i++) {
    int32_t ky = tap[i] / p->w.taps[1], kx = tap[i] % p->w.taps[1];
    if (ky < p->s.y0 || ky >= p->s.y1 || kx < p->s.x0 || kx >= p->s.x1) continue;
    el_f32(&t[2])[seen_at(p, ky, kx) + (size_t)i] += el_cf32(&t[0])[p->out + (size_t)i];
  }
}

EL_KERNEL(max_pool2d_tap_grad) {
  zero_images(call, &call->t[2]);
  each_place(call, &call->t[2], &call->t[0], to_tap);
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

static float divisor(const place *p) {
  const el_word *a = p->call->attr;
  int32_t n = (p->s.y1 - p->s.y0) * (p->s.x1 - p->s.x0);
  if (a[EL_W_END + 2].i) {
    n = counted(&p->w, 0, p->oy, a[EL_W_PAD + 2].i - a[EL_W_END + 3].i) *
        counted(&p->w, 1, p->ox, a[EL_W_PAD + 3].i - a[EL_W_END + 4].i);
  }
  return n > 0 ? (float)n : 1.0f;
}

static void mean(const place *p) {
  float *restrict y = el_f32(&p->call->t[1]) + p->out;
  zero(y, (size_t)p->c);
  for (int32_t ky = p->s.y0; ky < p->s.y1; ky++) {
    for (int32_t kx = p->s.x0; kx < p->s.x1; kx++) {
      const float *restrict x = el_cf32(&p->call->t[0]) + seen_at(p, ky, kx);
      for (int32_t i = 0; i < p->c; i++) y[i] += x[i];
    }
  }
  float n = divisor(p);
  for (int32_t i = 0; i < p->c; i++) y[i] /= n;
}

EL_KERNEL(avg_pool2d) { each_place(call, &call->t[0], &call->t[1], mean); }

static void to_all(const place *p) {
  const float *restrict dy = el_cf32(&p->call->t[0]) + p->out;
  float n = divisor(p);
  for (int32_t ky = p->s.y0; ky < p->s.y1; ky++) {
    for (int32_t kx = p->s.x0; kx < p->s.x1; kx++) {
      float *restrict dx = el_f32(&p->call->t[1]) + seen_at(p, ky, kx);
      for (int32_t i = 0; i < p->c; i++) dx[i] += dy[i] / n;
    }
  }
}

EL_KERNEL(avg_pool2d_grad) {
  zero_images(call, &call->t[1]);
  each_place(call, &call->t[1], &call->t[0], to_all);
}
