/* Products with operands rounded to bfloat16 with the machine's own instruction, AVX512-BF16: it
 * adds the products of two pairs to each of 16 sums.
 *
 * Each element of the result is one chain over pairs of terms, in blocks of el_bf16_terms; forward
 * over few rows has one chain a lane. So its bits depend on shapes only.
 */
#include "bf16_pairs.h"

enum { ROWS = 8, VECS = EL_BF16_PANEL / 16 };

/* GCC keeps arrays of sums in registers around this; around its builtin it copies them. */
#define DOT(sum, a, b) __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))

/* A block of terms: rounded rows, a panel of weights, and what the result holds before and after.
 */
typedef struct block {
  const uint16_t *rows, *panel;
  size_t stride, pairs; /* in elements; terms / 2 */
  const float *before;  /* added, laid out as c; NULL for nothing */
  const float *bias;    /* NULL but in the first block */
  int act;              /* none but in the last block */
} block;

INLINE __m512 activated(__m512 v, int act) {
  __m512 zero = _mm512_setzero_ps();
  __mmask16 keep = _mm512_cmp_ps_mask(v, zero, _CMP_GT_OQ) | _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  v = _mm512_maskz_mov_ps(keep, v);
  if (act != EL_ACT_RELU6) return v;
  __m512 high = _mm512_set1_ps(6.0f);
  return _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(v, high, _CMP_GT_OQ), high);
}

/* Rows i .. i + mr - 1 of the part, columns j .. j + cols - 1 of c. mr and nv are constants
 * wherever this is inlined. */
INLINE void tile(const el_bf16_job *q, const block *b, size_t i, size_t j, size_t cols,
                 const size_t mr, const size_t nv) {
  const el_product *p = &q->p;
  __m512 sum[ROWS][VECS];
#pragma GCC unroll 8
  for (size_t r = 0; r < mr; r++) {
#pragma GCC unroll 4
    for (size_t v = 0; v < nv; v++) sum[r][v] = _mm512_setzero_ps();
  }
  const uint16_t *a = b->rows + i * b->stride, *w = b->panel;
  const size_t stride = b->stride;
  for (size_t l = b->pairs; l > 0; l--, a += 2, w += nv * 32) {
    __m512i wv[VECS];
#pragma GCC unroll 4
    for (size_t v = 0; v < nv; v++) wv[v] = _mm512_loadu_si512(w + v * 32);
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++) {
      int32_t pair;
      memcpy(&pair, a + r * stride, sizeof pair);
      __m512i av = _mm512_set1_epi32(pair);
#pragma GCC unroll 4
      for (size_t v = 0; v < nv; v++) DOT(sum[r][v], av, wv[v]);
    }
  }
  const __m512 alpha = _mm512_set1_ps(p->alpha);
  const size_t at = (q->i0 + i) * p->c_row + j;
  __mmask16 here[VECS];
  __m512 bias[VECS];
#pragma GCC unroll 4
  for (size_t v = 0; v < nv; v++) {
    here[v] = el_mask16(cols - v * 16);
    bias[v] = b->bias != NULL ? _mm512_maskz_loadu_ps(here[v], b->bias + j + v * 16)
                              : _mm512_setzero_ps();
  }
#pragma GCC unroll 8
  for (size_t r = 0; r < mr; r++) {
#pragma GCC unroll 4
    for (size_t v = 0; v < nv; v++) sum[r][v] = _mm512_fmadd_ps(alpha, sum[r][v], bias[v]);
  }
  if (b->before != NULL) {
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++) {
#pragma GCC unroll 4
      for (size_t v = 0; v < nv; v++) {
        const float *before = b->before + at + r * p->c_row + v * 16;
        sum[r][v] = _mm512_add_ps(sum[r][v], _mm512_maskz_loadu_ps(here[v], before));
      }
    }
  }
  if (b->act != EL_ACT_NONE) {
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++) {
#pragma GCC unroll 4
      for (size_t v = 0; v < nv; v++) sum[r][v] = activated(sum[r][v], b->act);
    }
  }
#pragma GCC unroll 8
  for (size_t r = 0; r < mr; r++) {
#pragma GCC unroll 4
    for (size_t v = 0; v < nv; v++)
      _mm512_mask_storeu_ps(p->c + at + r * p->c_row + v * 16, here[v], sum[r][v]);
  }
}

typedef void tile_fn(const el_bf16_job *q, const block *b, size_t i, size_t j, size_t cols);

#define TILE(mr, nv)                                                                     \
  static void tile_##mr##_##nv(const el_bf16_job *q, const block *b, size_t i, size_t j, \
                               size_t cols) {                                            \
    tile(q, b, i, j, cols, mr, nv);                                                      \
  }
#define TILES(nv) \
  TILE(1, nv) TILE(2, nv) TILE(3, nv) TILE(4, nv) TILE(5, nv) TILE(6, nv) TILE(7, nv) TILE(8, nv)
#define NAMES(nv)                                                                              \
  {                                                                                            \
    tile_1_##nv, tile_2_##nv, tile_3_##nv, tile_4_##nv, tile_5_##nv, tile_6_##nv, tile_7_##nv, \
        tile_8_##nv                                                                            \
  }
TILES(1) TILES(2) TILES(3) static tile_fn *const tiles[VECS][ROWS] = {NAMES(1), NAMES(2), NAMES(3)};

/* All rows of the part, columns from j on: panel `part` of the group. */
static void heights(const el_bf16_job *q, block *b, const el_group *g, size_t part, size_t j,
                    el_ahead *next) {
  size_t v0 = el_border(g->vecs, g->parts, part), nv = el_border(g->vecs, g->parts, part + 1) - v0;
  size_t rows = q->i1 - q->i0, tall = (rows + ROWS - 1) / ROWS;
  size_t cols = q->j1 - j < nv * 16 ? q->j1 - j : nv * 16;
  size_t ask = next->rows * next->lines / ((g->parts - part) * tall) + 1;
  b->panel = el_panel(g, part);
  for (size_t h = 0; h < tall; h++) {
    el_ask(next, ask);
    size_t i = el_border(rows, tall, h), mr = el_border(rows, tall, h + 1) - i;
    tiles[nv - 1][mr - 1](q, b, i, j, cols);
  }
}

static void part(const el_bf16_job *q, uint8_t *scratch) {
  const el_product *p = &q->p;
  size_t terms = el_bf16_terms(p->k);
  uint16_t *a = (uint16_t *)(void *)scratch;
  scratch += el_bf16_rows_bytes(q->cut.rows, terms);
  float *made = (float *)(void *)(scratch + el_bf16_group_bytes(terms));
  for (size_t k0 = 0; k0 < p->k; k0 += terms) {
    size_t n = p->k - k0 < terms ? p->k - k0 : terms;
    block b = {
        .rows = a,
        .stride = el_bf16_stride(terms),
        .pairs = (n + 1) / 2,
        .before = k0 > 0 ? p->c : p->acc,
        .bias = k0 > 0 ? NULL : p->bias,
        .act = k0 + n == p->k ? p->act : EL_ACT_NONE,
    };
    el_round_rows(p->a + q->i0 * p->k + k0, p->k, q->i1 - q->i0, n, a, b.stride);
    for (size_t j = q->j0; j < q->j1; j += EL_BF16_GROUP) {
      size_t cols = q->j1 - j < EL_BF16_GROUP ? q->j1 - j : EL_BF16_GROUP;
      el_group g = {.out = (uint16_t *)(void *)scratch, .vecs = (cols + 15) / 16, .pairs = b.pairs};
      g.parts = (g.vecs + VECS - 1) / VECS;
      el_pack(&q->q, q->back, j, cols, k0, n, &g, made);
      el_ahead next = {0};
      size_t after = k0 + n, then = p->k - after < terms ? p->k - after : terms;
      if (j + cols < q->j1) {
        next = el_ahead_of(&q->q, q->back, j + cols, q->j1, k0, n);
      } else if (after < p->k) {
        next = el_ahead_of(&q->q, q->back, q->j0, q->j1, after, then);
      }
      for (size_t i = 0; i < g.parts; i++) {
        heights(q, &b, &g, i, j + el_border(g.vecs, g.parts, i) * 16, &next);
      }
    }
  }
}

/* Forward over few rows reads weights where they lie, or made from other codes four rows of them at
 * a time. */
typedef struct few {
  const uint16_t *rows; /* rounded */
  size_t stride;
  float *made;
} few;

/* c[.., j .. j + nc - 1] of mr rows, weights read where they lie. */
INLINE void dots(const el_bf16_job *q, const few *f, size_t i, size_t j, const size_t mr,
                 const size_t nc, const int32_t kind) {
  const el_product *p = &q->p;
  const uint16_t *w = (const uint16_t *)q->q.codes + j * p->k;
  __m512 sum[4][4];
#pragma GCC unroll 4
  for (size_t r = 0; r < mr; r++) {
#pragma GCC unroll 4
    for (size_t c = 0; c < nc; c++) sum[r][c] = _mm512_setzero_ps();
  }
  for (size_t l = 0; l < p->k; l += 32) {
    __mmask32 here = el_mask32(p->k - l);
    __m512i av[4];
#pragma GCC unroll 4
    for (size_t r = 0; r < mr; r++) av[r] = _mm512_loadu_si512(f->rows + (i + r) * f->stride + l);
#pragma GCC unroll 4
    for (size_t c = 0; c < nc; c++) {
      __m512i wv = kind == EL_BF16 ? _mm512_maskz_loadu_epi16(here, w + c * p->k + l)
                                   : el_load_rounded(f->made + c * p->k + l, p->k - l);
#pragma GCC unroll 4
      for (size_t r = 0; r < mr; r++) DOT(sum[r][c], av[r], wv);
    }
  }
#pragma GCC unroll 4
  for (size_t r = 0; r < mr; r++) {
#pragma GCC unroll 4
    for (size_t c = 0; c < nc; c++) {
      size_t at = (i + r) * p->c_row + j + c;
      p->c[at] =
          el_finish(_mm512_reduce_add_ps(sum[r][c]), p, p->bias != NULL ? p->bias[j + c] : 0.0f,
                    p->acc != NULL ? p->acc[at] : 0.0f);
    }
  }
}

/* Columns j .. j + nc - 1 of all rows. */
INLINE void few_columns(const el_bf16_job *q, const few *f, size_t j, const size_t nc) {
  size_t i = 0, m = q->p.m;
  if (q->q.kind == EL_BF16) {
    for (; i + 4 <= m; i += 4) dots(q, f, i, j, 4, nc, EL_BF16);
    for (; i < m; i++) dots(q, f, i, j, 1, nc, EL_BF16);
    return;
  }
  el_k_dequantize_avx512(&q->q, j, nc, 0, q->p.k, f->made);
  for (; i + 4 <= m; i += 4) dots(q, f, i, j, 4, nc, EL_F32);
  for (; i < m; i++) dots(q, f, i, j, 1, nc, EL_F32);
}

static void few_rows(const el_bf16_job *q, uint8_t *scratch) {
  size_t k = q->p.k, j = q->j0;
  uint16_t *rows = (uint16_t *)(void *)scratch;
  few f = {.rows = rows, .stride = el_bf16_stride(k)};
  f.made = (float *)(void *)(scratch + el_bf16_rows_bytes(q->p.m, k));
  el_round_rows(q->p.a, k, q->p.m, k, rows, f.stride);
  for (; j + 4 <= q->j1; j += 4) few_columns(q, &f, j, 4);
  for (; j < q->j1; j++) few_columns(q, &f, j, 1);
}

EL_KERNEL(qlinear_bf16) {
  el_bf16_job q = el_bf16_job_of(call, 0);
  if (q.p.m <= EL_BF16_FEW) {
    few_rows(&q, call->scratch);
  } else {
    part(&q, call->scratch);
  }
}

EL_KERNEL(qlinear_bf16_dx) {
  el_bf16_job q = el_bf16_job_of(call, 1);
  part(&q, call->scratch);
}
