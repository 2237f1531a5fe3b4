/* Products with vectors: register tiles of C, or dot products where C has few columns.
 *
 * Each element of C is one chain of fused multiply-adds over l = 0, 1, .. k-1 (EL_DOTS: one chain a
 * lane, then the lanes), whatever tile it falls in, so its bits depend on shapes only.
 */
#include "vec.h"

typedef struct job {
  el_product p;
  int bias_down; /* bias runs along rows: the product was turned */
  int whole;     /* rows of C are contiguous, and nothing is done to it but bias, acc, relu */
} job;

#if LANES == 16
static const el_tiles SHAPE = EL_TILES_AVX512;
#elif LANES == 8
static const el_tiles SHAPE = EL_TILES_AVX2;
#else
static const el_tiles SHAPE = EL_TILES_NEON;
#endif
enum { ROWS = (LANES == 8 ? 6 : 8), VECS = (LANES == 8 ? 2 : 4) }; /* of any tile */

static float bias_at(const job *q, size_t i, size_t j) {
  return q->p.bias == NULL ? 0.0f : q->p.bias[q->bias_down ? i : j];
}

static void finish_one(const job *q, size_t i, size_t j, float sum) {
  const el_product *p = &q->p;
  size_t at = i * p->c_row + j * p->c_col;
  float v = el_finish(sum, p, bias_at(q, i, j), p->acc != NULL ? p->acc[at] : 0.0f);
  if (p->guard && v - v != 0.0f) return;
  p->c[at] = v;
}

/* A tile whose columns are not contiguous in C: four rows at a time when those are, else singly. */
static void scatter(const job *q, const float *sums, size_t width, size_t i, size_t mr, size_t j,
                    size_t cols) {
  const el_product *p = &q->p;
  size_t r = 0;
  for (; p->c_row == 1 && r + 4 <= mr; r += 4) {
    vec4 bias = {0};
    if (p->bias != NULL && q->bias_down) bias = load4(p->bias + i + r);
    size_t x = 0;
    for (; x + 4 <= cols; x += 4) {
      vec4 t[4];
      for (size_t y = 0; y < 4; y++) t[y] = load4(sums + (r + y) * width + x);
      transpose4(t);
      for (size_t y = 0; y < 4; y++) {
        if (p->bias != NULL && !q->bias_down) bias = p->bias[j + x + y] - (vec4){0};
        finish_vec4(p, i + r + (j + x + y) * p->c_col, t[y], bias);
      }
    }
    for (; x < cols; x++) {
      for (size_t y = 0; y < 4; y++) finish_one(q, i + r + y, j + x, sums[(r + y) * width + x]);
    }
  }
  for (; r < mr; r++) {
    for (size_t x = 0; x < cols; x++) finish_one(q, i + r, j + x, sums[r * width + x]);
  }
}

/* A whole tile whose columns are contiguous in C. */
static void finish_rows(const job *q, const float *sums, size_t nv, size_t i, size_t mr, size_t j) {
  const el_product *p = &q->p;
  for (size_t r = 0; r < mr; r++) {
    for (size_t v = 0; v < nv; v++, sums += LANES) {
      vec bias = {0};
      if (p->bias != NULL)
        bias = q->bias_down ? splat(p->bias[i + r]) : load(p->bias + j + v * LANES);
      finish_vec(p, (i + r) * p->c_row + j + v * LANES, load(sums), bias);
    }
  }
}

/* A panel: nv vectors in each of k rows; and memory that is asked for while it is multiplied, one
 * cache line after k rows of it each. */
typedef struct panel {
  const float *b;
  size_t row;
  const char *ahead;
  size_t step; /* bytes */
} panel;

/* C[i .. i+mr, j .. j+cols]. mr and nv are constants wherever this is inlined. */
INLINE void tile(const job *q, panel n, size_t i, size_t j, size_t cols, const size_t mr,
                 const size_t nv) {
  const el_product *p = &q->p;
  vec sum[ROWS][VECS];
#pragma GCC unroll 8
  for (size_t r = 0; r < mr; r++) {
#pragma GCC unroll 4
    for (size_t v = 0; v < nv; v++) sum[r][v] = (vec){0};
  }
  size_t a_row = p->a_row, a_col = p->a_col;
  const float *a = p->a + i * a_row;
  for (size_t l = p->k; l > 0; l--) {
    vec bv[VECS];
#pragma GCC unroll 4
    for (size_t v = 0; v < nv; v++) bv[v] = load(n.b + v * LANES);
    __builtin_prefetch(n.ahead, 0, 2);
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++) {
      vec av = splat(a[r * a_row]);
#pragma GCC unroll 4
      for (size_t v = 0; v < nv; v++) sum[r][v] += av * bv[v];
    }
    a += a_col;
    n.b += n.row;
    n.ahead += n.step;
  }
  if (q->whole && cols == nv * LANES) {
    const vec alpha = splat(p->alpha);
    vec bias[VECS];
#pragma GCC unroll 4
    for (size_t v = 0; v < nv; v++) {
      bias[v] = p->bias != NULL && !q->bias_down ? load(p->bias + j + v * LANES) : (vec){0};
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++) {
      const vec down = p->bias != NULL && q->bias_down ? splat(p->bias[i + r]) : (vec){0};
#pragma GCC unroll 4
      for (size_t v = 0; v < nv; v++) {
        size_t at = (i + r) * p->c_row + j + v * LANES;
        vec x = alpha * sum[r][v];
        if (p->bias != NULL) x = x + (q->bias_down ? down : bias[v]);
        if (p->acc != NULL) x = x + load(p->acc + at);
        if (p->act == EL_ACT_RELU) x = (vec)((ivec)x & ((x > 0.0f) | (x != x)));
        store(p->c + at, x);
      }
    }
    return;
  }
  float sums[ROWS * VECS * LANES];
#pragma GCC unroll 8
  for (size_t r = 0; r < mr; r++) {
#pragma GCC unroll 4
    for (size_t v = 0; v < nv; v++) store(sums + (r * nv + v) * LANES, sum[r][v]);
  }
  if (p->c_col == 1 && cols == nv * LANES) {
    finish_rows(q, sums, nv, i, mr, j);
    return;
  }
  scatter(q, sums, nv * LANES, i, mr, j, cols);
}

typedef void tile_fn(const job *q, panel n, size_t i, size_t j, size_t cols);

#define TILE(mr, nv)                                                                     \
  static void tile_##mr##_##nv(const job *q, panel n, size_t i, size_t j, size_t cols) { \
    tile(q, n, i, j, cols, mr, nv);                                                      \
  }
#define TILES(nv) \
  TILE(1, nv) TILE(2, nv) TILE(3, nv) TILE(4, nv) TILE(5, nv) TILE(6, nv) EL_MORE_TILES(nv)
#define NAMES(nv) \
  { tile_1_##nv, tile_2_##nv, tile_3_##nv, tile_4_##nv, tile_5_##nv, tile_6_##nv EL_MORE_NAMES(nv) }
#if LANES == 8
#define EL_MORE_TILES(nv)
#define EL_MORE_NAMES(nv)
TILES(1) TILES(2) static tile_fn *const tiles[VECS][ROWS] = {NAMES(1), NAMES(2)};
#else
#define EL_MORE_TILES(nv) TILE(7, nv) TILE(8, nv)
#define EL_MORE_NAMES(nv) , tile_7_##nv, tile_8_##nv
TILES(1)
TILES(2)
TILES(3)
TILE(1, 4)
TILE(2, 4)
TILE(3, 4)
TILE(4, 4)
TILE(5, 4)
TILE(6, 4)
static tile_fn *const tiles[VECS][ROWS] = {
    NAMES(1), NAMES(2), NAMES(3), {tile_1_4, tile_2_4, tile_3_4, tile_4_4, tile_5_4, tile_6_4}};
#endif

/* out[l, x] = B[l, j + x] for x < cols, else 0. */
static void pack(const el_product *p, size_t j, size_t cols, size_t width, float *out) {
  const float *b = p->b + j * p->b_col;
  size_t k = p->k, l = 0;
  if (p->b_col == 1) {
    for (; l < k; l++, b += p->b_row, out += width) {
      size_t x = 0;
      for (; x + LANES <= cols; x += LANES) store(out + x, load(b + x));
      for (; x < cols; x++) out[x] = b[x];
      for (; x < width; x++) out[x] = 0.0f;
    }
    return;
  }
  size_t whole = p->b_row == 1 ? cols / LANES * LANES : 0;
  for (; whole > 0 && l + LANES <= k; l += LANES) {
    for (size_t x = 0; x < whole; x += LANES) {
      const float *s = b + x * p->b_col + l;
      vec t[LANES];
#pragma GCC unroll 16
      for (size_t y = 0; y < LANES; y++) t[y] = load(s + y * p->b_col);
      transpose(t);
#pragma GCC unroll 16
      for (size_t y = 0; y < LANES; y++) store(out + (l + y) * width + x, t[y]);
    }
  }
  size_t done = l;
  for (size_t x = 0; x < width; x++) {
    for (l = x < whole ? done : 0; l < k; l++)
      out[l * width + x] = x < cols ? b[x * p->b_col + l * p->b_row] : 0.0f;
  }
}

/* Ask for part `r` of what the panel of column j will be packed from: k lines while k rows of
 * another are multiplied, so that all of it arrives during as many tiles as a panel has lines in a
 * row. */
static void ask(const el_product *p, size_t j, size_t r, panel *n) {
  enum { LINE = 64 / sizeof(float) };
  if (r >= VECS * LANES / LINE) return;
  if (p->b_col == 1 && j + (r + 1) * LINE <= p->n) {
    n->ahead = (const char *)(p->b + j + r * LINE);
    n->step = p->b_row * sizeof(float);
  } else if (p->b_row == 1 && p->b_col == p->k && j + (r + 1) * LINE <= p->n) {
    n->ahead = (const char *)(p->b + (j + r * LINE) * p->k);
    n->step = 64;
  }
}

/* Border `i` of n items in `parts` nearly equal parts. */
static size_t border(size_t n, size_t parts, size_t i) { return n * i / parts; }

static void tiled(const job *q, uint32_t max_rows, float *scratch, uint32_t chunk,
                  uint32_t chunks) {
  const el_product *p = &q->p;
  el_grid g = el_grid_of(p, &SHAPE, max_rows);
  size_t columns = g.panels, rows = g.rows;
  /* Parts of columns first, so that few parts pack the same panel; then of rows. */
  size_t across = el_across(chunks, rows, columns), down = chunks / across;
  size_t c0, c1, r0, r1;
  el_part(columns, 1, (uint32_t)(chunk % across), (uint32_t)across, &c0, &c1);
  el_part(rows, 1, (uint32_t)(chunk / across), (uint32_t)down, &r0, &r1);
  int packed = el_packs(p, LANES, rows);
  for (size_t c = c0; c < c1; c++) {
    size_t v0 = border(g.vecs, columns, c), nv = border(g.vecs, columns, c + 1) - v0;
    size_t j = v0 * LANES, width = nv * LANES, cols = p->n - j < width ? p->n - j : width;
    panel plain = {p->b + j, p->b_row, (const char *)(p->b + j), 0};
    if (packed && r0 < r1) {
      pack(p, j, cols, width, scratch);
      plain.b = scratch;
      plain.row = width;
    }
    size_t i = border(p->m, rows, r0);
    for (size_t r = r0; r < r1; r++) {
      size_t end = border(p->m, rows, r + 1);
      panel n = plain;
      if (packed && c + 1 < c1) ask(p, j + width, r - r0, &n);
      tiles[nv - 1][end - i - 1](q, n, i, j, cols);
      i = end;
    }
  }
}

/* Sums of four vectors. */
INLINE vec4 reduce4(const vec s[4]) {
  vec4 t[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    float lane[LANES];
    store(lane, s[i]);
    t[i] = load4(lane);
    for (int x = 4; x < LANES; x += 4) t[i] += load4(lane + x);
  }
  transpose4(t);
  return (t[0] + t[1]) + (t[2] + t[3]);
}

/* C[i .. i+mr, j .. j+nc] by dot products, a and b contiguous along the sum. */
INLINE void dots(const job *q, const float *b, size_t b_col, size_t i, size_t j, const size_t mr,
                 const size_t nc) {
  const el_product *p = &q->p;
  const float *a = p->a + i * p->a_row;
  size_t k = p->k, l = 0, a_row = p->a_row;
  vec sum[8][4];
#pragma GCC unroll 8
  for (size_t r = 0; r < mr; r++) {
#pragma GCC unroll 4
    for (size_t c = 0; c < 4; c++) sum[r][c] = (vec){0};
  }
  for (; l + LANES <= k; l += LANES) {
    vec av[8];
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++) av[r] = load(a + r * a_row + l);
#pragma GCC unroll 4
    for (size_t c = 0; c < nc; c++) {
      vec bv = load(b + c * b_col + l);
#pragma GCC unroll 8
      for (size_t r = 0; r < mr; r++) sum[r][c] += av[r] * bv;
    }
  }
#pragma GCC unroll 8
  for (size_t r = 0; r < mr; r++) {
    vec4 total = reduce4(sum[r]);
    for (size_t x = l; x < k; x++) {
#pragma GCC unroll 4
      for (size_t c = 0; c < nc; c++) total[c] += a[r * a_row + x] * b[c * b_col + x];
    }
    if (nc == 4 && p->c_col == 1) {
      vec4 bias = {0};
      if (p->bias != NULL) bias = q->bias_down ? p->bias[i + r] - bias : load4(p->bias + j);
      finish_vec4(p, (i + r) * p->c_row + j, total, bias);
    } else {
#pragma GCC unroll 4
      for (size_t c = 0; c < nc; c++) finish_one(q, i + r, j + c, total[c]);
    }
  }
}

enum { DOT_ROWS = (LANES == 8 ? 3 : 4) };

static void dotted(const job *q, float *copy, uint32_t chunk, uint32_t chunks) {
  const el_product *p = &q->p;
  const float *b = p->b;
  size_t b_col = p->b_col, i, end;
  if (p->b_row != 1) {
    for (size_t j = 0; j < p->n; j++) {
      for (size_t l = 0; l < p->k; l++) copy[j * p->k + l] = b[l * p->b_row + j * b_col];
    }
    b = copy;
    b_col = p->k;
  }
  el_part(p->m, 8, chunk, chunks, &i, &end);
  size_t first = i;
  for (; i + DOT_ROWS <= end; i += DOT_ROWS) {
    for (size_t j = 0; j + 4 <= p->n; j += 4) dots(q, b + j * b_col, b_col, i, j, DOT_ROWS, 4);
  }
  for (; i < end; i++) {
    for (size_t j = 0; j + 4 <= p->n; j += 4) dots(q, b + j * b_col, b_col, i, j, 1, 4);
  }
  for (size_t j = p->n & ~(size_t)3; j < p->n; j++) {
    for (i = first; i + 8 <= end; i += 8) dots(q, b + j * b_col, b_col, i, j, 8, 1);
    for (; i < end; i++) dots(q, b + j * b_col, b_col, i, j, 1, 1);
  }
}

void EL_K(product)(const el_product *p, void *scratch, uint32_t chunk, uint32_t chunks) {
  el_way way = el_choose(p, EL_THIS_ISA);
  int turned = way == EL_TURNED || way == EL_TURNED_DOTS;
  job q = {turned ? el_turn(p) : *p, turned, 0};
  q.whole = q.p.c_col == 1 && p->act != EL_ACT_RELU6 && !p->guard && p->keep == 1.0f;
  if (way == EL_TILED || way == EL_TURNED) {
    tiled(&q, turned ? SHAPE.turned_rows : SHAPE.rows, scratch, chunk, chunks);
  } else {
    dotted(&q, scratch, chunk, chunks);
  }
}
