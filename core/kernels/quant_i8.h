/* Products of int8 codes as integers, the half of int8 training that is safe (SwitchBack, Wortsman
 * et al. 2023, arXiv 2304.13013): activations and gradients are rounded row by row, weights are
 * frozen codes with one scale s[j] an output channel.
 *
 *   row i of t:  r = max |t[i,l]| / 127, q[i,l] = t[i,l] * (127 / max |t[i,l]|) to the nearest
 *                integer, ties to even; a row whose largest magnitude is below 2^-100 is all zeros;
 *                one with an element that is not finite has r = NaN
 *   forward      t = x,           y[i,j]  = act(alpha * (sum_l q[i,l] w[j,l] * (r[i] * s[j])) + ..)
 *   backward     t = dy[i,j] s[j], dx[i,l] = alpha * (sum_j q[i,j] w[j,l] * r[i]) + acc
 *
 * Convolutions (of one group) round a whole sample with one scale, in place of a row. Sums are
 * exact in 32 bits; then as el_finish, each operation rounded. So all variants agree.
 */
#ifndef EL_QUANT_I8_H
#define EL_QUANT_I8_H

#include "math.h"
#include "product.h"

/* Longest sum: 128 * 127 * 2^17 < 2^31. */
#define EL_I8_SUM 131072

/* The variant for AVX2 multiplies pairs of 16-bit numbers over panels of 16 columns; others go row
 * by row. */
enum { EL_I8_COLUMNS = 16, EL_I8_TILE = 4, EL_I8_ROWS = 4 };

/* Rows rounded at once by the panel variant: 128 KiB, whole tiles. */
static inline size_t el_i8_block(size_t m, size_t sum) {
  size_t rows = 65536 / (sum + sum % 2) / EL_I8_TILE * EL_I8_TILE;
  if (rows < 48) rows = 48;
  return rows < m ? rows : m;
}

/* Rows [i0, i1) and columns [j0, j1) of part `chunk` of `chunks` of m x n, in multiples of `tile`
 * rows and `columns` columns. Each part packs its columns and rounds its rows: of all ways to cut,
 * the one with the cheapest largest part, in products for each term. */
static inline void el_i8_cut(size_t m, size_t n, size_t tile, size_t columns, uint32_t chunk,
                             uint32_t chunks, size_t *i0, size_t *i1, size_t *j0, size_t *j1) {
  size_t least = SIZE_MAX, down = 1; /* where size_t overflows, another cut has the same bits */
  for (uint32_t d = 1; d <= chunks; d++) {
    size_t across = chunks / d, rows = ((m + tile - 1) / tile + d - 1) / d * tile;
    size_t cols = ((n + columns - 1) / columns + across - 1) / across * columns;
    size_t cost = rows * cols + 6 * cols + 48 * rows;
    if (chunks % d == 0 && cost < least) {
      least = cost;
      down = d;
    }
  }
  el_part(m, tile, chunk % (uint32_t)down, (uint32_t)down, i0, i1);
  el_part(n, columns, chunk / (uint32_t)down, chunks / (uint32_t)down, j0, j1);
}

static inline uint64_t el_i8_align(uint64_t bytes) {
  return (bytes + EL_ALIGN - 1) / EL_ALIGN * EL_ALIGN;
}

/* Instruction sets with dot products of int8 (quant_i8_dot.c). */
static inline int el_i8_has_dots(el_isa isa) {
  return isa == EL_ISA_NEONDOT || isa == EL_ISA_NEONI8MM || isa == EL_ISA_AVXVNNI ||
         isa >= EL_ISA_AVX512VNNI;
}

/* They take whole rows of `stride` bytes, `block` of them at once: 256 KiB, at least as many as
 * make packing codes for them cheap. A panel holds `terms` of each column, with sums between panels
 * of one sum. `panel`, `rows` and `sums` are bytes of scratch. */
enum { EL_I8_DOT_ROWS = 6, EL_I8_DOT_TERMS = 512 };
typedef struct el_i8_dot_sizes {
  uint64_t panel, rows, sums;
  size_t stride, block, terms;
} el_i8_dot_sizes;

static inline el_i8_dot_sizes el_i8_dot_sizes_of(size_t m, size_t sum, el_isa isa) {
  size_t columns = isa >= EL_ISA_AVX512VNNI ? 64 : 16, stride = (sum + 15) / 16 * 16;
  if (stride % 1024 == 0) stride += 64; /* rows that differ by this much share places in a cache */
  size_t terms = stride < EL_I8_DOT_TERMS ? stride : EL_I8_DOT_TERMS, block = 262144 / stride;
  if (block < 132) block = 132;
  if (block > m) block = m;
  block = (block + EL_I8_DOT_ROWS - 1) / EL_I8_DOT_ROWS * EL_I8_DOT_ROWS;
  return (el_i8_dot_sizes){
      .panel = (uint64_t)terms * columns,
      .rows = el_i8_align((uint64_t)block * stride),
      .sums = (uint64_t)(terms < stride ? block : EL_I8_DOT_ROWS) * columns * 4,
      .stride = stride,
      .block = block,
      .terms = terms,
  };
}

/* Scratch of one worker: the panel, rounded rows, two numbers of each. */
static inline uint64_t el_i8_scratch(size_t m, size_t sum, el_isa isa) {
  if (el_i8_has_dots(isa)) {
    el_i8_dot_sizes z = el_i8_dot_sizes_of(m, sum, isa);
    return z.panel + z.rows + z.sums + el_i8_align((uint64_t)z.block * 8);
  }
  if (isa < EL_ISA_AVX2) return el_i8_align((uint64_t)EL_I8_ROWS * sum);
  uint64_t pairs = ((uint64_t)sum + 1) / 2, rows = el_i8_block(m, sum);
  return pairs * EL_I8_COLUMNS * 4 + el_i8_align(rows * pairs * 4) + el_i8_align(rows * 4);
}

#endif
