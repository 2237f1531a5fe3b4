/* Frozen weights as codes: how kernels read them, and how products over them are cut.
 *
 * A matrix [rows, width], each row in groups of `group` elements (0: one). Element = (code - zero)
 * * scale of its group; f16 and bf16 codes are the elements. This f32 value is the definition: a
 * product over codes is the product of product.h over these values. int4 codes stand as code + 8,
 * two in a byte, the low half first; each row starts at a byte.
 */
#ifndef EL_QUANT_H
#define EL_QUANT_H

#include "conv_blocks.h"
#include "math.h"

typedef struct el_codes {
  int32_t kind; /* EL_I8, EL_U8 (int4), EL_F16 or EL_BF16 */
  size_t rows, width, group, groups;
  const void *codes;
  const float *scale; /* [rows, groups]; not read for f16 and bf16 */
  const int8_t *zero; /* [rows, groups], or NULL */
} el_codes;

/* Operands codes, scale, zero at t[0..2]; width elements a row. */
static inline el_codes el_get_codes(const el_tensor *t, size_t width, int32_t group) {
  size_t g = group > 0 ? (size_t)group : width;
  return (el_codes){
      .kind = t[0].dtype,
      .rows = (size_t)t[0].dims[0],
      .width = width,
      .group = g,
      .groups = (width + g - 1) / g,
      .codes = t[0].data,
      .scale = el_has(&t[1]) ? el_cf32(&t[1]) : NULL,
      .zero = el_has(&t[2]) ? (const int8_t *)t[2].data : NULL,
  };
}

/* IEEE binary16 to f32, exact; NaN and infinity stay what they are. */
static inline float el_half(uint16_t h) {
  uint32_t magnitude = (uint32_t)(h & 0x7FFFu) << 13, sign = (uint32_t)(h & 0x8000u) << 16;
  uint32_t u = el_bits(el_from_bits(magnitude) * 5.192296858534828e33f); /* 2^112 */
  u |= magnitude >= 0x0F800000u ? 0x7F800000u : 0u;
  return el_from_bits(u | sign);
}

/* bfloat16 to f32, exact. */
static inline float el_bf16(uint16_t h) { return el_from_bits((uint32_t)h << 16); }

/* The code of row i, column l; kind is a constant wherever speed matters. */
static inline int32_t el_code(const el_codes *q, size_t i, size_t l, const int32_t kind) {
  if (kind == EL_I8) return ((const int8_t *)q->codes)[i * q->width + l];
  uint8_t pair = ((const uint8_t *)q->codes)[i * ((q->width + 1) / 2) + l / 2];
  return (int32_t)(l % 2 ? pair >> 4 : pair & 15) - 8;
}

/* n int4 codes as int8. */
static inline void el_unpack4(const uint8_t *restrict pair, size_t n, int8_t *restrict code) {
  for (size_t i = 0; i < n / 2; i++) {
    code[2 * i] = (int8_t)((pair[i] & 15) - 8);
    code[2 * i + 1] = (int8_t)((pair[i] >> 4) - 8);
  }
  if (n % 2) code[n - 1] = (int8_t)((pair[n / 2] & 15) - 8);
}

/* The code that means 0 in group g of row i. */
static inline int32_t el_zero(const el_codes *q, size_t i, size_t g) {
  return q->zero != NULL ? q->zero[i * q->groups + g] : 0;
}

/* The element of row i, column l. */
static inline float el_element(const el_codes *q, size_t i, size_t l) {
  if (q->kind == EL_F16) return el_half(((const uint16_t *)q->codes)[i * q->width + l]);
  if (q->kind == EL_BF16) return el_bf16(((const uint16_t *)q->codes)[i * q->width + l]);
  size_t g = l / q->group;
  int32_t code = q->kind == EL_I8 ? el_code(q, i, l, EL_I8) : el_code(q, i, l, EL_U8);
  return (float)(code - el_zero(q, i, g)) * q->scale[i * q->groups + g];
}

/* Floats of one block of dequantised weights: 128 KiB, in the second-level cache. */
#define EL_UNPACKED 32768u

/* Rows or columns of a block whose other side is `side`: whole tiles of every instruction set. */
static inline size_t el_code_block(size_t side) {
  size_t block = EL_UNPACKED / side;
  return block >= 48 ? block / 48 * 48 : block >= 16 ? block / 16 * 16 : 16;
}

/* How a product of m rows and n columns over codes is cut into `chunks`: where each has many rows,
 * a chunk takes some rows and dequantises all weights; else it takes some blocks of columns. */
typedef struct el_code_cut {
  size_t block, blocks; /* columns of one block, and how many blocks */
  int by_rows;
} el_code_cut;

static inline el_code_cut el_cut_codes(size_t m, size_t n, size_t sum, uint32_t chunks) {
  el_code_cut cut = {.block = el_code_block(sum), .by_rows = m >= (size_t)64 * chunks};
  size_t each = (n / chunks + 16) / 16 * 16; /* whole vectors, at least n / chunks */
  if (!cut.by_rows && cut.block > each) cut.block = each;
  if (cut.block > n) cut.block = n;
  cut.blocks = (n + cut.block - 1) / cut.block;
  return cut;
}

/* Rows up to which y = x w.T reads codes where they lie: a block of weights would be made for too
 * few uses. The scratch is then one row of int8 codes, for int4. */
#define EL_FEW_ROWS 8u

/* out[i, l] = element (row + i, column + l); `column` is even for int4. */
void EL_K(dequantize)(const el_codes *q, size_t row, size_t rows, size_t column, size_t columns,
                      float *out);

/* Words of convolutions over codes, after the window: groups, alpha, then */
enum {
  EL_QC_ACT = EL_W_END + 2, /* qconv2d: act, kernel[2], group */
  EL_QC_IN = EL_W_END + 2,  /* qconv2d_dx: in_hw[2], kernel[2], channels, group */
};

/* Where the words kernel[2] of a convolution over codes stand. */
static inline uint32_t el_kernel_word(int back) { return back ? EL_QC_IN + 2 : EL_QC_ACT + 1; }

/* x is the image side, y the output side. */
static inline el_conv el_get_qconv(const el_call *call, const el_tensor *x, const el_tensor *y,
                                   int back) {
  const el_word *kernel = call->attr + el_kernel_word(back);
  return (el_conv){
      .w = el_get_window(call, x, y, kernel[0].i, kernel[1].i),
      .batch = x->dims[0],
      .in_c = x->dims[3],
      .out_c = y->dims[3],
      .groups = call->attr[EL_W_END].i,
      .alpha = call->attr[EL_W_END + 1].f,
      .act = back ? EL_ACT_NONE : call->attr[EL_QC_ACT].i,
  };
}

/* Output channels of one block of a convolution over codes: of one group. */
static inline size_t el_channel_block(const el_conv *c) {
  size_t og = (size_t)c->out_c / (size_t)c->groups, block = el_code_block(el_taps_of(c));
  return block < og ? block : og;
}

/* Bytes of the block, a multiple of EL_ALIGN; the convolution's own scratch follows it. */
static inline uint64_t el_unpacked_bytes(uint64_t floats) {
  return (floats * sizeof(float) + EL_ALIGN - 1) / EL_ALIGN * EL_ALIGN;
}

#endif
