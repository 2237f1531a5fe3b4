/* Layer normalisation over the last axis: y = (x - mean) / sqrt(var + eps) * scale + bias.
 * Dense; chunks are of rows. */
#include "lanes.h"
#include "kernel.h"

typedef struct stats {
  float mean, rstd;
} stats;

static stats stats_of(const float *x, size_t n, float eps) {
  stats s;
  s.mean = el_row_sum(x, n) / (float)n;
  float mean = s.mean;
  float lane[EL_LANES] = {0};
  EL_LANES_LOOP(n, lane[j] += (x[i + j] - mean) * (x[i + j] - mean));
  s.rstd = 1.0f / el_sqrtf(el_lanes_sum(lane) / (float)n + eps);
  return s;
}

/* x [.., n], scale [n], bias [n] -> y; attr: eps */
EL_KERNEL(layer_norm) {
  const el_tensor *t = call->t;
  const float *scale = el_cf32(&t[1]), *bias = el_cf32(&t[2]);
  size_t n = (size_t)t[0].dims[t[0].rank - 1], row, end;
  el_range(call, el_size(&t[0]) / n, 1, &row, &end);
  for (; row < end; row++) {
    const float *x = el_cf32(&t[0]) + row * n;
    float *y = el_f32(&t[3]) + row * n;
    stats s = stats_of(x, n, call->attr[0].f);
    EL_INDEPENDENT for (size_t i = 0; i < n; i++) y[i] =
        (x[i] - s.mean) * s.rstd * scale[i] + bias[i];
  }
}

/* dy [.., n], x [.., n], scale [n] -> dx = rstd * (g - mean(g) - h * mean(g * h)), where
 * g = dy * scale and h = (x - mean) * rstd; attr: eps */
EL_KERNEL(layer_norm_grad) {
  const el_tensor *t = call->t;
  const float *scale = el_cf32(&t[2]);
  size_t n = (size_t)t[0].dims[t[0].rank - 1], row, end;
  el_range(call, el_size(&t[0]) / n, 1, &row, &end);
  for (; row < end; row++) {
    const float *dy = el_cf32(&t[0]) + row * n;
    const float *x = el_cf32(&t[1]) + row * n;
    float *dx = el_f32(&t[3]) + row * n;
    stats s = stats_of(x, n, call->attr[0].f);
    float mean_g = el_row_dot(dy, scale, n) / (float)n;
    float lane[EL_LANES] = {0};
    { EL_LANES_LOOP(n, lane[j] += dy[i + j] * scale[i + j] * ((x[i + j] - s.mean) * s.rstd)); }
    float mean_gh = el_lanes_sum(lane) / (float)n;
    EL_INDEPENDENT for (size_t i = 0; i < n; i++) {
      float h = (x[i] - s.mean) * s.rstd;
      dx[i] = s.rstd * (dy[i] * scale[i] - mean_g - h * mean_gh);
    }
  }
}
