/* The portable attention: one query at a time over the keys that it sees, in order. */
#include "attention.h"
#include "math.h"

static float dot(const float *x, const float *y, size_t n) {
  float sum = 0.0f;
  for (size_t i = 0; i < n; i++) sum += x[i] * y[i];
  return sum;
}

static float score(const el_attention *a, size_t b, size_t h, size_t i, size_t j) {
  size_t hk = h / (a->heads / a->key_heads);
  float s = a->scale * dot(a->q + el_query_row(a, b, h, i) * a->d,
                           a->k + el_key_row(a, b, hk, j) * a->d, a->d);
  if (a->mask == NULL) return s;
  return s + a->mask[b * a->mask_b + h * a->mask_h + i * a->mask_i + j * a->mask_j];
}

EL_KERNEL(attention) {
  el_attention a = el_attention_of(call, 0, 3, 2);
  size_t at, end;
  el_range(call, a.batch * a.heads * a.queries, 1, &at, &end);
  for (; at < end; at++) {
    size_t i = at % a.queries, h = at / a.queries % a.heads, b = at / a.queries / a.heads;
    size_t hk = h / (a.heads / a.key_heads), seen = el_seen(&a, i);
    float *o = el_f32(&call->t[call->n - 2]) + el_query_row(&a, b, h, i) * a.dv;
    float top = -el_inf(), total = 0.0f;
    for (size_t c = 0; c < a.dv; c++) o[c] = 0.0f;
    for (size_t j = 0; j < seen; j++) {
      float s = score(&a, b, h, i, j);
      if (s == -el_inf()) continue;
      if (s > top) { /* what is there was relative to the old maximum */
        float keep = el_expf(top - s);
        total *= keep;
        for (size_t c = 0; c < a.dv; c++) o[c] *= keep;
        top = s;
      }
      float p = el_expf(s - top);
      const float *v = a.v + el_key_row(&a, b, hk, j) * a.dv;
      total += p;
      for (size_t c = 0; c < a.dv; c++) o[c] += p * v[c];
    }
    if (total != 0.0f) {
      for (size_t c = 0; c < a.dv; c++) o[c] /= total;
    }
    el_f32(&call->t[call->n - 1])[at] = total != 0.0f ? top + el_logf(total) : -el_inf();
  }
}

EL_KERNEL(attention_grad) {
  el_attention a = el_attention_of(call, 1, 6, 3);
  const float *dout = el_cf32(&call->t[0]), *out = el_cf32(&call->t[4]);
  const float *lse = el_cf32(&call->t[5]);
  float *dq = el_f32(&call->t[call->n - 3]), *dk = el_f32(&call->t[call->n - 2]);
  float *dv = el_f32(&call->t[call->n - 1]);
  size_t group = a.heads / a.key_heads, at, end;
  el_range(call, a.batch * a.key_heads, 1, &at, &end);
  for (; at < end; at++) {
    size_t b = at / a.key_heads, hk = at % a.key_heads;
    for (size_t j = 0; j < a.keys; j++) {
      size_t row = el_key_row(&a, b, hk, j);
      for (size_t c = 0; c < a.d; c++) dk[row * a.d + c] = 0.0f;
      for (size_t c = 0; c < a.dv; c++) dv[row * a.dv + c] = 0.0f;
    }
    for (size_t h = hk * group; h < (hk + 1) * group; h++) {
      for (size_t i = 0; i < a.queries; i++) {
        size_t row = el_query_row(&a, b, h, i), seen = el_seen(&a, i);
        const float *dy = dout + row * a.dv, *q = a.q + row * a.d;
        float *dq_i = dq + row * a.d;
        float sum = lse[(b * a.heads + h) * a.queries + i], mean = dot(dy, out + row * a.dv, a.dv);
        for (size_t c = 0; c < a.d; c++) dq_i[c] = 0.0f;
        if (sum == -el_inf()) continue;
        for (size_t j = 0; j < seen; j++) {
          size_t key = el_key_row(&a, b, hk, j);
          const float *k = a.k + key * a.d, *v = a.v + key * a.dv;
          float p = el_expf(score(&a, b, h, i, j) - sum);
          float ds = p * (dot(dy, v, a.dv) - mean) * a.scale;
          for (size_t c = 0; c < a.d; c++) dq_i[c] += ds * k[c];
          for (size_t c = 0; c < a.d; c++) dk[key * a.d + c] += ds * q[c];
          for (size_t c = 0; c < a.dv; c++) dv[key * a.dv + c] += p * dy[c];
        }
      }
    }
  }
}
