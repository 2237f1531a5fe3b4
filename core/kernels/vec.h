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
