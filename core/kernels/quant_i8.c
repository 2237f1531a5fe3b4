/* Products of int8 codes, see quant_i8.h.
 *
 *   qlinear_i8     x[m,k] codes[n,k] scale[n,1] b?[n] acc?[m,n] -> y[m,n]
 *   qlinear_i8_dx  dy[m,n] codes[n,k] scale[n,1] acc?[m,k]      -> dx[m,k]
 *   qconv2d_i8, qconv2d_i8_dx  as conv2d and conv2d_dx of one group, codes [o, taps * channels]
 */
#include "quant_i8.h"

#include "quant.h"

#if defined(__AVX2__)
#include <immintrin.h>
typedef int16_t level; /* a rounded activation */
#define EL_I8_PANELS EL_ISA_AVX2
#else
typedef int8_t level;
#define EL_I8_PANELS EL_ISA_REF
#endif

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

static float value(const float *t, const float *factor, size_t i) {
  return factor != NULL ? t[i] * factor[i] : t[i];
}

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
  float inverse = 127.0f / top;
  for (size_t y = 0; y < rows; y++) {
    for (size_t i = 0; i < n; i++) {
      /* to the nearest integer by adding 1.5 * 2^23 */
      float v = value(t + y * n, factor, i) * inverse + 12582912.0f;
      q[y * n + i] = (level)((int32_t)el_bits(v) - 0x4B400000);
    }
  }
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

static void finish(const job *q, const int32_t *sum, float r, size_t i, size_t j, size_t cols) {
  if (cols == EL_I8_COLUMNS) {
    finish_some(q, sum, r, i, j, EL_I8_COLUMNS);
  } else {
    finish_some(q, sum, r, i, j, cols);
  }
}

#if defined(__AVX2__)

/* Rows become columns: eight rows of eight 16-bit numbers. */
static inline void transpose8(__m128i r[8]) {
  __m128i a[8], b[8];
  for (int i = 0; i < 4; i++) {
    a[2 * i] = _mm_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
    a[2 * i + 1] = _mm_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 2; i++) {
    b[4 * i] = _mm_unpacklo_epi32(a[4 * i], a[4 * i + 2]);
    b[4 * i + 1] = _mm_unpackhi_epi32(a[4 * i], a[4 * i + 2]);
    b[4 * i + 2] = _mm_unpacklo_epi32(a[4 * i + 1], a[4 * i + 3]);
    b[4 * i + 3] = _mm_unpackhi_epi32(a[4 * i + 1], a[4 * i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    r[2 * i] = _mm_unpacklo_epi64(b[i], b[i + 4]);
    r[2 * i + 1] = _mm_unpackhi_epi64(b[i], b[i + 4]);
  }
}

static inline __m128i load16(const int8_t *p) { return _mm_loadu_si128((const __m128i *)p); }
static inline void widen(int16_t *p, __m128i pairs) {
  _mm256_storeu_si256((__m256i *)p, _mm256_cvtepi8_epi16(pairs));
}

/* panel[l / 2, x, l % 2] = w[j + x, l] for x < cols, else 0. */
static void pack_rows(const job *q, size_t j, size_t cols, int16_t *panel) {
  size_t k = q->sum, l = 0;
  for (; cols == EL_I8_COLUMNS && l + 16 <= k; l += 16, panel += 8 * 32) {
    for (size_t half = 0; half < 2; half++) {
      __m128i r[8];
      for (size_t x = 0; x < 8; x++) r[x] = load16(q->w + (j + 8 * half + x) * k + l);
      transpose8(r);
      for (size_t x = 0; x < 8; x++) widen(panel + x * 32 + 16 * half, r[x]);
    }
  }
  for (; l < k; l += 2, panel += 32) {
    for (size_t x = 0; x < EL_I8_COLUMNS; x++) {
      const int8_t *w = q->w + (j + x) * k + l;
      panel[2 * x] = x < cols ? w[0] : 0;
      panel[2 * x + 1] = x < cols && l + 1 < k ? w[1] : 0;
    }
  }
}

/* panel[l / 2, x, l % 2] = term l of column j + x for x < cols, else 0. */
static void pack_columns(const job *q, size_t j, size_t cols, int16_t *panel) {
  walk k = walk_from(q, j);
  size_t l = 0;
  for (; cols == EL_I8_COLUMNS && l + 2 <= q->sum; l += 2, panel += 32) {
    __m128i a = load16(next(q, &k)), b = load16(next(q, &k));
    widen(panel, _mm_unpacklo_epi8(a, b));
    widen(panel + 16, _mm_unpackhi_epi8(a, b));
  }
  for (; l < q->sum; l += 2, panel += 32) {
    const int8_t *a = next(q, &k), *b = l + 1 < q->sum ? next(q, &k) : NULL;
    for (size_t x = 0; x < EL_I8_COLUMNS; x++) {
      panel[2 * x] = x < cols ? a[x] : 0;
      panel[2 * x + 1] = x < cols && b != NULL ? b[x] : 0;
    }
  }
}

/* Sums of mr rows and 16 columns; mr is a constant wherever this is inlined. */
static inline __attribute__((always_inline)) void tile(const int16_t *a, size_t pairs,
                                                       const int16_t *panel, int32_t *out,
                                                       const size_t mr) {
  __m256i s[EL_I8_TILE][2];
#pragma GCC unroll 4
  for (size_t r = 0; r < mr; r++) s[r][0] = s[r][1] = _mm256_setzero_si256();
  for (size_t l = 0; l < pairs; l++, panel += 32) {
    __m256i b0 = _mm256_loadu_si256((const __m256i *)panel);
    __m256i b1 = _mm256_loadu_si256((const __m256i *)(panel + 16));
#pragma GCC unroll 4
    for (size_t r = 0; r < mr; r++) {
      int32_t pair;
      memcpy(&pair, a + 2 * (r * pairs + l), sizeof pair);
      __m256i v = _mm256_set1_epi32(pair);
      s[r][0] = _mm256_add_epi32(s[r][0], _mm256_madd_epi16(v, b0));
      s[r][1] = _mm256_add_epi32(s[r][1], _mm256_madd_epi16(v, b1));
    }
  }
#pragma GCC unroll 4
  for (size_t r = 0; r < mr; r++) {
    _mm256_storeu_si256((__m256i *)(out + r * 16), s[r][0]);
    _mm256_storeu_si256((__m256i *)(out + r * 16 + 8), s[r][1]);
  }
}

static void any_tile(const int16_t *a, size_t pairs, const int16_t *panel, int32_t *out,
                     size_t mr) {
  switch (mr) {
    case 4:
      tile(a, pairs, panel, out, 4);
      break;
    case 3:
      tile(a, pairs, panel, out, 3);
      break;
    case 2:
      tile(a, pairs, panel, out, 2);
      break;
    default:
      tile(a, pairs, panel, out, 1);
      break;
  }
}

/* Rows [i0, i1), columns [j0, j1). */
static void part(const job *q, void *scratch, size_t i0, size_t i1, size_t j0, size_t j1) {
  size_t pairs = (q->sum + 1) / 2, block = el_i8_block(q->m, q->sum);
  int16_t *panel = scratch, *a = panel + pairs * 2 * EL_I8_COLUMNS;
  float *r = (float *)(void *)((uint8_t *)a + el_i8_align((uint64_t)block * pairs * 4));
  for (size_t i = i0; i < i1; i += block) {
    size_t rows = i1 - i < block ? i1 - i : block;
    for (size_t y = 0; y < rows; y++) {
      r[y] = fill(q, i + y, a + y * 2 * pairs);
      if (q->sum % 2) a[y * 2 * pairs + q->sum] = 0;
    }
    for (size_t j = j0; j < j1; j += EL_I8_COLUMNS) {
      size_t cols = j1 - j < EL_I8_COLUMNS ? j1 - j : EL_I8_COLUMNS;
      (q->back ? pack_columns : pack_rows)(q, j, cols, panel);
      for (size_t y = 0; y < rows; y += EL_I8_TILE) {
        int32_t sum[EL_I8_TILE * EL_I8_COLUMNS];
        size_t mr = rows - y < EL_I8_TILE ? rows - y : EL_I8_TILE;
        any_tile(a + y * 2 * pairs, pairs, panel, sum, mr);
        for (size_t x = 0; x < mr; x++)
          finish(q, sum + x * EL_I8_COLUMNS, r[y + x], i + y + x, j, cols);
      }
    }
  }
}

#else

/* sum[x] of row a and columns [j, j + cols). */
static void sums(const job *q, const int8_t *a, size_t j, size_t cols, int32_t *sum) {
  for (size_t x = 0; x < cols; x++) sum[x] = 0;
  if (q->back) {
    walk k = walk_from(q, j);
    for (size_t l = 0; l < q->sum; l++) {
      const int8_t *w = next(q, &k);
      for (size_t x = 0; x < cols; x++) sum[x] += a[l] * w[x];
    }
    return;
  }
  for (size_t x = 0; x < cols; x++) {
    const int8_t *w = q->w + (j + x) * q->sum;
    int32_t s = 0;
    for (size_t l = 0; l < q->sum; l++) s += a[l] * w[l];
    sum[x] = s;
  }
}

static void part(const job *q, void *scratch, size_t i0, size_t i1, size_t j0, size_t j1) {
  int8_t *a = scratch;
  for (size_t i = i0; i < i1; i += EL_I8_ROWS) {
    size_t rows = i1 - i < EL_I8_ROWS ? i1 - i : EL_I8_ROWS;
    float r[EL_I8_ROWS];
    for (size_t y = 0; y < rows; y++) r[y] = fill(q, i + y, a + y * q->sum);
    for (size_t j = j0; j < j1; j += EL_I8_COLUMNS) {
      size_t cols = j1 - j < EL_I8_COLUMNS ? j1 - j : EL_I8_COLUMNS;
      for (size_t y = 0; y < rows; y++) {
        int32_t sum[EL_I8_COLUMNS];
        sums(q, a + y * q->sum, j, cols, sum);
        finish(q, sum, r[y], i + y, j, cols);
      }
    }
  }
}

#endif

static const float *optional(const el_call *call, uint32_t i) {
  return i + 1 < call->n && el_has(&call->t[i]) ? el_cf32(&call->t[i]) : NULL;
}

static void run(const el_call *call, const job *q) {
  size_t i0 = 0, i1 = q->m, j0 = 0, j1 = q->n;
  if (el_i8_by_rows(q->m, call->chunks)) {
    el_part(q->m, EL_I8_TILE, call->chunk, call->chunks, &i0, &i1);
  } else {
    el_part(q->n, EL_I8_COLUMNS, call->chunk, call->chunks, &j0, &j1);
  }
  if (i0 < i1 && j0 < j1) part(q, call->scratch, i0, i1, j0, j1);
}

EL_KERNEL(qlinear_i8) {
  const el_tensor *x = &call->t[0], *w = &call->t[1];
  size_t n = (size_t)w->dims[0], k = (size_t)w->dims[1];
  job q = {
      .m = el_size(x) / k,
      .n = n,
      .sum = k,
      .t = el_cf32(x),
      .w = (const int8_t *)w->data,
      .scale = el_cf32(&call->t[2]),
      .c_row = n,
      .out = {.c = el_f32(&call->t[call->n - 1]),
              .bias = optional(call, 3),
              .acc = optional(call, 4),
              .alpha = call->attr[0].f,
              .act = call->attr[1].i},
  };
  run(call, &q);
}

EL_KERNEL(qlinear_i8_dx) {
  const el_tensor *dy = &call->t[0], *w = &call->t[1];
  size_t n = (size_t)w->dims[0], k = (size_t)w->dims[1];
  job q = {
      .m = el_size(dy) / n,
      .n = k,
      .sum = n,
      .t = el_cf32(dy),
      .factor = el_cf32(&call->t[2]),
      .w = (const int8_t *)w->data,
      .period = n,
      .stride = k,
      .back = 1,
      .c_row = k,
      .out = {.c = el_f32(&call->t[call->n - 1]),
              .acc = optional(call, 3),
              .alpha = call->attr[0].f},
  };
  run(call, &q);
}

/* Samples of a convolution, each rounded with one scale. */
static void samples(const el_call *call, job *q, size_t pixels, const float *t,
                    const float *factor) {
  size_t begin, end;
  level *image =
      (level *)(void *)((uint8_t *)call->scratch + el_i8_scratch(q->m, q->sum, EL_I8_PANELS));
  el_product whole = q->out;
  q->image = image;
  el_range(call, (size_t)call->t[0].dims[0], 1, &begin, &end);
  for (size_t b = begin; b < end; b++) {
    q->r = round_rows(t + b * pixels * q->channels, factor, pixels, q->channels, image);
    q->out.c = whole.c + b * q->m * q->n;
    q->out.acc = whole.acc != NULL ? whole.acc + b * q->m * q->n : NULL;
    part(q, call->scratch, 0, q->m, 0, q->n);
  }
}

EL_KERNEL(qconv2d_i8) {
  const el_tensor *x = &call->t[0], *y = &call->t[call->n - 1];
  el_conv c = el_get_qconv(call, x, y, 0);
  el_window window = c.w;
  job q = {
      .m = (size_t)c.w.out[0] * (size_t)c.w.out[1],
      .n = (size_t)c.out_c,
      .sum = el_taps_of(&c),
      .channels = (size_t)c.in_c,
      .window = &window,
      .w = (const int8_t *)call->t[1].data,
      .scale = el_cf32(&call->t[2]),
      .c_row = (size_t)c.out_c,
      .out = {.c = el_f32(y),
              .bias = optional(call, 3),
              .acc = optional(call, 4),
              .alpha = c.alpha,
              .act = c.act},
  };
  samples(call, &q, (size_t)c.w.in[0] * (size_t)c.w.in[1], el_cf32(x), NULL);
}

EL_KERNEL(qconv2d_i8_dx) {
  const el_tensor *dy = &call->t[0], *dx = &call->t[call->n - 1];
  el_conv c = el_get_qconv(call, dx, dy, 1);
  el_window window = c.w;
  size_t taps = (size_t)c.w.taps[0] * (size_t)c.w.taps[1], cg = (size_t)c.in_c;
  job q = {
      .m = (size_t)c.w.in[0] * (size_t)c.w.in[1],
      .n = cg,
      .sum = taps * (size_t)c.out_c,
      .back = 1,
      .channels = (size_t)c.out_c,
      .window = &window,
      .strided_back = c.w.stride[0] != 1 || c.w.stride[1] != 1,
      .w = (const int8_t *)call->t[1].data,
      .period = (size_t)c.out_c,
      .stride = taps * cg,
      .jump = cg,
      .c_row = cg,
      .out = {.c = el_f32(dx), .acc = optional(call, 3), .alpha = c.alpha},
  };
  if (!q.strided_back) { /* a convolution of dy with the taps reversed */
    for (int a = 0; a < 2; a++) {
      window.in[a] = c.w.out[a];
      window.out[a] = c.w.in[a];
      window.pad[a] = c.w.step[a] * (c.w.taps[a] - 1) - c.w.pad[a];
    }
    q.base = (taps - 1) * cg;
    q.jump = 0 - cg;
  }
  samples(call, &q, (size_t)c.w.out[0] * (size_t)c.w.out[1], el_cf32(dy), el_cf32(&call->t[2]));
}
