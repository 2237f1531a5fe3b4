/* Products of int8 codes with dot products of int8, see quant_i8.h.
 *
 * Rows of activations are rounded once, in blocks that stay in the second-level cache. Codes are
 * packed once for a block of rows, panel[l / 4, column, l % 4], and a tile of rows and columns of
 * the panel is summed in registers.
 */
#include <stdint.h>

typedef int8_t level; /* a rounded activation */

#include "dot_pack.h"
#include "dot_tile.h"

enum { COLUMNS = EL_VECS * LANES, ROWS = EL_I8_DOT_ROWS };

INLINE ivec round_lanes(const float *t, const float *factor, float inverse) {
  vec v = factor != NULL ? load(t) * load(factor) : load(t);
  return (ivec)(v * splat(inverse) + splat(12582912.0f)) - 0x4B400000;
}

INLINE void round_all(const float *t, const float *factor, float inverse, size_t n, level *q) {
  size_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES) {
    ivec v[4];
    for (size_t x = 0; x < 4; x++)
      v[x] =
          round_lanes(t + i + x * LANES, factor != NULL ? factor + i + x * LANES : NULL, inverse);
    istore(q + i, narrow(v[0], v[1], v[2], v[3]));
  }
  for (; i < n; i++) q[i] = rounded(t, factor, inverse, i);
}

static void round_row(const float *t, const float *factor, float inverse, size_t n, level *q) {
  if (factor != NULL) {
    round_all(t, factor, inverse, n, q);
  } else {
    round_all(t, NULL, inverse, n, q);
  }
}

static void any_tile(const int8_t *a, size_t stride, size_t terms, const int8_t *panel,
                     const int32_t *start, int32_t *sum, size_t mr, size_t nv) {
  switch (nv * 8 + mr) {
#define EL_CASE(v, r)                                \
  case v * 8 + r:                                    \
    tile(a, stride, terms, panel, start, sum, r, v); \
    break;
#define EL_CASES(v) \
  EL_CASE(v, 1) EL_CASE(v, 2) EL_CASE(v, 3) EL_CASE(v, 4) EL_CASE(v, 5) EL_CASE(v, 6)
    EL_CASES(1)
    EL_CASES(2)
#if EL_VECS == 4
    EL_CASES(4)
#endif
  }
}

/* c[i, j .. j + cols]. */
static void finish_row(const job *q, const int32_t *sum, float r, size_t i, size_t j, size_t cols) {
  const el_product *p = &q->out;
  size_t x = 0;
  for (; x + LANES <= cols; x += LANES) {
    vec v = __builtin_convertvector(iload(sum + x), vec), bias = {0};
    v = v * (q->scale != NULL ? splat(r) * load(q->scale + j + x) : splat(r));
    if (p->bias != NULL) bias = load(p->bias + j + x);
    finish_vec(p, i * q->c_row + j + x, v, bias);
  }
  if (x < cols) finish_some(q, sum + x, r, i, j + x, cols - x);
}

/* Rounded row i, its scale and where its sums start. */
static void fill_row(const job *q, size_t i, level *row, const el_i8_dot_sizes *z, float *r,
                     int32_t *start) {
  *r = fill(q, i, row);
  memset(row + q->sum, 0, z->stride - q->sum);
  *start = 0;
  if (EL_OFFSET != 0) {
    ivec ones = (ivec){0} + 0x01010101, sums = {0};
    size_t l = 0;
    for (; l + 4 * LANES <= z->stride; l += 4 * LANES) sums = dot(sums, ones, iload(row + l));
    int32_t sum = 0, lane[LANES];
    istore(lane, sums);
    for (size_t x = 0; x < LANES; x++) sum += lane[x];
    for (; l < q->sum; l++) sum += row[l];
    *start = EL_OFFSET * sum;
  }
}

/* Asks for the rows of the result that a tile ends in. */
static void ask_rows(const job *q, size_t i, size_t rows, size_t j, size_t cols) {
  for (size_t y = 0; y < rows; y++) {
    size_t at = (i + y) * q->c_row + j;
    for (size_t x = 0; x < cols; x += 16) {
      __builtin_prefetch(q->out.c + at + x, 1, 3);
      if (q->out.acc != NULL) __builtin_prefetch(q->out.acc + at + x, 0, 3);
    }
  }
}

/* The block after b, of columns before j1. */
static block after(const job *q, const block *b, size_t most, size_t j1) {
  block n = *b;
  n.l += b->terms;
  if (n.l == q->sum) {
    n.l = 0;
    n.j += b->cols;
    n.cols = j1 - n.j < COLUMNS ? j1 - n.j : COLUMNS;
    n.wide = n.cols <= LANES ? LANES : n.cols <= 2 * LANES ? 2 * LANES : COLUMNS;
  }
  n.terms = q->sum - n.l < most ? q->sum - n.l : most;
  return n;
}

/* Rows [i0, i1), columns [j0, j1). */
static void part(const job *q, void *scratch, size_t i0, size_t i1, size_t j0, size_t j1) {
  el_i8_dot_sizes z = el_i8_dot_sizes_of(q->m, q->sum, EL_I8_PANELS);
  int8_t *panel = scratch, *a = panel + z.panel;
  int32_t *sums = (int32_t *)(void *)(a + z.rows);
  float *r = (float *)(void *)((int8_t *)sums + z.sums);
  int32_t *start = (int32_t *)(void *)(r + z.block);
  size_t blocks = (i1 - i0 + z.block - 1) / z.block, keep = z.terms < q->sum ? COLUMNS : 0;
  size_t most = ((i1 - i0 + blocks - 1) / blocks + ROWS - 1) / ROWS * ROWS;
  for (size_t i = i0; i < i1; i += most) {
    size_t rows = i1 - i < most ? i1 - i : most;
    for (size_t y = 0; y < rows; y++) fill_row(q, i + y, a + y * z.stride, &z, &r[y], &start[y]);
    block none = {.j = j0, .l = q->sum}, b = after(q, &none, z.terms, j1);
    walk k = {0};
    while (b.j < j1) {
      block then = after(q, &b, z.terms, j1);
      if (!q->back) {
        pack_rows(q, &b, panel);
      } else {
        if (b.l == 0) k = walk_from(q, b.j);
        pack_columns(q, &b, &k, panel);
      }
      size_t terms = (b.terms + EL_TERMS - 1) / EL_TERMS * EL_TERMS;
      for (size_t y = 0; y < rows; y += ROWS) {
        size_t mr = rows - y < ROWS ? rows - y : ROWS;
        int32_t *sum = sums + y * keep;
        if (then.j < j1) ask(q, &then, y / ROWS, (rows + ROWS - 1) / ROWS);
        if (then.l == 0) ask_rows(q, i + y, mr, b.j, b.cols);
        any_tile(a + y * z.stride + b.l, z.stride, terms, panel, b.l == 0 ? start + y : NULL, sum,
                 mr, b.wide / LANES);
        if (then.l != 0) continue;
        for (size_t x = 0; x < mr; x++)
          finish_row(q, sum + x * COLUMNS, r[y + x], i + y + x, b.j, b.cols);
      }
      b = then;
    }
  }
}

#include "quant_i8_calls.h"
