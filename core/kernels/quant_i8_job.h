/* One product of int8 codes: its operands, rounded rows, the walk over codes and the end of a sum.
 * The includer has defined `level`, the type of a rounded activation. */
#ifndef EL_QUANT_I8_JOB_H
#define EL_QUANT_I8_JOB_H

#include "quant.h"
#include "quant_i8.h"

/* One product: `sum` terms, m rows and n columns of the result. */
typedef struct job {
  size_t m, n, sum;
  int back;
  const float *t, *factor; /* rows to round, and what they are multiplied by first or NULL */
  const level *image;      /* or a convolution, whose rows are gathered from a rounded sample */
  float r;                 /* its scale */
  size_t channels;         /* and channels */
  const el_window *window;
  int strided_back;
  const int8_t *w;
  size_t base, period, stride, jump; /* back: where term l is, see walk; jump may wrap around */
  const float *scale;                /* of columns, or NULL */
  size_t c_row;
  el_product out; /* c, acc, bias, alpha, act */
} job;

/* Element i of a row, and as an integer. */
static inline float value(const float *t, const float *factor, size_t i) {
  return factor != NULL ? t[i] * factor[i] : t[i];
}

static inline level rounded(const float *t, const float *factor, float inverse, size_t i) {
  return (level)el_nearest(value(t, factor, i) * inverse);
}

/* The includer's: n elements of a row, times `inverse`, to the nearest integer. */
static void round_row(const float *t, const float *factor, float inverse, size_t n, level *q);

/* Rounds rows of n elements with one scale, see quant_i8.h; returns the scale. */
static float round_rows(const float *t, const float *factor, size_t rows, size_t n, level *q) {
  int32_t most = 0; /* the bits of |t| order like |t|; NaN and infinity come last */
  for (size_t y = 0; y < rows; y++) {
    for (size_t i = 0; i < n; i++) {
      int32_t bits = (int32_t)(el_bits(value(t + y * n, factor, i)) & 0x7FFFFFFFu);
      most = bits > most ? bits : most;
    }
  }
  float top = el_from_bits((uint32_t)most);
  if (most >= 0x7F800000 || top < 7.8886091e-31f) { /* 2^-100 */
    for (size_t i = 0; i < rows * n; i++) q[i] = 0;
    return most >= 0x7F800000 ? el_nan() : 0.0f;
  }
  for (size_t y = 0; y < rows; y++) round_row(t + y * n, factor, 127.0f / top, n, q + y * n);
  return top / 127.0f;
}

static void copy(level *row, const level *s, size_t n) {
  if (s != NULL) {
    memcpy(row, s, n * sizeof *row);
  } else {
    memset(row, 0, n * sizeof *row);
  }
}

/* Row i of a convolution: what pixel i of the result sees in every tap, 0 outside. */
static void gather(const job *q, size_t i, level *row) {
  const el_window *w = q->window;
  int32_t y = (int32_t)(i / (size_t)w->out[1]), x = (int32_t)(i % (size_t)w->out[1]);
  int32_t x0, x1, ix = x * w->stride[1] - w->pad[1];
  size_t n = q->channels, line = (size_t)w->taps[1] * n;
  el_taps(w, 1, x, &x0, &x1);
  size_t left = (size_t)x0 * n, middle = (size_t)(x1 - x0) * n;
  for (int32_t ky = 0; ky < w->taps[0]; ky++, row += line) {
    int32_t iy = y * w->stride[0] - w->pad[0] + ky * w->step[0];
    if (iy < 0 || iy >= w->in[0] || x0 == x1) {
      copy(row, NULL, line);
      continue;
    }
    const level *s = q->image + el_pixel(0, iy, ix + x0 * w->step[1], w->in, (int32_t)n);
    if (left > 0) copy(row, NULL, left);
    if (w->step[1] == 1) {
      copy(row + left, s, middle);
    } else {
      for (size_t t = 0; t * n < middle; t++)
        copy(row + left + t * n, s + t * (size_t)w->step[1] * n, n);
    }
    if (left + middle < line) copy(row + left + middle, NULL, line - left - middle);
  }
}

/* The same for the gradient of a strided convolution: where input pixel i was seen. */
static void gather_back(const job *q, size_t i, level *row) {
  const el_window *w = q->window;
  int32_t y = (int32_t)(i / (size_t)w->in[1]), x = (int32_t)(i % (size_t)w->in[1]);
  for (int32_t ky = 0; ky < w->taps[0]; ky++) {
    int32_t oy = el_seen_by(w, 0, y, ky);
    for (int32_t kx = 0; kx < w->taps[1]; kx++, row += q->channels) {
      int32_t ox = oy < 0 ? -1 : el_seen_by(w, 1, x, kx);
      copy(row, ox < 0 ? NULL : q->image + el_pixel(0, oy, ox, w->out, (int32_t)q->channels),
           q->channels);
    }
  }
}

/* Rounded row i; returns its scale. */
static float fill(const job *q, size_t i, level *row) {
  if (q->image == NULL) return round_rows(q->t + i * q->sum, q->factor, 1, q->sum, row);
  (q->strided_back ? gather_back : gather)(q, i, row);
  return q->r;
}

/* Walks the terms of a sum over columns: term l is at base + l % period * stride + l / period *
 * jump, which is inside the codes while there are terms. */
typedef struct walk {
  size_t at, start, left;
} walk;

static walk walk_from(const job *q, size_t column) {
  return (walk){q->base + column, q->base + column, q->period};
}

static inline const int8_t *next(const job *q, walk *k) {
  const int8_t *w = q->w + k->at;
  k->at += q->stride;
  if (--k->left == 0) {
    k->start += q->jump;
    k->at = k->start;
    k->left = q->period;
  }
  return w;
}

/* c[i, j .. j + cols] from integer sums. cols is a constant where it is EL_I8_COLUMNS. */
static inline __attribute__((always_inline)) void finish_some(const job *q, const int32_t *sum,
                                                              float r, size_t i, size_t j,
                                                              const size_t cols) {
  const el_product *p = &q->out;
  float v[EL_I8_COLUMNS];
  size_t at = i * q->c_row + j;
  if (q->scale != NULL) {
    for (size_t x = 0; x < cols; x++) v[x] = p->alpha * ((float)sum[x] * (r * q->scale[j + x]));
  } else {
    for (size_t x = 0; x < cols; x++) v[x] = p->alpha * ((float)sum[x] * r);
  }
  if (p->bias != NULL) {
    for (size_t x = 0; x < cols; x++) v[x] = v[x] + p->bias[j + x];
  }
  if (p->acc != NULL) {
    for (size_t x = 0; x < cols; x++) v[x] = v[x] + p->acc[at + x];
  }
  if (p->act != EL_ACT_NONE) {
    float high = p->act == EL_ACT_RELU6 ? 6.0f : el_inf();
    for (size_t x = 0; x < cols; x++) {
      float a = v[x] > 0.0f ? v[x] : v[x] != v[x] ? v[x] : 0.0f;
      v[x] = a > high ? high : a;
    }
  }
  for (size_t x = 0; x < cols; x++) p->c[at + x] = v[x];
}

#endif
