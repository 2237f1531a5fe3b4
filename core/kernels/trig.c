/* y = sin x and y = cos x. Inside in double, so that angles of positions far along a sequence are
 * as exact as f32 holds them. All operands dense; y may be x's memory. */
#include "kernel.h"
#include "math.h"

/* Beyond this many radians neighbouring f32 numbers are more than a turn apart: NaN. */
#define FARTHEST 1073741824.0f

/* sin of x plus `quarter` quarter turns */
static float turned(float x, int32_t quarter) {
  if (!(x < FARTHEST && x > -FARTHEST)) return el_nan();
  double turns = (double)x * 0.63661977236758134308; /* 2 / pi */
  int32_t k = (int32_t)(turns + (turns < 0.0 ? -0.5 : 0.5));
  /* pi / 2 in two parts: the first one has few enough bits for an exact product. */
  double r =
      (double)x - (double)k * 1.57079632673412561417 - (double)k * 6.07710050650619224932e-11;
  double s = r * r;
  uint32_t part = (uint32_t)(k + quarter) & 3u;
  double y;
  if (part & 1u) {
    y = 1.0 + s * (-1.0 / 2 + s * (1.0 / 24 + s * (-1.0 / 720 + s * (1.0 / 40320 - s / 3628800))));
  } else {
    y = s * (1.0 / 120 + s * (-1.0 / 5040 + s * (1.0 / 362880 - s / 39916800)));
    y = r + r * s * (-1.0 / 6) + r * s * y;
  }
  return (float)(part & 2u ? -y : y);
}

static void each(const el_call *call, int32_t quarter) {
  const float *x = el_cf32(&call->t[0]);
  float *y = el_f32(&call->t[1]);
  size_t i, end;
  el_range(call, el_size(&call->t[0]), 16, &i, &end);
  for (; i < end; i++) y[i] = turned(x[i], quarter);
}

EL_KERNEL(sin) { each(call, 0); }
EL_KERNEL(cos) { each(call, 1); }
