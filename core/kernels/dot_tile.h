/* Sums of a tile in registers: up to EL_I8_DOT_ROWS rows of activations, EL_VECS vectors of columns
 * of a panel [terms / 4, columns, 4]. */
#ifndef EL_DOT_TILE_H
#define EL_DOT_TILE_H

#include "dots.h"
#include "quant_i8.h"

#if EL_TERMS == 8

/* Rows two by two: smmla multiplies 2 x 8 with 8 x 2 bytes. */
INLINE void tile(const int8_t *a, size_t stride, size_t terms, const int8_t *panel,
                 const int32_t *start, int32_t *sum, const size_t mr, const size_t nv) {
  int32x4_t s[EL_I8_DOT_ROWS / 2][2 * EL_VECS];
#pragma GCC unroll 3
  for (size_t r = 0; 2 * r < mr; r++) {
#pragma GCC unroll 8
    for (size_t v = 0; v < 2 * nv; v++) {
      const int32_t *one = sum + (2 * r * EL_VECS * 2 + v) * 2;
      const int32_t *two = 2 * r + 1 < mr ? one + EL_VECS * 4 : one;
      s[r][v] = start != NULL ? vdupq_n_s32(0) : vcombine_s32(vld1_s32(one), vld1_s32(two));
    }
  }
  for (const int8_t *end = a + terms; a < end; a += 8, panel += 8 * nv * LANES) {
    int8x16_t x[EL_I8_DOT_ROWS / 2];
#pragma GCC unroll 3
    for (size_t r = 0; 2 * r < mr; r++) {
      const int8_t *one = a + 2 * r * stride, *two = 2 * r + 1 < mr ? one + stride : one;
      x[r] = vcombine_s8(vld1_s8(one), vld1_s8(two));
    }
#pragma GCC unroll 4
    for (size_t v = 0; v < nv; v++) {
      int32x4_t low = (int32x4_t)iload(panel + 4 * v * LANES);
      int32x4_t high = (int32x4_t)iload(panel + 4 * (nv + v) * LANES);
      int8x16_t b0 = vreinterpretq_s8_s32(vzip1q_s32(low, high));
      int8x16_t b1 = vreinterpretq_s8_s32(vzip2q_s32(low, high));
#pragma GCC unroll 3
      for (size_t r = 0; 2 * r < mr; r++) {
        s[r][2 * v] = vmmlaq_s32(s[r][2 * v], x[r], b0);
        s[r][2 * v + 1] = vmmlaq_s32(s[r][2 * v + 1], x[r], b1);
      }
    }
  }
#pragma GCC unroll 6
  for (size_t r = 0; r < mr; r++) {
#pragma GCC unroll 8
    for (size_t v = 0; v < 2 * nv; v++)
      vst1_s32(sum + (r * EL_VECS * 2 + v) * 2,
               r % 2 ? vget_high_s32(s[r / 2][v]) : vget_low_s32(s[r / 2][v]));
  }
}

#else

/* sum[r, x] of mr rows and nv vectors of columns; both are constant wherever this is inlined. */
INLINE void tile(const int8_t *a, size_t stride, size_t terms, const int8_t *panel,
                 const int32_t *start, int32_t *sum, const size_t mr, const size_t nv) {
  ivec s[EL_I8_DOT_ROWS][EL_VECS], b[EL_VECS];
#pragma GCC unroll 6
  for (size_t r = 0; r < mr; r++) {
#pragma GCC unroll 4
    for (size_t v = 0; v < nv; v++)
      s[r][v] = start != NULL ? (ivec){0} + start[r] : iload(sum + (r * EL_VECS + v) * LANES);
  }
  for (const int8_t *end = a + terms; a < end; a += 4, panel += 4 * nv * LANES) {
#pragma GCC unroll 4
    for (size_t v = 0; v < nv; v++) b[v] = iload(panel + 4 * v * LANES);
#pragma GCC unroll 6
    for (size_t r = 0; r < mr; r++) {
      ivec x = spread(a + r * stride);
#pragma GCC unroll 4
      for (size_t v = 0; v < nv; v++) s[r][v] = dot(s[r][v], b[v], x);
    }
  }
#pragma GCC unroll 6
  for (size_t r = 0; r < mr; r++) {
#pragma GCC unroll 4
    for (size_t v = 0; v < nv; v++) istore(sum + (r * EL_VECS + v) * LANES, s[r][v]);
  }
}

#endif

#endif
