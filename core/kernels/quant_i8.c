/* Products of int8 codes, see quant_i8.h.
 *
 *   qlinear_i8     x[m,k] codes[n,k] scale[n,1] b?[n] acc?[m,n] -> y[m,n]
 *   qlinear_i8_dx  dy[m,n] codes[n,k] scale[n,1] acc?[m,k]      -> dx[m,k]
 */
#include "quant_i8.h"

#if defined(__AVX2__)
#include <immintrin.h>
typedef int16_t level; /* a rounded activation */
#else
typedef int8_t level;
#endif

/* One call: `sum` terms, n columns of the result. */
typedef struct job {
  size_t m, n, sum;
  const float *t, *factor; /* rows to round, and what they are multiplied by first or NULL */
  const int8_t *w;
  const float *scale; /* of columns, or NULL */
  el_product out;     /* c, acc, bias, alpha, act */
} job;

/* Rounds a row, see quant_i8.h; returns r. */
static float round_row(const float *t, const float *factor, size_t n, level *q) {
  int32_t most = 0; /* the bits of |t| order like |t|; NaN and infinity come last */
  for (size_t i = 0; i < n; i++) {
    float v = factor != NULL ? t[i] * factor[i] : t[i];
    int32_t bits = (int32_t)(el_bits(v) & 0x7FFFFFFFu);
    most = bits > most ? bits : most;
  }
  float top = el_from_bits((uint32_t)most);
  if (most >= 0x7F800000 || top < 7.8886091e-31f) { /* 2^-100 */
    for (size_t i = 0; i < n; i++) q[i] = 0;
    return most >= 0x7F800000 ? el_nan() : 0.0f;
  }
  float inverse = 127.0f / top;
  for (size_t i = 0; i < n; i++) {
    float v = factor != NULL ? t[i] * factor[i] : t[i];
    /* to the nearest integer by adding 1.5 * 2^23 */
    q[i] = (level)((int32_t)el_bits(v * inverse + 12582912.0f) - 0x4B400000);
  }
  return top / 127.0f;
}

/* c[i, j .. j + cols] from integer sums: at most EL_I8_COLUMNS of them. */
static void finish(const job *q, const int32_t *sum, float r, size_t i, size_t j, size_t cols) {
  const el_product *p = &q->out;
  float v[EL_I8_COLUMNS];
  size_t at = i * q->n + j;
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

/* panel[l / 2, x, l % 2] = w[l, j + x] for x < cols, else 0. */
static void pack_columns(const job *q, size_t j, size_t cols, int16_t *panel) {
  size_t l = 0;
  for (; cols == EL_I8_COLUMNS && l + 2 <= q->sum; l += 2, panel += 32) {
    const int8_t *w = q->w + l * q->n + j;
    __m128i a = load16(w), b = load16(w + q->n);
    widen(panel, _mm_unpacklo_epi8(a, b));
    widen(panel + 16, _mm_unpackhi_epi8(a, b));
  }
  for (; l < q->sum; l += 2, panel += 32) {
    for (size_t x = 0; x < EL_I8_COLUMNS; x++) {
      const int8_t *w = q->w + l * q->n + j + x;
      panel[2 * x] = x < cols ? w[0] : 0;
      panel[2 * x + 1] = x < cols && l + 1 < q->sum ? w[q->n] : 0;
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
static void part(const job *q, int back, void *scratch, size_t i0, size_t i1, size_t j0,
                 size_t j1) {
  size_t pairs = (q->sum + 1) / 2, block = el_i8_block(q->m, q->sum);
  int16_t *panel = scratch, *a = panel + pairs * 2 * EL_I8_COLUMNS;
  float *r = (float *)(void *)((uint8_t *)a + el_i8_align((uint64_t)block * pairs * 4));
  for (size_t i = i0; i < i1; i += block) {
    size_t rows = i1 - i < block ? i1 - i : block;
    for (size_t y = 0; y < rows; y++) {
      r[y] = round_row(q->t + (i + y) * q->sum, q->factor, q->sum, a + y * 2 * pairs);
      if (q->sum % 2) a[y * 2 * pairs + q->sum] = 0;
    }
    for (size_t j = j0; j < j1; j += EL_I8_COLUMNS) {
      size_t cols = j1 - j < EL_I8_COLUMNS ? j1 - j : EL_I8_COLUMNS;
      (back ? pack_columns : pack_rows)(q, j, cols, panel);
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
static void sums(const job *q, int back, const int8_t *a, size_t j, size_t cols, int32_t *sum) {
  for (size_t x = 0; x < cols; x++) sum[x] = 0;
  if (back) {
    for (size_t l = 0; l < q->sum; l++) {
      const int8_t *w = q->w + l * q->n + j;
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

static void part(const job *q, int back, void *scratch, size_t i0, size_t i1, size_t j0,
                 size_t j1) {
  int8_t *a = scratch;
  for (size_t i = i0; i < i1; i += EL_I8_ROWS) {
    size_t rows = i1 - i < EL_I8_ROWS ? i1 - i : EL_I8_ROWS;
    float r[EL_I8_ROWS];
    for (size_t y = 0; y < rows; y++)
      r[y] = round_row(q->t + (i + y) * q->sum, q->factor, q->sum, a + y * q->sum);
    for (size_t j = j0; j < j1; j += EL_I8_COLUMNS) {
      size_t cols = j1 - j < EL_I8_COLUMNS ? j1 - j : EL_I8_COLUMNS;
      for (size_t y = 0; y < rows; y++) {
        int32_t sum[EL_I8_COLUMNS];
        sums(q, back, a + y * q->sum, j, cols, sum);
        finish(q, sum, r[y], i + y, j, cols);
      }
    }
  }
}

#endif

static const float *optional(const el_call *call, uint32_t i) {
  return i + 1 < call->n && el_has(&call->t[i]) ? el_cf32(&call->t[i]) : NULL;
}

static void run(const el_call *call, const job *q, int back) {
  size_t i0 = 0, i1 = q->m, j0 = 0, j1 = q->n;
  if (el_i8_by_rows(q->m, call->chunks)) {
    el_part(q->m, EL_I8_TILE, call->chunk, call->chunks, &i0, &i1);
  } else {
    el_part(q->n, EL_I8_COLUMNS, call->chunk, call->chunks, &j0, &j1);
  }
  if (i0 < i1 && j0 < j1) part(q, back, call->scratch, i0, i1, j0, j1);
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
      .out = {.c = el_f32(&call->t[call->n - 1]),
              .bias = optional(call, 3),
              .acc = optional(call, 4),
              .alpha = call->attr[0].f,
              .act = call->attr[1].i},
  };
  run(call, &q, 0);
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
      .out = {.c = el_f32(&call->t[call->n - 1]),
              .acc = optional(call, 3),
              .alpha = call->attr[0].f},
  };
  run(call, &q, 1);
}
