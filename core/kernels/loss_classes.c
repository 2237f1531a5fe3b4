/* Cross-entropy of each row of logits, its gradient, and what each row counts for. The rows are
 * cut into chunks; weighted_loss adds them in one order.
 *
 *   cross_entropy       x[..,c] labels[..] weight?[c]          -> losses[..], lse[..]
 *   cross_entropy_grad  x labels lse[..] dlosses[..] weight? dlse?[..]  -> dx[..,c]
 *   counted             labels[..]                             -> 1, or 0 where ignored [..]
 *   weighted_loss       losses[b,..] sample_weight[b] norm[1]  -> loss[1]
 *
 * attr: smoothing, ignore, shift (counted: ignore, shift). lse = log(sum(exp(x))). */
#include "loss_classes.h"

static const el_tensor *optional(const el_call *call, uint32_t i, uint32_t outputs) {
  return i + outputs < call->n && call->t[i].rank > 0 ? &call->t[i] : NULL;
}

EL_KERNEL(cross_entropy) {
  const el_tensor *t = call->t;
  size_t n = (size_t)t[0].dims[t[0].rank - 1], row, end;
  el_classes c = el_classes_of(&t[1], optional(call, 2, 2), n, call->attr);
  float *losses = el_f32(&t[call->n - 2]), *lse = el_f32(&t[call->n - 1]);
  el_range(call, el_size(&t[1]), 1, &row, &end);
  for (; row < end; row++) {
    const float *x = el_cf32(&t[0]) + row * n;
    float top = el_row_max(x, n), log_total = el_logf(el_exp_sum(x, n, top)), all = 0.0f;
    el_row_loss r = el_row_loss_of(&c, row);
    if (r.smooth != 0.0f) all = el_weighted_row(&c, x, 0, n, top);
    lse[row] = top + log_total;
    losses[row] = r.hit == 0.0f && r.smooth == 0.0f
                      ? 0.0f
                      : el_row_loss_at(&c, &r, x[r.label] - top, log_total, all);
  }
}

EL_KERNEL(cross_entropy_grad) {
  const el_tensor *t = call->t, *dlse = optional(call, 5, 1);
  size_t n = (size_t)t[0].dims[t[0].rank - 1], row, end;
  el_classes c = el_classes_of(&t[1], optional(call, 4, 1), n, call->attr);
  el_range(call, el_size(&t[1]), 1, &row, &end);
  for (; row < end; row++) {
    const float *x = el_cf32(&t[0]) + row * n;
    float *dx = el_f32(&t[call->n - 1]) + row * n;
    el_row_loss r = el_row_loss_of(&c, row);
    el_row_grad(&c, &r, el_cf32(&t[2])[row], el_cf32(&t[3])[row],
                dlse != NULL ? el_cf32(dlse)[row] : 0.0f, x, dx, 0, n);
  }
}

EL_KERNEL(counted) {
  const el_tensor *t = call->t;
  el_word attr[3] = {{.f = 0.0f}, call->attr[0], call->attr[1]};
  el_classes c = el_classes_of(&t[0], NULL, 1, attr);
  int32_t label;
  for (size_t i = 0; i < el_size(&t[0]); i++)
    el_f32(&t[1])[i] = el_row_label(&c, i, &label) ? 1.0f : 0.0f;
}

EL_KERNEL(weighted_loss) {
  const el_tensor *t = call->t;
  const float *weight = el_cf32(&t[1]);
  size_t batch = (size_t)t[0].dims[0], n = el_size(&t[0]) / batch;
  float sum = 0.0f;
  for (size_t b = 0; b < batch; b++) {
    if (weight[b] != 0.0f) sum += weight[b] * el_row_sum(el_cf32(&t[0]) + b * n, n);
  }
  el_f32(&t[3])[0] = sum / el_cf32(&t[2])[0];
}

/* losses[b,..], sample_weight[b], norm[1], dloss[1] -> dlosses[b,..] */
EL_KERNEL(weighted_loss_grad) {
  const el_tensor *t = call->t;
  const float *weight = el_cf32(&t[1]);
  size_t batch = (size_t)t[0].dims[0], n = el_size(&t[0]) / batch;
  for (size_t b = 0; b < batch; b++) {
    float d = weight[b] == 0.0f ? 0.0f : weight[b] / el_cf32(&t[2])[0] * el_cf32(&t[3])[0];
    for (size_t i = 0; i < n; i++) el_f32(&t[4])[b * n + i] = d;
  }
}
