/* Vectors of the instruction set at hand, through GCC and Clang vector extensions. */
#ifndef EL_VEC_H
#define EL_VEC_H

#include <string.h>

#include "tiles.h"

#if defined(__AVX512F__)
#define EL_THIS_ISA EL_ISA_AVX512
#define LANES 16
#elif defined(__AVX2__)
#define EL_THIS_ISA EL_ISA_AVX2
#define LANES 8
#else
#define EL_THIS_ISA EL_ISA_NEON
#define LANES 4
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef float vec4 __attribute__((vector_size(16)));
typedef int32_t ivec4 __attribute__((vector_size(16)));

INLINE vec load(const float *p) {
  vec v;
  memcpy(&v, p, sizeof v);
  return v;
}

INLINE void store(float *p, vec v) { memcpy(p, &v, sizeof v); }

INLINE vec4 load4(const float *p) {
  vec4 v;
  memcpy(&v, p, sizeof v);
  return v;
}

INLINE void store4(float *p, vec4 v) { memcpy(p, &v, sizeof v); }

INLINE vec splat(float x) { return x - (vec){0}; }

/* Rows become columns. */
INLINE void transpose4(vec4 r[4]) {
  vec4 a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5),
       b = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
  vec4 c = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7),
       d = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
  r[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
  r[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
  r[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
  r[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

/* LANES rows of LANES numbers: rows become columns. Pairs of rows are interleaved, then pairs of
 * pairs, then the four-lane parts change places. */
#if LANES == 16
#define EL_LANES_OF(a, b, c, d) \
  a, b, c, d, a + 4, b + 4, c + 4, d + 4, a + 8, b + 8, c + 8, d + 8, a + 12, b + 12, c + 12, d + 12
#elif LANES == 8
#define EL_LANES_OF(a, b, c, d) a, b, c, d, a + 4, b + 4, c + 4, d + 4
#else
#define EL_LANES_OF(a, b, c, d) a, b, c, d
#endif

INLINE void transpose(vec r[LANES]) {
  vec t[LANES], s[LANES];
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i += 2) {
    t[i] = __builtin_shufflevector(r[i], r[i + 1], EL_LANES_OF(0, LANES, 1, LANES + 1));
    t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], EL_LANES_OF(2, LANES + 2, 3, LANES + 3));
  }
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i += 4) {
    s[i] = __builtin_shufflevector(t[i], t[i + 2], EL_LANES_OF(0, 1, LANES, LANES + 1));
    s[i + 1] = __builtin_shufflevector(t[i], t[i + 2], EL_LANES_OF(2, 3, LANES + 2, LANES + 3));
    s[i + 2] = __builtin_shufflevector(t[i + 1], t[i + 3], EL_LANES_OF(0, 1, LANES, LANES + 1));
    s[i + 3] = __builtin_shufflevector(t[i + 1], t[i + 3], EL_LANES_OF(2, 3, LANES + 2, LANES + 3));
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
#if LANES == 16
#define EL_PARTS(a, b, p, q)                                                                    \
  __builtin_shufflevector(a, b, 4 * (p), 4 * (p) + 1, 4 * (p) + 2, 4 * (p) + 3, 4 * (q),        \
                          4 * (q) + 1, 4 * (q) + 2, 4 * (q) + 3, 16 + 4 * (p), 17 + 4 * (p),    \
                          18 + 4 * (p), 19 + 4 * (p), 16 + 4 * (q), 17 + 4 * (q), 18 + 4 * (q), \
                          19 + 4 * (q))
    vec a = EL_PARTS(s[c], s[4 + c], 0, 2), b = EL_PARTS(s[8 + c], s[12 + c], 0, 2),
        d = EL_PARTS(s[c], s[4 + c], 1, 3), e = EL_PARTS(s[8 + c], s[12 + c], 1, 3);
    r[c] = EL_PARTS(a, b, 0, 2);
    r[8 + c] = EL_PARTS(a, b, 1, 3);
    r[4 + c] = EL_PARTS(d, e, 0, 2);
    r[12 + c] = EL_PARTS(d, e, 1, 3);
#undef EL_PARTS
#elif LANES == 8
    r[c] = __builtin_shufflevector(s[c], s[4 + c], 0, 1, 2, 3, 8, 9, 10, 11);
    r[4 + c] = __builtin_shufflevector(s[c], s[4 + c], 4, 5, 6, 7, 12, 13, 14, 15);
#else
    r[c] = s[c];
#endif
  }
}

/* el_finish for a vector of sums, written to p->c + at. */
#define EL_FINISH(T, I, load_t, store_t)                              \
  T v = p->alpha * sum;                                               \
  if (p->bias != NULL) v = v + bias;                                  \
  if (p->acc != NULL) v = v + p->keep * load_t(p->acc + at);          \
  if (p->act != EL_ACT_NONE) v = (T)((I)v & ((v > 0.0f) | (v != v))); \
  if (p->act == EL_ACT_RELU6) {                                       \
    I high = v > 6.0f;                                                \
    v = (T)(((I)v & ~high) | ((I)((T){0} + 6.0f) & high));            \
  }                                                                   \
  if (p->guard) {                                                     \
    I fine = v - v == 0.0f;                                           \
    v = (T)(((I)v & fine) | ((I)load_t(p->c + at) & ~fine));          \
  }                                                                   \
  store_t(p->c + at, v)

INLINE void finish_vec(const el_product *p, size_t at, vec sum, vec bias) {
  EL_FINISH(vec, ivec, load, store);
}

INLINE void finish_vec4(const el_product *p, size_t at, vec4 sum, vec4 bias) {
  EL_FINISH(vec4, ivec4, load4, store4);
}

#endif
