/* Dot products of int8 in the lanes of a register: each 32-bit lane sums four products. The
 * weights of x86 are unsigned, so packed codes have EL_FLIP on them, which adds 128 to each; a sum
 * starts EL_OFFSET times the sum of its row lower, and wraps around to what it should be. */
#ifndef EL_DOTS_H
#define EL_DOTS_H

#include "vec.h"

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif

#if defined(__AVX512VNNI__)
#define EL_I8_PANELS EL_ISA_AVX512VNNI
#define EL_VECS 4
#define EL_OFFSET (-128)
#elif defined(__AVXVNNI__)
#define EL_I8_PANELS EL_ISA_AVXVNNI
#define EL_VECS 2
#define EL_OFFSET (-128)
#elif defined(__ARM_FEATURE_MATMUL_INT8)
#define EL_I8_PANELS EL_ISA_NEONI8MM
#define EL_VECS 4
#define EL_OFFSET 0
#else
#define EL_I8_PANELS EL_ISA_NEONDOT
#define EL_VECS 4
#define EL_OFFSET 0
#endif

#if defined(__ARM_FEATURE_MATMUL_INT8)
#define EL_TERMS 8
#else
#define EL_TERMS 4
#endif

#define EL_FLIP (EL_OFFSET == 0 ? 0 : -0x7F7F7F80) /* 0x80 in each byte */

/* Assembly, because GCC 12 moves the sums of a tile to memory between its intrinsics. */
#if defined(__AVX512VNNI__)
INLINE ivec dot(ivec sum, ivec w, ivec a) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(a));
  return sum;
}
#elif defined(__AVXVNNI__)
INLINE ivec dot(ivec sum, ivec w, ivec a) {
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(w), "x"(a));
  return sum;
}
#else
INLINE ivec dot(ivec sum, ivec w, ivec a) {
  return (ivec)vdotq_s32((int32x4_t)sum, (int8x16_t)w, (int8x16_t)a);
}
#endif

/* 4 * LANES numbers of -128 .. 127 as bytes. */
#if defined(__AVX512VNNI__)
INLINE ivec narrow(ivec a, ivec b, ivec c, ivec d) {
  ivec pairs = (ivec)_mm512_packs_epi16(_mm512_packs_epi32((__m512i)a, (__m512i)b),
                                        _mm512_packs_epi32((__m512i)c, (__m512i)d));
  return __builtin_shufflevector(pairs, pairs, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11,
                                 15);
}
#elif defined(__AVXVNNI__)
INLINE ivec narrow(ivec a, ivec b, ivec c, ivec d) {
  ivec pairs = (ivec)_mm256_packs_epi16(_mm256_packs_epi32((__m256i)a, (__m256i)b),
                                        _mm256_packs_epi32((__m256i)c, (__m256i)d));
  return __builtin_shufflevector(pairs, pairs, 0, 4, 1, 5, 2, 6, 3, 7);
}
#else
INLINE ivec narrow(ivec a, ivec b, ivec c, ivec d) {
  int16x8_t low = vcombine_s16(vmovn_s32((int32x4_t)a), vmovn_s32((int32x4_t)b));
  int16x8_t high = vcombine_s16(vmovn_s32((int32x4_t)c), vmovn_s32((int32x4_t)d));
  return (ivec)vcombine_s8(vmovn_s16(low), vmovn_s16(high));
}
#endif

INLINE ivec iload(const void *p) {
  ivec v;
  memcpy(&v, p, sizeof v);
  return v;
}

INLINE void istore(void *p, ivec v) { memcpy(p, &v, sizeof v); }

/* a0 b0 a1 b1 .. of the low or the high half. */
#define EL_ZIP_LOW(a, b) \
  __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define EL_ZIP_HIGH(a, b) \
  __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)

/* The four bytes at p in every lane. */
INLINE ivec spread(const int8_t *p) {
  int32_t four;
  memcpy(&four, p, sizeof four);
  return (ivec){0} + four;
}

#endif
