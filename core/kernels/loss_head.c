/* Cross-entropy of x w.T + b without the logits in memory, and its gradients, which make them
 * once more, block by block.
 *
 *   linear_cross_entropy     x[..,k] labels[..] w[v,k] b?[v] weight?[v]  -> losses[..], lse[..]
 *   linear_cross_entropy_dx  x labels w lse[..] dlosses[..] b? weight? dlse?[..]  -> dx[..,k]
 *   linear_cross_entropy_dw  as dx                                    -> dw[v,k], db[v]
 *   linear_cross_entropy_both  x labels w dlosses[..] b? weight?      -> losses[..] lse[..]
 * dx[..,k]
 *
 * The last keeps whole rows of logits, for less work: what arrives at losses is known beforehand.
 * attr: smoothing, ignore, shift. */
#include "loss_classes.h"
#include "loss_head.h"

typedef struct job {
  el_head h;
  el_classes c;
  const float *x, *w, *b;
  const float *lse, *dlosses, *dlse;
  float *block;  /* [rows, cols] */
  float *of_row; /* [4, rows] */
  void *scratch; /* of the products */
} job;

static const el_tensor *optional(const el_call *call, uint32_t i, uint32_t outputs) {
  return i + outputs < call->n && call->t[i].rank > 0 ? &call->t[i] : NULL;
}

static const float *floats(const el_tensor *t) { return t != NULL ? el_cf32(t) : NULL; }

static job job_of(const el_call *call, uint32_t bias, uint32_t outputs, el_head h) {
  const el_tensor *t = call->t;
  job q = {.h = h};
  q.c = el_classes_of(&t[1], optional(call, bias + 1, outputs), q.h.v, call->attr);
  q.x = el_cf32(&t[0]);
  q.w = el_cf32(&t[2]);
  q.b = floats(optional(call, bias, outputs));
  q.block = (float *)call->scratch;
  q.of_row = q.block + q.h.rows * q.h.cols;
  q.scratch = q.block + el_head_floats(&q.h);
  return q;
}

static job grad_job_of(const el_call *call, uint32_t outputs) {
  job q = job_of(call, 5, outputs, el_head_of(&call->t[0], &call->t[2]));
  q.lse = el_cf32(&call->t[3]);
  q.dlosses = el_cf32(&call->t[4]);
  q.dlse = floats(optional(call, 7, outputs));
  return q;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* The logits of rows i .. i + m - 1 and classes j .. j + n - 1. */
static void logits(const job *q, size_t i, size_t m, size_t j, size_t n) {
  el_product p = el_head_logits(&q->h, m, n);
  p.a = q->x + i * q->h.k;
  p.b = q->w + j * q->h.k;
  p.c = q->block;
  p.bias = q->b != NULL ? q->b + j : NULL;
  EL_K(product)(&p, q->scratch, 0, 1);
}

/* Their gradients in their place. */
static void gradients(const job *q, size_t i, size_t m, size_t j, size_t n) {
  logits(q, i, m, j, n);
  for (size_t r = 0; r < m; r++) {
    float *x = q->block + r * n;
    el_row_loss of = el_row_loss_of(&q->c, i + r);
    el_row_grad(&q->c, &of, q->lse[i + r], q->dlosses[i + r], q->dlse != NULL ? q->dlse[i + r] : 0,
                x, x, j, n);
  }
}

/* Take a block of logits into each row's largest logit, sum of exp, own logit, weighted sum. */
static void gather(const job *q, size_t i, size_t m, size_t j, size_t n) {
  size_t rows = q->h.rows;
  float *top = q->of_row, *sum = top + rows, *own = sum + rows, *all = own + rows;
  for (size_t r = 0; r < m; r++) {
    el_row_gather(&q->c, i + r, q->block + r * n, j, n, &top[r], &sum[r], &own[r], &all[r]);
  }
}

/* Losses and lse of rows i .. i + m - 1; of one block of classes, its logits stay in q->block. */
static void forward(const job *q, size_t i, size_t m, float *losses, float *lse) {
  size_t rows = q->h.rows;
  float *top = q->of_row, *sum = top + rows, *own = sum + rows, *all = own + rows;
  for (size_t r = 0; r < m; r++) {
    top[r] = -el_inf();
    sum[r] = own[r] = all[r] = 0.0f;
  }
  for (size_t j = 0; j < q->h.v; j += q->h.cols) {
    size_t n = least(q->h.cols, q->h.v - j);
    logits(q, i, m, j, n);
    gather(q, i, m, j, n);
  }
  for (size_t r = 0; r < m; r++) {
    losses[i + r] = el_row_gathered(&q->c, i + r, top[r], sum[r], own[r], all[r], &lse[i + r]);
  }
}

EL_KERNEL(linear_cross_entropy) {
  job q = job_of(call, 3, 2, el_head_of(&call->t[0], &call->t[2]));
  float *losses = el_f32(&call->t[call->n - 2]), *lse = el_f32(&call->t[call->n - 1]);
  size_t i, end;
  el_range(call, q.h.t, q.h.rows, &i, &end);
  for (; i < end; i += q.h.rows) forward(&q, i, least(q.h.rows, end - i), losses, lse);
}

EL_KERNEL(linear_cross_entropy_both) {
  const el_tensor *out = &call->t[call->n - 3];
  job q = job_of(call, 4, 3, el_head_whole(&call->t[0], &call->t[2]));
  const float *dlosses = el_cf32(&call->t[3]);
  float *losses = el_f32(&out[0]), *lse = el_f32(&out[1]), *dx = el_f32(&out[2]);
  size_t i, end, v = q.h.v;
  el_range(call, q.h.t, q.h.rows, &i, &end);
  for (; i < end; i += q.h.rows) {
    size_t m = least(q.h.rows, end - i);
    forward(&q, i, m, losses, lse);
    for (size_t r = 0; r < m; r++) {
      float *x = q.block + r * v;
      el_row_loss of = el_row_loss_of(&q.c, i + r);
      el_row_grad(&q.c, &of, lse[i + r], dlosses[i + r], 0.0f, x, x, 0, v);
    }
    for (size_t j = 0; j < v; j += EL_HEAD_BACK) {
      el_product p = el_head_dx(&q.h, m, least(EL_HEAD_BACK, v - j));
      p.a = q.block + j;
      p.a_row = v;
      p.b = q.w + j * q.h.k;
      p.c = dx + i * q.h.k;
      p.acc = j > 0 ? p.c : NULL;
      EL_K(product)(&p, q.scratch, 0, 1);
    }
  }
}

EL_KERNEL(linear_cross_entropy_dx) {
  job q = grad_job_of(call, 1);
  float *dx = el_f32(&call->t[call->n - 1]);
  size_t i, end;
  el_range(call, q.h.t, q.h.rows, &i, &end);
  for (; i < end; i += q.h.rows) {
    size_t m = least(q.h.rows, end - i);
    for (size_t j = 0; j < q.h.v; j += q.h.cols) {
      size_t n = least(q.h.cols, q.h.v - j);
      gradients(&q, i, m, j, n);
      el_product p = el_head_dx(&q.h, m, n);
      p.a = q.block;
      p.b = q.w + j * q.h.k;
      p.c = dx + i * q.h.k;
      p.acc = j > 0 ? p.c : NULL;
      EL_K(product)(&p, q.scratch, 0, 1);
    }
  }
}

EL_KERNEL(linear_cross_entropy_dw) {
  job q = grad_job_of(call, 2);
  float *dw = el_f32(&call->t[call->n - 2]), *db = el_f32(&call->t[call->n - 1]);
  size_t j, end;
  el_range(call, q.h.v, q.h.cols, &j, &end);
  for (; j < end; j += q.h.cols) {
    size_t n = least(q.h.cols, end - j);
    for (size_t c = 0; c < n; c++) db[j + c] = 0.0f;
    for (size_t i = 0; i < q.h.t; i += q.h.rows) {
      size_t m = least(q.h.rows, q.h.t - i);
      gradients(&q, i, m, j, n);
      for (size_t r = 0; r < m; r++) {
        for (size_t c = 0; c < n; c++) db[j + c] += q.block[r * n + c];
      }
      el_product p = el_head_dw(&q.h, m, n);
      p.a = q.block;
      p.b = q.x + i * q.h.k;
      p.c = dw + j * q.h.k;
      p.acc = i > 0 ? p.c : NULL;
      EL_K(product)(&p, q.scratch, 0, 1);
    }
  }
}
