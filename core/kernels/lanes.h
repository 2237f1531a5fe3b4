/* Reductions of a contiguous row in one written-down order, the same for every instruction set:
 * element i goes to lane i mod 16, lanes are joined as a tree (8, 4, 2, 1). */
#ifndef EL_LANES_H
#define EL_LANES_H

#include "math.h"

#define EL_LANES 16

static inline float el_lanes_sum(float *lane) {
  for (size_t half = EL_LANES / 2; half > 0; half /= 2) {
    for (size_t j = 0; j < half; j++) lane[j] += lane[j + half];
  }
  return lane[0];
}

#define EL_LANES_LOOP(n, body)                  \
  size_t i = 0;                                 \
  for (; i + EL_LANES <= (n); i += EL_LANES) {  \
    for (size_t j = 0; j < EL_LANES; j++) body; \
  }                                             \
  for (size_t j = 0; i + j < (n); j++) body

/* sum x */
static inline float el_row_sum(const float *x, size_t n) {
  float lane[EL_LANES] = {0};
  EL_LANES_LOOP(n, lane[j] += x[i + j]);
  return el_lanes_sum(lane);
}

/* sum x * y */
static inline float el_row_dot(const float *x, const float *y, size_t n) {
  float lane[EL_LANES] = {0};
  EL_LANES_LOOP(n, lane[j] += x[i + j] * y[i + j]);
  return el_lanes_sum(lane);
}

/* The larger, or NaN if any is. */
static inline float el_max(float a, float b) { return el_pick(a != a, a, a > b ? a : b); }
static inline float el_min(float a, float b) { return el_pick(a != a, a, a < b ? a : b); }

/* max x, n >= 1 */
static inline float el_row_max(const float *x, size_t n) {
  float lane[EL_LANES];
  for (size_t j = 0; j < EL_LANES; j++) lane[j] = -el_inf();
  EL_LANES_LOOP(n, lane[j] = el_max(x[i + j], lane[j]));
  for (size_t half = EL_LANES / 2; half > 0; half /= 2) {
    for (size_t j = 0; j < half; j++) lane[j] = el_max(lane[j], lane[j + half]);
  }
  return lane[0];
}

#endif
