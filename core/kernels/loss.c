/* Losses: loss[1] = sum_b weight[b] * loss_b / norm, samples added in order, and their gradients.
 * A sample of weight 0 is padding: neither its label nor its values are looked at, and its
 * gradient is 0. */
#include "lanes.h"
#include "kernel.h"

/* logits [.., c], labels [..], weight [..], norm [1] -> loss [1], probs [.., c].
 * A label outside 0 .. c - 1 makes the loss NaN. */
EL_KERNEL(softmax_cross_entropy) {
  const el_tensor *t = call->t;
  const int32_t *labels = el_ci32(&t[1]);
  const float *weight = el_cf32(&t[2]);
  size_t n = (size_t)t[0].dims[t[0].rank - 1], batch = el_size(&t[1]);
  float sum = 0.0f;
  for (size_t b = 0; b < batch; b++) {
    const float *x = el_cf32(&t[0]) + b * n;
    float *p = el_f32(&t[5]) + b * n;
    int32_t label = labels[b];
    int known = label >= 0 && (size_t)label < n;
    float own = known ? x[label] : el_nan();
    float top = el_row_max(x, n);
    for (size_t i = 0; i < n; i++) p[i] = el_expf(x[i] - top);
    float total = el_row_sum(p, n);
    for (size_t i = 0; i < n; i++) p[i] /= total;
    float loss = el_logf(total) - (own - top);
    if (weight[b] != 0.0f) sum += weight[b] * loss;
  }
  el_f32(&t[4])[0] = sum / el_cf32(&t[3])[0];
}

/* probs [.., c], labels [..], weight [..], norm [1], dloss [1] -> dlogits [.., c] */
EL_KERNEL(softmax_cross_entropy_grad) {
  const el_tensor *t = call->t;
  const int32_t *labels = el_ci32(&t[1]);
  const float *weight = el_cf32(&t[2]);
  float norm = el_cf32(&t[3])[0], dloss = el_cf32(&t[4])[0];
  size_t n = (size_t)t[0].dims[t[0].rank - 1], b, end;
  el_range(call, el_size(&t[1]), 1, &b, &end);
  for (; b < end; b++) {
    const float *p = el_cf32(&t[0]) + b * n;
    float *dx = el_f32(&t[5]) + b * n;
    float s = weight[b] / norm * dloss;
    int32_t label = labels[b];
    if (weight[b] == 0.0f) {
      for (size_t i = 0; i < n; i++) dx[i] = 0.0f;
      continue;
    }
    float own = label >= 0 && (size_t)label < n ? p[label] : el_nan();
    EL_INDEPENDENT for (size_t i = 0; i < n; i++) dx[i] = p[i] * s;
    dx[own == own ? label : 0] = (own - 1.0f) * s;
  }
}

/* pred [b, ..], target [b, ..], weight [b], norm [1] -> loss [1], loss_b a mean over the sample. */
#define PER_ELEMENT(name, expr)                                      \
  EL_KERNEL(name) {                                                  \
    const el_tensor *t = call->t;                                    \
    const float *weight = el_cf32(&t[2]);                            \
    size_t batch = (size_t)t[0].dims[0], n = el_size(&t[0]) / batch; \
    float sum = 0.0f;                                                \
    for (size_t b = 0; b < batch; b++) {                             \
      if (weight[b] == 0.0f) continue;                               \
      const float *pred = el_cf32(&t[0]) + b * n;                    \
      const float *target = el_cf32(&t[1]) + b * n;                  \
      float lane[EL_LANES] = {0};                                    \
      size_t i = 0;                                                  \
      for (; i + EL_LANES <= n; i += EL_LANES) {                     \
        for (size_t j = 0; j < EL_LANES; j++) {                      \
          float x = pred[i + j], y = target[i + j];                  \
          lane[j] += (expr);                                         \
        }                                                            \
      }                                                              \
      for (size_t j = 0; i + j < n; j++) {                           \
        float x = pred[i + j], y = target[i + j];                    \
        lane[j] += (expr);                                           \
      }                                                              \
      sum += weight[b] * (el_lanes_sum(lane) / (float)n);            \
    }                                                                \
    el_f32(&t[4])[0] = sum / el_cf32(&t[3])[0];                      \
  }

/* pred, target, weight, norm, dloss [1] -> dpred */
#define PER_ELEMENT_GRAD(name, expr)                           \
  EL_KERNEL(name) {                                            \
    const el_tensor *t = call->t;                              \
    const float *weight = el_cf32(&t[2]);                      \
    float norm = el_cf32(&t[3])[0], dloss = el_cf32(&t[4])[0]; \
    size_t n = el_size(&t[0]) / (size_t)t[0].dims[0], b, end;  \
    el_range(call, (size_t)t[0].dims[0], 1, &b, &end);         \
    for (; b < end; b++) {                                     \
      const float *pred = el_cf32(&t[0]) + b * n;              \
      const float *target = el_cf32(&t[1]) + b * n;            \
      float *dx = el_f32(&t[5]) + b * n;                       \
      float s = weight[b] / norm / (float)n * dloss;           \
      int padding = weight[b] == 0.0f;                         \
      EL_INDEPENDENT for (size_t i = 0; i < n; i++) {          \
        float x = pred[i], y = target[i];                      \
        dx[i] = el_pick(padding, 0.0f, (expr)*s);              \
      }                                                        \
    }                                                          \
  }

PER_ELEMENT(mse_loss, (x - y) * (x - y))
PER_ELEMENT(bce_loss, el_softplusf(x) - x * y)
PER_ELEMENT_GRAD(mse_loss_grad, 2.0f * (x - y))
PER_ELEMENT_GRAD(bce_loss_grad, el_sigmoidf(x) - y)
