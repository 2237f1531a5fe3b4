/* Optimizers: new versions of parameters and state, written over the old ones. Where `ok` (the
 * loss, or a gradient norm) is not finite nothing changes; an element whose new value would not
 * be finite keeps its old one, its state too. */
#include "lanes.h"
#include "kernel.h"

static float only(const el_call *call, uint32_t i) { return el_cf32(&call->t[i])[0]; }

/* w, g, lr, wd, ok -> w' */
EL_KERNEL(sgd_update) {
  const float *w = el_cf32(&call->t[0]), *g = el_cf32(&call->t[1]);
  float *out = el_f32(&call->t[5]);
  float lr = only(call, 2), wd = only(call, 3);
  int ok = el_finite(only(call, 4));
  size_t i, end;
  el_range(call, el_size(&call->t[0]), 16, &i, &end);
  EL_INDEPENDENT for (; i < end; i++) {
    float next = w[i] - lr * (g[i] + wd * w[i]);
    out[i] = el_pick(ok & el_finite(next), next, w[i]);
  }
}

/* w, m, g, lr, wd, mu, ok -> w', m' */
EL_KERNEL(momentum_update) {
  const float *w = el_cf32(&call->t[0]), *m = el_cf32(&call->t[1]), *g = el_cf32(&call->t[2]);
  float *w_out = el_f32(&call->t[7]), *m_out = el_f32(&call->t[8]);
  float lr = only(call, 3), wd = only(call, 4), mu = only(call, 5);
  int ok = el_finite(only(call, 6));
  size_t i, end;
  el_range(call, el_size(&call->t[0]), 16, &i, &end);
  EL_INDEPENDENT for (; i < end; i++) {
    float m_next = mu * m[i] + (g[i] + wd * w[i]);
    float w_next = w[i] - lr * m_next;
    int take = ok & el_finite(m_next) & el_finite(w_next);
    float w_keep = w[i], m_keep = m[i];
    w_out[i] = el_pick(take, w_next, w_keep);
    m_out[i] = el_pick(take, m_next, m_keep);
  }
}

/* powers [2] = beta1^t, beta2^t; beta1, beta2, ok -> powers' */
EL_KERNEL(adam_tick) {
  const float *t = el_cf32(&call->t[0]);
  float *out = el_f32(&call->t[4]);
  int ok = el_finite(only(call, 3));
  float first = t[0] * only(call, 1), second = t[1] * only(call, 2);
  out[0] = el_pick(ok & el_finite(first), first, t[0]);
  out[1] = el_pick(ok & el_finite(second), second, t[1]);
}

/* w, m, v, g, powers, lr, wd, beta1, beta2, eps, ok -> w', m', v' */
EL_KERNEL(adamw_update) {
  const float *w = el_cf32(&call->t[0]), *m = el_cf32(&call->t[1]), *v = el_cf32(&call->t[2]);
  const float *g = el_cf32(&call->t[3]), *powers = el_cf32(&call->t[4]);
  float *w_out = el_f32(&call->t[11]), *m_out = el_f32(&call->t[12]), *v_out = el_f32(&call->t[13]);
  float lr = only(call, 5), decay = 1.0f - lr * only(call, 6);
  float beta1 = only(call, 7), beta2 = only(call, 8), eps = only(call, 9);
  float rate = lr / (1.0f - powers[0]), root = el_sqrtf(1.0f - powers[1]);
  int ok = el_finite(only(call, 10));
  size_t i, end;
  el_range(call, el_size(&call->t[0]), 16, &i, &end);
  EL_INDEPENDENT for (; i < end; i++) {
    float gi = g[i], w_keep = w[i], m_keep = m[i], v_keep = v[i];
    float m_next = beta1 * m_keep + (1.0f - beta1) * gi;
    float v_next = beta2 * v_keep + (1.0f - beta2) * (gi * gi);
    float w_next = w_keep * decay - rate * (m_next / (el_sqrtf(v_next) / root + eps));
    int take = ok & el_finite(m_next) & el_finite(v_next) & el_finite(w_next);
    w_out[i] = el_pick(take, w_next, w_keep);
    m_out[i] = el_pick(take, m_next, m_keep);
    v_out[i] = el_pick(take, v_next, v_keep);
  }
}

/* w, m, g, lr, wd, beta1, beta2, ok -> w', m': Lion (Chen et al. 2023) */
EL_KERNEL(lion_update) {
  const float *w = el_cf32(&call->t[0]), *m = el_cf32(&call->t[1]), *g = el_cf32(&call->t[2]);
  float *w_out = el_f32(&call->t[8]), *m_out = el_f32(&call->t[9]);
  float lr = el_cf32(&call->t[3])[0], decay = 1.0f - lr * el_cf32(&call->t[4])[0];
  float beta1 = el_cf32(&call->t[5])[0], beta2 = el_cf32(&call->t[6])[0];
  int ok = el_finite(el_cf32(&call->t[7])[0]);
  size_t i, end;
  el_range(call, el_size(&call->t[0]), 16, &i, &end);
  EL_INDEPENDENT for (; i < end; i++) {
    float w_keep = w[i], m_keep = m[i], gi = g[i];
    float mix = beta1 * m_keep + (1.0f - beta1) * gi;
    float way = (float)((mix > 0.0f) - (mix < 0.0f));
    float w_next = w_keep * decay - lr * way;
    float m_next = beta2 * m_keep + (1.0f - beta2) * gi;
    int take = ok & el_finite(m_next) & el_finite(w_next);
    w_out[i] = el_pick(take, w_next, w_keep);
    m_out[i] = el_pick(take, m_next, m_keep);
  }
}

/* acc, g, scale -> acc' = acc + scale * g. NaN goes in: norm_sq must see it. */
EL_KERNEL(accumulate) {
  const float *acc = el_cf32(&call->t[0]), *g = el_cf32(&call->t[1]);
  float *out = el_f32(&call->t[3]);
  float scale = only(call, 2);
  size_t i, end;
  el_range(call, el_size(&call->t[0]), 16, &i, &end);
  EL_INDEPENDENT for (; i < end; i++) out[i] = acc[i] + scale * g[i];
}

/* acc -> acc' = 0 */
EL_KERNEL(zero_) {
  float *out = el_f32(&call->t[1]);
  size_t i, end;
  el_range(call, el_size(&call->t[0]), 16, &i, &end);
  for (; i < end; i++) out[i] = 0.0f;
}

/* g, acc [1]? -> [1]: acc + sum(g * g) */
EL_KERNEL(norm_sq) {
  const float *g = el_cf32(&call->t[0]);
  const float *acc = el_cf32(&call->t[1]);
  float sum = el_row_dot(g, g, el_size(&call->t[0]));
  el_f32(&call->t[2])[0] = acc == NULL ? sum : acc[0] + sum;
}
