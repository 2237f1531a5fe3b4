/* el_powf. Built once, as scalar code: powers with an exponent known at compile time are products
 * and roots, so this is the rare case. */
#include "math.h"

static double bits64(uint64_t u) {
  double x;
  memcpy(&x, &u, sizeof x);
  return x;
}

/* log(x), x > 0 finite, within 1e-12 relative. */
static double log64(float x) {
  uint32_t u = el_bits(x);
  int32_t k = 0;
  if (u < 0x00800000u) {
    u = el_bits(x * 33554432.0f);
    k = -25;
  }
  u += 0x3F800000u - 0x3F3504F3u;
  k += (int32_t)(u >> 23) - 127;
  double m = (double)el_from_bits((u & 0x007FFFFFu) + 0x3F3504F3u);
  double s = (m - 1.0) / (m + 1.0), z = s * s, p = 1.0 / 19.0;
  for (int32_t i = 17; i > 0; i -= 2) p = p * z + 1.0 / i;
  return 2.0 * s * p + k * 0.69314718055994530942;
}

/* exp(t) for any t that is not NaN. */
static float exp64(double t) {
  if (t > 89.0) return el_inf();
  if (t < -104.0) return 0.0f;
  int32_t n = (int32_t)(t * 1.4426950408889634 + (t < 0 ? -0.5 : 0.5));
  double r = t - n * 0.69314718055994530942, p = 1.0;
  for (int32_t i = 12; i > 0; i--) p = p * r / i + 1.0;
  return (float)(p * bits64((uint64_t)(n + 1023) << 52));
}

float el_powf(float x, float y) {
  if (y == 0.0f || x == 1.0f) return 1.0f;
  if (x != x || y != y) return el_nan();
  float ay = el_absf(y), ax = el_absf(x);
  /* At 2^24 and above every float is an even integer. */
  int whole = ay >= 16777216.0f || (float)(int32_t)ay == ay;
  int odd = ay < 16777216.0f && whole && ((int32_t)ay & 1);
  float sign = odd && (el_bits(x) >> 31) ? -1.0f : 1.0f;
  if (ax == 0.0f) return y < 0.0f ? sign * el_inf() : sign * 0.0f;
  if (ax == el_inf()) return y < 0.0f ? sign * 0.0f : sign * el_inf();
  if (ay == el_inf()) {
    if (ax == 1.0f) return 1.0f;
    return (ax > 1.0f) == (y > 0.0f) ? el_inf() : 0.0f;
  }
  if (x < 0.0f && !whole) return el_nan();
  return sign * exp64((double)y * log64(ax));
}
