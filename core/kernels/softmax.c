/* Softmax and log-softmax over the last axis, and their gradients. Dense; chunks are of rows. */
#include "lanes.h"
#include "kernel.h"

typedef struct rows {
  size_t begin, end, n;
} rows;

static rows rows_of(const el_call *call) {
  const el_tensor *x = &call->t[0];
  rows r;
  r.n = (size_t)x->dims[x->rank - 1];
  el_range(call, el_size(x) / r.n, 1, &r.begin, &r.end);
  return r;
}

EL_KERNEL(softmax) {
  rows r = rows_of(call);
  for (size_t b = r.begin; b < r.end; b++) {
    const float *x = el_cf32(&call->t[0]) + b * r.n;
    float *y = el_f32(&call->t[1]) + b * r.n;
    float top = el_row_max(x, r.n);
    EL_INDEPENDENT for (size_t i = 0; i < r.n; i++) y[i] = el_expf(x[i] - top);
    float total = el_row_sum(y, r.n);
    EL_INDEPENDENT for (size_t i = 0; i < r.n; i++) y[i] = y[i] / total;
  }
}

/* dx = y * (dy - sum(dy * y)) */
EL_KERNEL(softmax_grad) {
  rows r = rows_of(call);
  for (size_t b = r.begin; b < r.end; b++) {
    const float *dy = el_cf32(&call->t[0]) + b * r.n;
    const float *y = el_cf32(&call->t[1]) + b * r.n;
    float *dx = el_f32(&call->t[2]) + b * r.n;
    float dot = el_row_dot(dy, y, r.n);
    EL_INDEPENDENT for (size_t i = 0; i < r.n; i++) dx[i] = y[i] * (dy[i] - dot);
  }
}

/* y = (x - max) - log(sum(exp(x - max))); y holds the exponentials until their sum is known. */
EL_KERNEL(log_softmax) {
  rows r = rows_of(call);
  for (size_t b = r.begin; b < r.end; b++) {
    const float *x = el_cf32(&call->t[0]) + b * r.n;
    float *y = el_f32(&call->t[1]) + b * r.n;
    float top = el_row_max(x, r.n);
    for (size_t i = 0; i < r.n; i++) y[i] = el_expf(x[i] - top);
    float log_total = el_logf(el_row_sum(y, r.n));
    for (size_t i = 0; i < r.n; i++) y[i] = (x[i] - top) - log_total;
  }
}

/* dx = dy - exp(y) * sum(dy) */
EL_KERNEL(log_softmax_grad) {
  rows r = rows_of(call);
  for (size_t b = r.begin; b < r.end; b++) {
    const float *dy = el_cf32(&call->t[0]) + b * r.n;
    const float *y = el_cf32(&call->t[1]) + b * r.n;
    float *dx = el_f32(&call->t[2]) + b * r.n;
    float total = el_row_sum(dy, r.n);
    EL_INDEPENDENT for (size_t i = 0; i < r.n; i++) dx[i] = dy[i] - el_expf(y[i]) * total;
  }
}
