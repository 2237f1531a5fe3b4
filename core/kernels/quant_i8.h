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

/* Cut over rows where each chunk has many, else over columns. */
static inline int el_i8_by_rows(size_t m, uint32_t chunks) { return m >= (size_t)32 * chunks; }

static inline uint64_t el_i8_align(uint64_t bytes) {
  return (bytes + EL_ALIGN - 1) / EL_ALIGN * EL_ALIGN;
}

/* Scratch of one worker: the panel, rounded rows, their scales. */
static inline uint64_t el_i8_scratch(size_t m, size_t sum, el_isa isa) {
  if (isa < EL_ISA_AVX2) return el_i8_align((uint64_t)EL_I8_ROWS * sum);
  uint64_t pairs = ((uint64_t)sum + 1) / 2, rows = el_i8_block(m, sum);
  return pairs * EL_I8_COLUMNS * 4 + el_i8_align(rows * pairs * 4) + el_i8_align(rows * 4);
}

#endif
