/* Products of int8 codes without dot products: pairs of 16-bit numbers with AVX2, else the
 * compiler's choice. See quant_i8.h. */
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <stdint.h>

#if defined(__AVX2__)
typedef int16_t level; /* a rounded activation */
#define EL_I8_PANELS EL_ISA_AVX2
#else
typedef int8_t level;
#define EL_I8_PANELS EL_ISA_REF
#endif

#include "quant_i8_job.h"

enum { ROWS = EL_I8_TILE, COLUMNS = EL_I8_COLUMNS };

static void round_row(const float *t, const float *factor, float inverse, size_t n, level *q) {
  for (size_t i = 0; i < n; i++) q[i] = rounded(t, factor, inverse, i);
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

#include "quant_i8_calls.h"
