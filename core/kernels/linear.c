/* Dense layers, forward and backward, and batched products, all as el_product.
 *
 *   linear      x[m,k] w[n,k] b?[n] acc?[m,n]     -> y[m,n]  = act(alpha x w.T + b + acc)
 *   linear_dx   dy[m,n] w[n,k] acc?[m,k]          -> dx[m,k] = alpha dy w + acc
 *   linear_dw   dy[m,n] x[m,k] acc?[n,k]          -> dw[n,k] = alpha dy.T x + acc
 *   linear_sgd  w[n,k] dy[m,n] x[m,k] lr wd ok    -> w       = w (1 - lr wd) - lr alpha dy.T x
 *   matmul      a[..,m,k] b[..,k,n]               -> c[..,m,n]
 *   col_sum     dy[m,n] acc?[n]                   -> s[n], rows in order
 */
#include "product.h"

static const float *optional(const el_call *call, uint32_t i) {
  return i + 1 < call->n && el_has(&call->t[i]) ? el_cf32(&call->t[i]) : NULL;
}

static size_t last_dim(const el_tensor *t) { return (size_t)t->dims[t->rank - 1]; }

static size_t rows_of(const el_tensor *t) { return el_size(t) / last_dim(t); }

EL_KERNEL(linear) {
  const el_tensor *x = &call->t[0], *w = &call->t[1];
  size_t k = last_dim(x), n = (size_t)w->dims[0];
  el_product p = {
      .m = rows_of(x),
      .n = n,
      .k = k,
      .a = el_cf32(x),
      .a_row = k,
      .a_col = 1,
      .b = el_cf32(w),
      .b_row = 1,
      .b_col = k,
      .c = el_f32(&call->t[call->n - 1]),
      .c_row = n,
      .c_col = 1,
      .bias = optional(call, 2),
      .acc = optional(call, 3),
      .alpha = call->attr[0].f,
      .keep = 1.0f,
      .act = call->attr[1].i,
  };
  EL_K(product)(&p, call->scratch, call->chunk, call->chunks);
}

EL_KERNEL(linear_dx) {
  const el_tensor *dy = &call->t[0], *w = &call->t[1];
  size_t n = (size_t)w->dims[0], k = (size_t)w->dims[1];
  el_product p = {
      .m = rows_of(dy),
      .n = k,
      .k = n,
      .a = el_cf32(dy),
      .a_row = n,
      .a_col = 1,
      .b = el_cf32(w),
      .b_row = k,
      .b_col = 1,
      .c = el_f32(&call->t[call->n - 1]),
      .c_row = k,
      .c_col = 1,
      .acc = optional(call, 2),
      .alpha = call->attr[0].f,
      .keep = 1.0f,
  };
  EL_K(product)(&p, call->scratch, call->chunk, call->chunks);
}

static el_product weight_product(const el_tensor *dy, const el_tensor *x, float *dw) {
  size_t n = last_dim(dy), k = last_dim(x);
  return (el_product){
      .m = n,
      .n = k,
      .k = rows_of(dy),
      .a = el_cf32(dy),
      .a_row = 1,
      .a_col = n,
      .b = el_cf32(x),
      .b_row = k,
      .b_col = 1,
      .c = dw,
      .c_row = k,
      .c_col = 1,
      .keep = 1.0f,
  };
}

EL_KERNEL(linear_dw) {
  el_product p = weight_product(&call->t[0], &call->t[1], el_f32(&call->t[call->n - 1]));
  p.acc = optional(call, 2);
  p.alpha = call->attr[0].f;
  EL_K(product)(&p, call->scratch, call->chunk, call->chunks);
}

EL_KERNEL(linear_sgd) {
  float lr = *el_cf32(&call->t[3]), wd = *el_cf32(&call->t[4]), ok = *el_cf32(&call->t[5]);
  if (ok - ok != 0.0f) return; /* the loss is not finite: keep the weights */
  el_product p = weight_product(&call->t[1], &call->t[2], el_f32(&call->t[6]));
  p.acc = el_cf32(&call->t[0]);
  p.keep = 1.0f - lr * wd;
  p.alpha = -(lr * call->attr[0].f);
  p.guard = 1;
  EL_K(product)(&p, call->scratch, call->chunk, call->chunks);
}

/* Elements before batch `index` of `out` in an operand whose batch dims broadcast to out's. */
static size_t batch_offset(const el_tensor *t, const el_tensor *out, size_t index) {
  size_t offset = 0, stride = (size_t)t->dims[t->rank - 1] * (size_t)t->dims[t->rank - 2];
  for (int32_t i = out->rank - 3, j = t->rank - 3; i >= 0 && j >= 0; i--, j--) {
    size_t at = index % (size_t)out->dims[i];
    index /= (size_t)out->dims[i];
    if (t->dims[j] > 1) offset += at * stride;
    stride *= (size_t)t->dims[j];
  }
  return offset;
}

EL_KERNEL(matmul) {
  const el_tensor *a = &call->t[0], *b = &call->t[1], *c = &call->t[2];
  int ta = call->attr[0].i, tb = call->attr[1].i;
  size_t m = (size_t)c->dims[c->rank - 2], n = last_dim(c);
  size_t k = (size_t)a->dims[a->rank - (ta ? 2 : 1)];
  el_product p = {
      .m = m,
      .n = n,
      .k = k,
      .a_row = ta ? 1 : k,
      .a_col = ta ? m : 1,
      .b_row = tb ? 1 : n,
      .b_col = tb ? k : 1,
      .c_row = n,
      .c_col = 1,
      .alpha = call->attr[2].f,
      .keep = 1.0f,
  };
  /* One product is cut into chunks itself; of several, each chunk takes some whole ones. */
  size_t batches = el_size(c) / (m * n), begin = 0, end = 1;
  if (batches > 1) el_range(call, batches, 1, &begin, &end);
  for (size_t i = begin; i < end; i++) {
    p.a = el_cf32(a) + batch_offset(a, c, i);
    p.b = el_cf32(b) + batch_offset(b, c, i);
    p.c = el_f32(c) + i * m * n;
    EL_K(product)(&p, call->scratch, batches > 1 ? 0 : call->chunk, batches > 1 ? 1 : call->chunks);
  }
}

EL_KERNEL(col_sum) {
  const el_tensor *dy = &call->t[0];
  const float *x = el_cf32(dy), *acc = optional(call, 1);
  float *s = el_f32(&call->t[call->n - 1]);
  size_t n = last_dim(dy), m = rows_of(dy), begin, end;
  el_range(call, n, 16, &begin, &end);
  for (size_t j0 = begin; j0 < end; j0 += 32) {
    float sum[32] = {0};
    size_t width = end - j0 < 32 ? end - j0 : 32;
    for (size_t i = 0; i < m; i++) {
      for (size_t j = 0; j < width; j++) sum[j] += x[i * n + j0 + j];
    }
    for (size_t j = 0; j < width; j++) s[j0 + j] = acc != NULL ? sum[j] + acc[j0 + j] : sum[j];
  }
}
