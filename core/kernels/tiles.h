/* How the vector variants compute a product: tile sizes of each instruction set, and which of four
 * ways is cheapest for given shapes. Integer arithmetic only, so that a plan made on one machine
 * holds on another. */
#ifndef EL_TILES_H
#define EL_TILES_H

#include "product.h"

/* A tile holds rows x vecs vectors of sums in registers; one operand is broadcast from where it
 * lies, the other is read as vectors of `lanes`. Where tiles may be wider, fewer rows of them fit:
 * wide_rows of vecs + 1 vectors, 0 where that is too many registers. */
typedef struct el_tiles {
  uint32_t lanes, rows, turned_rows, vecs, wide_rows;
} el_tiles;

#define EL_TILES_AVX512 \
  { 16, 8, 8, 3, 6 }
#define EL_TILES_AVX2 \
  { 8, 6, 4, 2, 0 }
#define EL_TILES_NEON \
  { 4, 8, 8, 3, 6 }

static inline el_tiles el_tiles_of(el_isa isa) {
  static const el_tiles avx512 = EL_TILES_AVX512, avx2 = EL_TILES_AVX2, neon = EL_TILES_NEON;
  return isa >= EL_ISA_AVX512 ? avx512 : isa >= EL_ISA_AVX2 ? avx2 : neon;
}

/* Tiles of one product: panels beside each other of at most `vecs` vectors each, rows of tiles. */
typedef struct el_grid {
  size_t vecs, panels, rows;
} el_grid;

/* Wide tiles where columns divide by them and not by the others: fewer tiles of few columns. */
static inline el_grid el_grid_of(const el_product *p, const el_tiles *t, uint32_t max_rows) {
  size_t vecs = (p->n + t->lanes - 1) / t->lanes, wide = t->vecs + 1u;
  int widens = t->wide_rows > 0 && vecs % wide == 0 && vecs % t->vecs != 0;
  size_t most = widens ? wide : t->vecs, rows = widens ? t->wide_rows : max_rows;
  return (el_grid){vecs, (vecs + most - 1) / most, (p->m + rows - 1) / rows};
}

typedef enum el_way {
  EL_TILED = 0,  /* vectors along the columns of C */
  EL_TURNED = 1, /* the transposed product: vectors along the rows of C */
  EL_DOTS = 2,   /* few columns: vectors along the sum */
  EL_TURNED_DOTS = 3,
} el_way;

/* Most columns that EL_DOTS takes. */
#define EL_DOT_COLUMNS 8u

/* C.T = B.T A.T; bias then runs along rows, which the caller tracks. */
static inline el_product el_turn(const el_product *p) {
  el_product t = *p;
  t.m = p->n;
  t.n = p->m;
  t.a = p->b;
  t.a_row = p->b_col;
  t.a_col = p->b_row;
  t.b = p->a;
  t.b_row = p->a_col;
  t.b_col = p->a_row;
  t.c_row = p->c_col;
  t.c_col = p->c_row;
  return t;
}

/* Whether panels of B are copied together before the tiles of rows read them: where their rows are
 * not vectors as they lie, or lie so far apart that each is on another page. */
static inline int el_packs(const el_product *p, size_t lanes, size_t row_tiles) {
  return p->b_col != 1 || p->n % lanes != 0 || (p->b_row >= 512 && row_tiles >= 4);
}

/* Of `chunks` parts, how many lie beside each other: as many as there are columns of tiles to share
 * them, the rest of the cut goes over rows. A divisor of chunks. */
static inline size_t el_across(size_t chunks, size_t row_tiles, size_t columns) {
  size_t across = chunks;
  while (across > 1 && (chunks % across != 0 || across > columns)) across--;
  return chunks / across > row_tiles ? chunks : across;
}

/* Rough cycles. */
static inline uint64_t el_tile_cost(const el_product *p, const el_tiles *t, uint32_t rows) {
  el_grid g = el_grid_of(p, t, rows);
  uint64_t m = p->m, k = p->k, vecs = g.vecs, row_tiles = g.rows, columns = g.panels;
  uint64_t busy = m > 3 * row_tiles ? m : 3 * row_tiles; /* thin tiles wait for their own sums */
  uint64_t cost = busy * vecs * k + row_tiles * columns * 12;
  if (p->a_col >= 512)
    cost += row_tiles * columns * k * 8; /* each step of a tile on its own page */
  if (p->b_col != 1) {
    cost += vecs * t->lanes * k / (p->b_row == 1 ? 4 : 1);
  } else if (el_packs(p, t->lanes, g.rows)) {
    cost += vecs * k * 2;
  }
  return cost + (p->c_col == 1 ? m * vecs * 2 : m * vecs * t->lanes);
}

static inline uint64_t el_dot_cost(const el_product *p, const el_tiles *t) {
  if (p->n > EL_DOT_COLUMNS || p->a_col != 1 || p->k < 2 * t->lanes) return UINT64_MAX;
  uint64_t m = p->m, n = p->n, k = p->k, columns = n / 4 * 4 + n % 4 * 2;
  return m * columns * ((k + t->lanes - 1) / t->lanes) + m * columns * 5 +
         (p->b_row != 1 ? n * k : 0);
}

static inline el_way el_choose(const el_product *p, el_isa isa) {
  el_tiles t = el_tiles_of(isa);
  el_product turned = el_turn(p);
  uint64_t cost[4] = {
      el_tile_cost(p, &t, t.rows),
      el_tile_cost(&turned, &t, t.turned_rows),
      el_dot_cost(p, &t),
      el_dot_cost(&turned, &t),
  };
  int best = 0;
  for (int i = 1; i < 4; i++) {
    if (cost[i] < cost[best]) best = i;
  }
  return (el_way)best;
}

#endif
