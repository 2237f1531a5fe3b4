/* Operands of products with bfloat16 instructions: rows as they lie, and weights as panels
 * panel[l / 2, x, l % 2] of terms l and columns x, with zeros beyond both. Built for AVX512-BF16.
 *
 * Panels are packed in groups of up to EL_BF16_GROUP columns. */
#ifndef EL_BF16_PAIRS_H
#define EL_BF16_PAIRS_H

#include <immintrin.h>
#include <string.h>

#include "quant_bf16_job.h"

#define INLINE static inline __attribute__((always_inline))

/* The same instructions' f32 vectors, which this machine has too. */
void el_k_dequantize_avx512(const el_codes *q, size_t row, size_t rows, size_t column,
                            size_t columns, float *out);

INLINE __mmask16 el_mask16(size_t n) { return (__mmask16)(n >= 16 ? 0xFFFFu : (1u << n) - 1u); }

INLINE __mmask32 el_mask32(size_t n) { return n >= 32 ? 0xFFFFFFFFu : (__mmask32)((1u << n) - 1u); }

/* v[0 .. n - 1], n <= 32, rounded; zeros follow. */
INLINE __m512i el_load_rounded(const float *v, size_t n) {
  __m512 low = _mm512_maskz_loadu_ps(el_mask16(n), v);
  __m512 high = n > 16 ? _mm512_maskz_loadu_ps(el_mask16(n - 16), v + 16) : _mm512_setzero_ps();
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* out[i, 0 .. n - 1] = rounded v[i * row + ..], zeros up to a multiple of 32. */
static inline void el_round_rows(const float *v, size_t row, size_t rows, size_t n, uint16_t *out,
                                 size_t stride) {
  for (size_t i = 0; i < rows; i++, v += row, out += stride) {
    size_t l = 0;
    for (; l + 32 <= n; l += 32) {
      __m512i both =
          (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(v + l + 16), _mm512_loadu_ps(v + l));
      _mm512_storeu_si512(out + l, both);
    }
    if (l < n) _mm512_storeu_si512(out + l, el_load_rounded(v + l, n - l));
  }
}

/* Rows become columns: 16 rows of 16 pairs. */
INLINE void el_transpose16(__m512i r[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) { /* r[4 * i + c]: lane by lane, columns c, 4 + c, 8 + c, 12 + c */
    t[c] = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
    t[4 + c] = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
    t[8 + c] = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xDD);
    t[12 + c] = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xDD);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    r[c] = _mm512_shuffle_i32x4(t[c], t[4 + c], 0x88);
    r[4 + c] = _mm512_shuffle_i32x4(t[8 + c], t[12 + c], 0x88);
    r[8 + c] = _mm512_shuffle_i32x4(t[c], t[4 + c], 0xDD);
    r[12 + c] = _mm512_shuffle_i32x4(t[8 + c], t[12 + c], 0xDD);
  }
}

/* Panels of `vecs` vectors of columns, at `out`: those of vectors border(i) .. border(i + 1) - 1 of
 * i < parts. */
typedef struct el_group {
  uint16_t *out;
  size_t vecs, parts, pairs;
} el_group;

/* Border `i` of n items in `parts` nearly equal parts. */
static inline size_t el_border(size_t n, size_t parts, size_t i) { return n * i / parts; }

static inline uint16_t *el_panel(const el_group *g, size_t i) {
  return g->out + el_border(g->vecs, g->parts, i) * 32 * g->pairs;
}

/* Columns x are rows j + x of the codes, terms k0 .. k0 + n - 1 lie along them. */
static inline void el_pack_along(const el_codes *q, size_t j, size_t cols, size_t k0, size_t n,
                                 uint16_t *panel, size_t width, float *made) {
  const uint16_t *w = (const uint16_t *)q->codes + j * q->width + k0;
  for (size_t x = 0; x < cols; x += 16) {
    size_t some = cols - x < 16 ? cols - x : 16;
    if (q->kind != EL_BF16) el_k_dequantize_avx512(q, j + x, some, k0, n, made);
    for (size_t l = 0; l < n; l += 32) {
      __m512i r[16];
      __mmask32 here = el_mask32(n - l);
      if (q->kind != EL_BF16) {
        for (size_t y = 0; y < 16; y++) {
          r[y] = y < some ? el_load_rounded(made + y * n + l, n - l) : _mm512_setzero_si512();
        }
      } else if (some == 16) {
#pragma GCC unroll 16
        for (size_t y = 0; y < 16; y++)
          r[y] = _mm512_maskz_loadu_epi16(here, w + (x + y) * q->width + l);
      } else {
        for (size_t y = 0; y < 16; y++) {
          __mmask32 mine = y < some ? here : 0;
          r[y] = _mm512_maskz_loadu_epi16(mine, w + (y < some ? x + y : x) * q->width + l);
        }
      }
      el_transpose16(r);
      uint16_t *out = panel + l * width + 2 * x;
      size_t pairs = n - l < 32 ? (n - l + 1) / 2 : 16;
      for (size_t y = 0; y < pairs; y++) _mm512_storeu_si512(out + y * 2 * width, r[y]);
    }
  }
}

/* Rows whose first use is so far off are fetched. */
enum { EL_AHEAD = 16 };

/* Columns x are columns j + x of the codes, terms k0 .. k0 + n - 1 are their rows. */
static inline void el_pack_down(const el_codes *q, size_t j, size_t cols, size_t k0, size_t n,
                                const el_group *g, float *made) {
  size_t batch = q->kind == EL_BF16 ? n : n / 24 * 2; /* rows made at a time */
  if (batch < 2) batch = 2;
  for (size_t l0 = 0; l0 < n; l0 += batch) {
    size_t end = n - l0 < batch ? n : l0 + batch;
    if (q->kind != EL_BF16) el_k_dequantize_avx512(q, k0 + l0, end - l0, j, cols, made);
    for (size_t l = l0; l < end; l += 2) {
      const uint16_t *codes = (const uint16_t *)q->codes + (k0 + l) * q->width + j;
      const float *floats = made + (l - l0) * cols;
      for (size_t x = 0; q->kind == EL_BF16 && l + EL_AHEAD + 1 < n && x < cols; x += 32) {
        _mm_prefetch((const char *)(codes + EL_AHEAD * q->width + x), _MM_HINT_T0);
        _mm_prefetch((const char *)(codes + (EL_AHEAD + 1) * q->width + x), _MM_HINT_T0);
      }
      for (size_t i = 0, v = 0; i < g->parts; i++) {
        size_t last = el_border(g->vecs, g->parts, i + 1), width = (last - v) * 32;
        uint16_t *out = el_panel(g, i) + l / 2 * width;
        for (; v < last; v++, out += 32) {
          __mmask16 here = el_mask16(cols - v * 16), next = l + 1 < end ? here : 0;
          __m256i a, b;
          if (q->kind == EL_BF16) {
            a = _mm256_maskz_loadu_epi16(here, codes + v * 16);
            b = _mm256_maskz_loadu_epi16(next, codes + q->width + v * 16);
          } else {
            a = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(here, floats + v * 16));
            b = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(next, floats + cols + v * 16));
          }
          __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16);
          _mm512_storeu_si512(out, _mm512_or_si512(_mm512_cvtepu16_epi32(a), high));
        }
      }
    }
  }
}

/* Codes that are packed next, asked for while the panels at hand are multiplied. */
typedef struct el_ahead {
  const char *row;
  size_t pitch, rows, lines, line; /* bytes from row to row; rows left; lines of a row; done */
} el_ahead;

/* Columns j .. j1 - 1, terms k0 .. k0 + n - 1, at most a group of columns; nothing but bfloat16. */
static inline el_ahead el_ahead_of(const el_codes *q, int back, size_t j, size_t j1, size_t k0,
                                   size_t n) {
  if (q->kind != EL_BF16) return (el_ahead){0};
  size_t cols = j1 - j < EL_BF16_GROUP ? j1 - j : EL_BF16_GROUP;
  size_t first = back ? k0 * q->width + j : j * q->width + k0, across = back ? cols : n;
  return (el_ahead){
      .row = (const char *)((const uint16_t *)q->codes + first),
      .pitch = q->width * 2,
      .rows = back ? n : cols,
      .lines = (across * 2 + 63) / 64,
  };
}

static inline void el_ask(el_ahead *f, size_t lines) {
  for (; lines > 0 && f->rows > 0; lines--) {
    _mm_prefetch(f->row + f->line * 64, _MM_HINT_T1);
    if (++f->line == f->lines) {
      f->line = 0;
      f->row += f->pitch;
      f->rows--;
    }
  }
}

/* Columns j .. j + cols - 1, terms k0 .. k0 + n - 1 of the codes, down them (back) or along. */
static inline void el_pack(const el_codes *q, int back, size_t j, size_t cols, size_t k0, size_t n,
                           const el_group *g, float *made) {
  if (back) {
    el_pack_down(q, j, cols, k0, n, g, made);
    return;
  }
  for (size_t i = 0; i < g->parts; i++) {
    size_t v0 = el_border(g->vecs, g->parts, i), v1 = el_border(g->vecs, g->parts, i + 1);
    size_t some = cols - v0 * 16 < (v1 - v0) * 16 ? cols - v0 * 16 : (v1 - v0) * 16;
    el_pack_along(q, j + v0 * 16, some, k0, n, el_panel(g, i), (v1 - v0) * 16, made);
  }
}

#endif
