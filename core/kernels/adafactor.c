/* Adafactor (Shazeer and Stern 2018), as torch.optim.Adafactor has it: the second moment of a
 * matrix is an outer product of what its rows and its columns remember, and a step is as long as
 * the parameter is large. Sums go over a whole tensor: where a gradient, or the sum of its squares,
 * is not finite the tensor keeps its old values and its state.
 */
#include "lanes.h"
#include "kernel.h"

#define COLUMNS 64 /* summed at a time */

/* The scalars that follow the tensors, step first. */
typedef struct rates {
  float fresh; /* weight of this step's squares: 1 - beta2 of step t */
  float alpha; /* length of the update before it is clipped */
  float decay, least, eps1, clip;
  int ok;
} rates;

static rates rates_of(const el_tensor *s, const float *w, const float *g, size_t size) {
  float step = el_cf32(&s[0])[0], lr = el_cf32(&s[1])[0], eps1 = el_cf32(&s[4])[0];
  float eps2 = el_cf32(&s[5])[0];
  float length = el_sqrtf(el_row_dot(w, w, size) / (float)size);
  float rho = 1.0f / el_sqrtf(step);
  if (lr < rho) rho = lr;
  return (rates){
      .fresh = el_powf(step, el_cf32(&s[3])[0]),
      .alpha = (length > eps2 ? length : eps2) * rho,
      .decay = 1.0f - lr * el_cf32(&s[2])[0],
      .least = eps1 * eps1,
      .eps1 = eps1,
      .clip = el_cf32(&s[6])[0],
      .ok = el_finite(el_cf32(&s[7])[0]) & el_finite(el_row_dot(g, g, size)),
  };
}

static void copy(float *to, const float *from, size_t n) {
  for (size_t i = 0; i < n; i++) to[i] = from[i];
}

static float towards(float old, float seen, float fresh) { return old + (seen - old) * fresh; }

/* One element of the update before clipping, from g and the estimate of its second moment. */
static inline float scaled(float g, float v, float least) {
  return g * (1.0f / el_sqrtf(v > least ? v : least));
}

/* Sum of the squares of the update of k elements whose second moments are r v. */
static float squares(const float *g, const float *v, float r, float least, size_t k) {
  float lane[EL_LANES] = {0};
  EL_LANES_LOOP(k, {
    float u = scaled(g[i + j], r * v[i + j], least);
    lane[j] += u * u;
  });
  return el_lanes_sum(lane);
}

/* alpha over max(1, rms / clip) */
static float clipped(const rates *a, float sum, size_t size) {
  float over = el_sqrtf(sum / (float)size) / a->clip;
  return a->alpha / (over > 1.0f ? over : 1.0f);
}

static void step(const rates *a, float rate, const float *w, const float *g, const float *v,
                 float r, float *out, size_t k) {
  EL_INDEPENDENT for (size_t i = 0; i < k; i++) {
    float next = w[i] * a->decay - rate * scaled(g[i], r * v[i], a->least);
    out[i] = el_pick(el_finite(next), next, w[i]);
  }
}

/* w [n, ..], rows [n], cols [k], g, step, lr, wd, beta2_decay, eps1, eps2, clip, ok
 * -> w', rows', cols' */
EL_KERNEL(adafactor_update) {
  const float *w = el_cf32(&call->t[0]), *rows = el_cf32(&call->t[1]), *cols = el_cf32(&call->t[2]);
  const float *g = el_cf32(&call->t[3]);
  float *w_out = el_f32(&call->t[12]), *rows_out = el_f32(&call->t[13]);
  float *cols_out = el_f32(&call->t[14]);
  size_t n = el_size(&call->t[1]), k = el_size(&call->t[2]);
  rates a = rates_of(&call->t[4], w, g, n * k);
  if (!a.ok) {
    copy(w_out, w, n * k);
    copy(rows_out, rows, n);
    copy(cols_out, cols, k);
    return;
  }
  for (size_t i = 0; i < n; i++) {
    float seen = el_row_dot(g + i * k, g + i * k, k) / (float)k;
    rows_out[i] = towards(rows[i], seen, a.fresh);
  }
  for (size_t from = 0; from < k; from += COLUMNS) {
    float sum[COLUMNS] = {0};
    size_t width = k - from < COLUMNS ? k - from : COLUMNS;
    for (size_t i = 0; i < n; i++) {
      const float *row = g + i * k + from;
      for (size_t j = 0; j < width; j++) sum[j] += row[j] * row[j];
    }
    for (size_t j = 0; j < width; j++) {
      cols_out[from + j] = towards(cols[from + j], sum[j] / (float)n, a.fresh);
    }
  }
  float mean = el_row_sum(rows_out, n) / (float)n, sum = 0.0f;
  if (mean < a.eps1) mean = a.eps1;
  for (size_t i = 0; i < n; i++) {
    sum += squares(g + i * k, cols_out, rows_out[i] / mean, a.least, k);
  }
  float rate = clipped(&a, sum, n * k);
  for (size_t i = 0; i < n; i++) {
    step(&a, rate, w + i * k, g + i * k, cols_out, rows_out[i] / mean, w_out + i * k, k);
  }
}

/* w, v, g, step, lr, wd, beta2_decay, eps1, eps2, clip, ok -> w', v': of a vector, each element's
 */
EL_KERNEL(adafactor_vector) {
  const float *w = el_cf32(&call->t[0]), *v = el_cf32(&call->t[1]), *g = el_cf32(&call->t[2]);
  float *w_out = el_f32(&call->t[11]), *v_out = el_f32(&call->t[12]);
  size_t size = el_size(&call->t[0]);
  rates a = rates_of(&call->t[3], w, g, size);
  if (!a.ok) {
    copy(w_out, w, size);
    copy(v_out, v, size);
    return;
  }
  for (size_t i = 0; i < size; i++) v_out[i] = towards(v[i], g[i] * g[i], a.fresh);
  float rate = clipped(&a, squares(g, v_out, 1.0f, a.least, size), size);
  step(&a, rate, w, g, v_out, 1.0f, w_out, size);
}
