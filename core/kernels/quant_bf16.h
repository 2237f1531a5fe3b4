/* Products over codes with both operands rounded to bfloat16 and summed in f32.
 *
 *   r(v)     v to bfloat16, to nearest, ties to even; a magnitude below 2^-126 becomes 0
 *   forward  y[i,j]  = act(alpha * sum_l r(x[i,l]) r(w[j,l]) + bias[j] + acc[i,j])
 *   backward dx[i,l] = alpha * sum_j r(dy[i,j]) r(w[j,l]) + acc[i,l]
 *
 * A product of two bfloat16 is exact in f32. The portable variant sums in the order of product.h,
 * each sum rounded; that order is the definition. Variants with f32 vectors fuse as product_vec.c
 * does. The one with bfloat16 instructions adds two products at a time, and takes sums below 2^-126
 * for 0.
 */
#ifndef EL_QUANT_BF16_H
#define EL_QUANT_BF16_H

#include "quant.h"

static inline uint16_t el_to_bf16(float v) {
  uint32_t u = el_bits(v), up = (u + 0x7FFFu + (u >> 16 & 1u)) >> 16;
  up = (u & 0x7FFFFFFFu) > 0x7F800000u ? u >> 16 | 0x40u : up;
  up = (u & 0x7F800000u) == 0u ? u >> 16 & 0x8000u : up;
  return (uint16_t)up;
}

/* r(v) */
static inline float el_round_bf16(float v) { return el_bf16(el_to_bf16(v)); }

/* Products below which one more chunk does not pay, and sides of a part that keep the share of
 * packing weights and of rounding rows small. */
#define EL_BF16_CHUNK 1048576u
#define EL_BF16_ROWS 128u
#define EL_BF16_COLUMNS 256u

/* How m rows and n columns of a result are cut: into down x across parts of rows x columns, the
 * last ones smaller; each chunk makes one part. */
typedef struct el_bf16_cut {
  size_t rows, columns, down, across;
} el_bf16_cut;

static inline size_t el_bf16_parts(size_t n, size_t least, size_t most) {
  size_t parts = n / least;
  return parts > most ? most : parts < 1 ? 1 : parts;
}

static inline el_bf16_cut el_cut_bf16(size_t m, size_t n, size_t sum) {
  uint64_t work = (uint64_t)m * n * sum / EL_BF16_CHUNK;
  size_t most = work > 8 ? 8 : work < 1 ? 1 : (size_t)work;
  el_bf16_cut cut = {.down = el_bf16_parts(m, EL_BF16_ROWS, most)};
  size_t least = cut.down > 1 ? EL_BF16_COLUMNS : EL_BF16_COLUMNS / 2;
  cut.across = el_bf16_parts(n, least, most / cut.down);
  cut.rows = ((m + cut.down - 1) / cut.down + 7) / 8 * 8;
  cut.columns = ((n + cut.across - 1) / cut.across + 15) / 16 * 16;
  cut.down = (m + cut.rows - 1) / cut.rows;
  cut.across = (n + cut.columns - 1) / cut.columns;
  return cut;
}

/* Variants with f32 vectors round so many rows, and dequantise so many columns, at a time. */
static inline size_t el_bf16_row_block(const el_bf16_cut *cut) {
  return cut->rows < EL_BF16_ROWS ? cut->rows : EL_BF16_ROWS;
}

static inline size_t el_bf16_column_block(const el_bf16_cut *cut, size_t sum) {
  size_t block = el_code_block(sum);
  return block < cut->columns ? block : cut->columns;
}

/* Rows that the portable variant rounds at a time. */
enum { EL_BF16_REF_ROWS = 4 };

/* The variant with bfloat16 instructions: terms of a sum at a time, so that panels of weights and
 * the rounded rows stay in the caches; columns of a panel, and of the panels that are packed
 * together, so that lines of weights are read whole. Rounded rows lie `stride` elements apart, off
 * powers of two, which would meet in the same cache sets. */
#define EL_BF16_TERMS 1024u
#define EL_BF16_PANEL 48u
#define EL_BF16_GROUP 192u
#define EL_BF16_FEW 8u /* rows up to which forward reads weights where they lie */

static inline size_t el_bf16_terms(size_t sum) {
  size_t blocks = (sum + EL_BF16_TERMS - 1) / EL_BF16_TERMS;
  return ((sum + blocks - 1) / blocks + 31) / 32 * 32;
}

static inline size_t el_bf16_stride(size_t terms) { return (terms + 31) / 32 * 32 + 32; }

/* Bytes of the rounded rows, of a group of panels, and of weights made from other codes. */
static inline uint64_t el_bf16_rows_bytes(size_t rows, size_t terms) {
  return (uint64_t)rows * el_bf16_stride(terms) * 2;
}

static inline uint64_t el_bf16_group_bytes(size_t terms) {
  return (uint64_t)terms * EL_BF16_GROUP * 2;
}

static inline uint64_t el_bf16_weights_bytes(size_t terms) { return (uint64_t)terms * 16 * 4; }

/* Four rows of weights. */
static inline uint64_t el_bf16_few_bytes(size_t sum) {
  return el_unpacked_bytes((uint64_t)sum * 4);
}

#endif
