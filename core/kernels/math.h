/* Elementary functions without libm: the same bits on every machine, branch-free so that loops
 * over them vectorise. Errors are below 1.2 units in the last place where nothing else is said.
 * Each takes any float: NaN gives NaN, overflow infinity, underflow subnormals and zero. */
#ifndef EL_MATH_H
#define EL_MATH_H

#include <stdint.h>
#include <string.h>

/* No square root instruction: a correctly rounded one from integers takes its place. */
#if !defined(EL_SOFT_SQRT) && \
    ((defined(__arm__) && !defined(__ARM_FP)) || (defined(__riscv) && !defined(__riscv_flen)))
#define EL_SOFT_SQRT 1
#endif

static inline uint32_t el_bits(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

static inline float el_from_bits(uint32_t u) {
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

/* Select without a branch; both sides are always computed. */
static inline float el_pick(int take_a, float a, float b) { return take_a ? a : b; }

/* max(v, 0), NaN passes. A mask, because compilers make a branch of the plain form, which is
 * guessed wrong as often as v changes its sign. */
static inline float el_relu(float v) {
  return el_from_bits(el_bits(v) & (0u - (uint32_t) !(v < 0.0f)));
}

/* A bijection of 32-bit words with good avalanche (xor-shift, multiply; as MurmurHash3 ends). */
static inline uint32_t el_mix(uint32_t u) {
  u ^= u >> 16;
  u *= 0x85EBCA6Bu;
  u ^= u >> 13;
  u *= 0xC2B2AE35u;
  u ^= u >> 16;
  return u;
}

/* To the nearest integer, ties to even; |x| < 2^22. */
static inline int32_t el_nearest(float x) {
  return (int32_t)el_bits(x + 12582912.0f) - 0x4B400000; /* 1.5 * 2^23 */
}

static inline float el_absf(float x) { return el_from_bits(el_bits(x) & 0x7FFFFFFFu); }
static inline float el_inf(void) { return el_from_bits(0x7F800000u); }
static inline float el_nan(void) { return el_from_bits(0x7FC00000u); }

/* 1 where x is neither infinite nor NaN. */
static inline int el_finite(float x) { return (el_bits(x) & 0x7F800000u) != 0x7F800000u; }

static inline float el_expf(float x) {
  float t = x < -104.0f ? -104.0f : x;
  t = t > 89.0f ? 89.0f : t;
  /* n = x / ln 2 rounded, by adding and taking away 1.5 * 2^23 */
  float shifted = t * 1.44269504f + 12582912.0f;
  float n = shifted - 12582912.0f;
  float r = t - n * 0.693359375f; /* exact: the constant has 10 bits */
  r = r - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * r * r + r) + 1.0f;
  /* p * 2^n in two steps, so that subnormal results round once and 2^128 is never formed */
  uint32_t k = el_bits(shifted) - 0x4B400000u + 1024u; /* n + 1024 */
  uint32_t half = k >> 1;
  float a = el_from_bits((half - 512u + 127u) << 23);
  float b = el_from_bits((k - half - 512u + 127u) << 23);
  p = p * a * b;
  p = el_pick(x > 88.7228394f, el_inf(), p);
  p = el_pick(x < -104.0f, 0.0f, p);
  return el_pick(x != x, x, p);
}

static inline float el_logf(float x) {
  int tiny = x < 1.17549435e-38f;
  float scaled = el_pick(tiny, x * 33554432.0f, x);
  uint32_t u = el_bits(scaled) + (0x3F800000u - 0x3F3504F3u);
  /* x = 2^k * m with m in [sqrt(1/2), sqrt(2)) */
  float k = (float)(int32_t)((u >> 23) & 0xFFu) - el_pick(tiny, 152.0f, 127.0f);
  float f = el_from_bits((u & 0x007FFFFFu) + 0x3F3504F3u) - 1.0f;
  float s = f / (2.0f + f);
  float z = s * s;
  float w = z * z;
  float even = w * (0.40000972152f + w * 0.24279078841f);
  float odd = z * (0.66666662693f + w * 0.28498786688f);
  float h = 0.5f * f * f;
  float y = s * (h + (odd + even)) + k * 9.0580006145e-06f - h + f + k * 6.9313812256e-01f;
  y = el_pick(x == el_inf(), x, y);
  y = el_pick(x < 0.0f, el_nan(), y);
  y = el_pick(x == 0.0f, -el_inf(), y);
  return el_pick(x != x, x, y);
}

static inline float el_tanhf(float x) {
  float a = el_absf(x);
  float z = x * x;
  float p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  p = p * z * x + x;
  float large = 1.0f - 2.0f / (el_expf(2.0f * a) + 1.0f);
  large = el_from_bits(el_bits(large) | (el_bits(x) & 0x80000000u));
  large = el_pick(a < 0.625f, p, large);
  return el_pick(x != x, x, large);
}

/* 1 / (1 + exp(-x)), accurate in both tails; below 2.5 units in the last place. */
static inline float el_sigmoidf(float x) {
  float e = el_expf(-el_absf(x));
  return el_pick(x < 0.0f, e, 1.0f) / (1.0f + e);
}

/* log(1 + t) for t in [0, 1]; below 2 units in the last place. */
static inline float el_log1pf(float t) {
  float u = 1.0f + t;
  return el_logf(u) + (t - (u - 1.0f)) / u;
}

/* log(1 + exp(x)); below 3 units in the last place. */
static inline float el_softplusf(float x) {
  float y = el_log1pf(el_expf(-el_absf(x)));
  return (x > 0.0f ? x : 0.0f) + y;
}

/* exp(x) - 1 for x <= 0; below 3 units in the last place. */
static inline float el_expm1f(float x) {
  float p = 1.0f / 5040.0f;
  p = p * x + 1.0f / 720.0f;
  p = p * x + 1.0f / 120.0f;
  p = p * x + 1.0f / 24.0f;
  p = p * x + 1.0f / 6.0f;
  p = p * x + 0.5f;
  p = p * x * x + x;
  return el_pick(x > -0.3f, p, el_expf(x) - 1.0f);
}

/* Below 8 units in the last place: a rational function up to |x| = 4, where erf is 1. */
static inline float el_erff(float x) {
  float t = x < -4.0f ? -4.0f : x;
  t = t > 4.0f ? 4.0f : t;
  float z = t * t;
  float p = -2.72614225801306e-10f;
  p = p * z + 2.77068142495902e-08f;
  p = p * z + -2.10102402082508e-06f;
  p = p * z + -5.69250639462346e-05f;
  p = p * z + -7.34990630326855e-04f;
  p = p * z + -2.95459980854025e-03f;
  p = p * z + -1.60960333262415e-02f;
  float q = -1.45660718464996e-05f;
  q = q * z + -2.13374055278905e-04f;
  q = q * z + -1.68282697438203e-03f;
  q = q * z + -7.37332916720468e-03f;
  q = q * z + -1.42647390514189e-02f;
  float y = t * (p / q); /* in this order for subnormal t */
  y = y < -1.0f ? -1.0f : y;
  y = y > 1.0f ? 1.0f : y;
  return el_pick(x != x, x, y);
}

#ifdef EL_SOFT_SQRT
/* Correctly rounded: one bit of the root at a time. */
static inline float el_sqrtf(float x) {
  uint32_t u = el_bits(x);
  if ((u & 0x7FFFFFFFu) == 0u || x != x || u == 0x7F800000u) return x;
  if (u & 0x80000000u) return el_nan();
  int32_t e = (int32_t)(u >> 23);
  uint32_t m = u & 0x007FFFFFu;
  if (e == 0) {
    e = 1;
    while (!(m & 0x00800000u)) {
      m <<= 1;
      e--;
    }
  }
  m |= 0x00800000u;
  e -= 127;
  if (e & 1) {
    m <<= 1;
    e--;
  }
  /* x = m * 2^(e - 23); the root of m * 2^25 has 25 bits: 24 and one to round by */
  uint64_t rest = (uint64_t)m << 25;
  uint64_t root = 0;
  for (uint64_t bit = (uint64_t)1 << 48; bit != 0; bit >>= 2) {
    if (rest >= root + bit) {
      rest -= root + bit;
      root = (root >> 1) + bit;
    } else {
      root >>= 1;
    }
  }
  /* a root of 25 bits cannot lie halfway unless exact, which then has its last bit 0 */
  uint32_t q = (uint32_t)((root + 1) >> 1);
  return el_from_bits(((uint32_t)(e / 2 + 127) << 23) + (q - 0x00800000u));
}
#else
static inline float el_sqrtf(float x) { return __builtin_sqrtf(x); }
#endif

/* x to the power y, as C's pow is specified; inside in double, so within 1 unit in the last place.
 */
float el_powf(float x, float y);

#endif
