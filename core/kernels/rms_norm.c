/* Root mean square normalisation over the last axis: y = x / sqrt(mean(x^2) + eps) * weight.
 * Dense; chunks are of rows. */
#include "lanes.h"
#include "kernel.h"

static float scale_of(const float *x, size_t n, float eps) {
  return 1.0f / el_sqrtf(el_row_dot(x, x, n) / (float)n + eps);
}

/* x [.., n], weight? [n] -> y; attr: eps */
EL_KERNEL(rms_norm) {
  const el_tensor *t = call->t, *out = &t[call->n - 1];
  const float *weight = call->n == 3 && t[1].rank > 0 ? el_cf32(&t[1]) : NULL;
  size_t n = (size_t)t[0].dims[t[0].rank - 1], row, end;
  el_range(call, el_size(&t[0]) / n, 1, &row, &end);
  for (; row < end; row++) {
    const float *x = el_cf32(&t[0]) + row * n;
    float *y = el_f32(out) + row * n;
    float r = scale_of(x, n, call->attr[0].f);
    if (weight != NULL) {
      EL_INDEPENDENT for (size_t i = 0; i < n; i++) y[i] = x[i] * r * weight[i];
    } else {
      EL_INDEPENDENT for (size_t i = 0; i < n; i++) y[i] = x[i] * r;
    }
  }
}

/* dy [.., n], x [.., n], weight? [n] -> dx = r * (g - h * mean(g * h)), where g = dy * weight,
 * r = 1 / sqrt(mean(x^2) + eps) and h = x * r; attr: eps */
EL_KERNEL(rms_norm_grad) {
  const el_tensor *t = call->t, *out = &t[call->n - 1];
  const float *weight = call->n == 4 && t[2].rank > 0 ? el_cf32(&t[2]) : NULL;
  size_t n = (size_t)t[0].dims[t[0].rank - 1], row, end;
  el_range(call, el_size(&t[0]) / n, 1, &row, &end);
  for (; row < end; row++) {
    const float *dy = el_cf32(&t[0]) + row * n;
    const float *x = el_cf32(&t[1]) + row * n;
    float *dx = el_f32(out) + row * n;
    float r = scale_of(x, n, call->attr[0].f);
    if (weight != NULL) {
      float lane[EL_LANES] = {0};
      { EL_LANES_LOOP(n, lane[j] += dy[i + j] * weight[i + j] * (x[i + j] * r)); }
      float mean = el_lanes_sum(lane) / (float)n;
      EL_INDEPENDENT for (size_t i = 0; i < n; i++) dx[i] =
          r * (dy[i] * weight[i] - x[i] * r * mean);
    } else {
      float lane[EL_LANES] = {0};
      { EL_LANES_LOOP(n, lane[j] += dy[i + j] * (x[i + j] * r)); }
      float mean = el_lanes_sum(lane) / (float)n;
      EL_INDEPENDENT for (size_t i = 0; i < n; i++) dx[i] = r * (dy[i] - x[i] * r * mean);
    }
  }
}
