/* Rotary position embedding: pairs of features turn by their position's angle.
 * x [b, s, h, d], cos and sin [s, half] or [b, s, half] -> y; attr: interleaved, inverse.
 * Dense; the output may be x's memory; chunks are of positions (b, s). */
#include "kernel.h"

EL_KERNEL(rotary) {
  const el_tensor *x = &call->t[0], *angles = &call->t[1];
  size_t s = (size_t)x->dims[1], heads = (size_t)x->dims[2], d = (size_t)x->dims[3];
  size_t half = (size_t)angles->dims[angles->rank - 1];
  size_t every = angles->rank == 3 ? (size_t)x->dims[0] * s : s; /* rows of angles */
  int interleaved = call->attr[0].i;
  float sign = call->attr[1].i ? -1.0f : 1.0f;
  size_t row, end;
  el_range(call, (size_t)x->dims[0] * s, 1, &row, &end);
  for (; row < end; row++) {
    const float *cosine = el_cf32(angles) + row % every * half;
    const float *sine = el_cf32(&call->t[2]) + row % every * half;
    for (size_t h = 0; h < heads; h++) {
      const float *in = el_cf32(x) + (row * heads + h) * d;
      float *out = el_f32(&call->t[3]) + (row * heads + h) * d;
      if (interleaved) {
        EL_INDEPENDENT for (size_t i = 0; i < half; i++) {
          float a = in[2 * i], b = in[2 * i + 1];
          out[2 * i] = a * cosine[i] - b * (sign * sine[i]);
          out[2 * i + 1] = a * (sign * sine[i]) + b * cosine[i];
        }
      } else {
        EL_INDEPENDENT for (size_t i = 0; i < half; i++) {
          float a = in[i], b = in[i + half];
          out[i] = a * cosine[i] - b * (sign * sine[i]);
          out[i + half] = a * (sign * sine[i]) + b * cosine[i];
        }
      }
      EL_INDEPENDENT for (size_t i = 2 * half; i < d; i++) out[i] = in[i];
    }
  }
}
