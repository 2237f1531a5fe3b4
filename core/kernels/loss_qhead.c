/* Cross-entropy of x w.T + b where w is codes, over some of the classes at a time: neither the
 * logits nor the f32 weights exist as a whole. Parts in ascending order, each of whole blocks of
 * EL_HEAD_COLS classes, give the bits of all classes at once.
 *
 *   qhead       x[..,k] labels[..] codes[r,k] scale? zero? weight?[v] b?[v] before?[4,t] -> [4,t]
 *   qhead_loss  labels[..] gathered[4,t] weight?[v]                       -> losses[..] lse[..]
 *   qhead_dx    x labels codes scale? zero? lse[..] dlosses[..] weight? b? dlse?[..] acc?[..,k]
 *               -> dx[..,k]
 * r classes from `first` on, of v. A row of [4,t]: largest logit, sum of exp, own logit, weighted
 * sum. attr: smoothing, ignore, shift; group, first, classes (qhead_loss: classes). */
#include "loss_classes.h"
#include "loss_qhead.h"

typedef struct job {
  el_head h;
  el_classes c;
  el_codes codes;
  const float *x, *b;
  const float *lse, *dlosses, *dlse;
  size_t first, unpacked;
  float *block;   /* [rows, cols] */
  float *weights; /* [unpacked, k] */
  void *scratch;  /* of the products */
} job;

static const float *floats(const el_tensor *t) { return t != NULL ? el_cf32(t) : NULL; }

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static job job_of(const el_call *call, uint32_t weight, uint32_t bias) {
  const el_tensor *t = call->t;
  job q = {.h = el_head_of(&t[0], &t[EL_QH_CODES])};
  size_t v = (size_t)call->attr[EL_QH_CLASSES].i;
  q.c = el_classes_of(&t[1], el_given(call, weight), v, call->attr);
  q.codes = el_get_codes(t + EL_QH_CODES, q.h.k, call->attr[EL_QH_GROUP].i);
  q.first = (size_t)call->attr[EL_QH_FIRST].i;
  q.unpacked = el_head_unpacked(&q.h);
  q.x = el_cf32(&t[0]);
  q.b = floats(el_given(call, bias));
  q.block = (float *)call->scratch;
  q.weights = q.block + el_head_floats(&q.h);
  q.scratch = (uint8_t *)q.weights + el_unpacked_bytes((uint64_t)q.unpacked * q.h.k);
  return q;
}

/* The f32 weights of classes j .. j + n - 1 of this part. */
static const float *weights(const job *q, size_t j, size_t n) {
  EL_K(dequantize)(&q->codes, j, n, 0, q->h.k, q->weights);
  return q->weights;
}

/* The logits of rows i .. i + m - 1 and classes j .. j + n - 1 of this part. */
static void logits(const job *q, size_t i, size_t m, size_t j, size_t n) {
  for (size_t o = 0; o < n; o += q->unpacked) {
    size_t some = least(q->unpacked, n - o);
    el_product p = el_head_logits(&q->h, m, some);
    p.a = q->x + i * q->h.k;
    p.b = weights(q, j + o, some);
    p.c = q->block + o;
    p.c_row = n;
    p.bias = q->b != NULL ? q->b + q->first + j + o : NULL;
    EL_K(product)(&p, q->scratch, 0, 1);
  }
}

EL_KERNEL(qhead) {
  job q = job_of(call, EL_QH_WEIGHT, EL_QH_BIAS);
  const float *before = floats(el_given(call, EL_QH_BEFORE));
  size_t i, end, t = q.h.t;
  float *top = el_f32(&call->t[call->n - 1]), *sum = top + t, *own = sum + t, *all = own + t;
  el_range(call, t, q.h.rows, &i, &end);
  for (; i < end; i += q.h.rows) {
    size_t m = least(q.h.rows, end - i);
    for (size_t r = i; r < i + m; r++) {
      top[r] = before != NULL ? before[r] : -el_inf();
      sum[r] = before != NULL ? before[t + r] : 0.0f;
      own[r] = before != NULL ? before[2 * t + r] : 0.0f;
      all[r] = before != NULL ? before[3 * t + r] : 0.0f;
    }
    for (size_t j = 0; j < q.h.v; j += q.h.cols) {
      size_t n = least(q.h.cols, q.h.v - j);
      logits(&q, i, m, j, n);
      for (size_t r = 0; r < m; r++) {
        el_row_gather(&q.c, i + r, q.block + r * n, q.first + j, n, &top[i + r], &sum[i + r],
                      &own[i + r], &all[i + r]);
      }
    }
  }
}

EL_KERNEL(qhead_loss) {
  const el_tensor *t = call->t, *weight = call->n > 4 && el_has(&t[2]) ? &t[2] : NULL;
  size_t rows = el_size(&t[0]);
  el_classes c = el_classes_of(&t[0], weight, (size_t)call->attr[3].i, call->attr);
  const float *top = el_cf32(&t[1]), *sum = top + rows, *own = sum + rows, *all = own + rows;
  float *losses = el_f32(&t[call->n - 2]), *lse = el_f32(&t[call->n - 1]);
  for (size_t i = 0; i < rows; i++) {
    losses[i] = el_row_gathered(&c, i, top[i], sum[i], own[i], all[i], &lse[i]);
  }
}

EL_KERNEL(qhead_dx) {
  job q = job_of(call, EL_QHD_WEIGHT, EL_QHD_BIAS);
  const float *acc = floats(el_given(call, EL_QHD_ACC));
  const float *lse = el_cf32(&call->t[EL_QHD_LSE]), *dlosses = el_cf32(&call->t[EL_QHD_DLOSSES]);
  const float *dlse = floats(el_given(call, EL_QHD_DLSE));
  float *dx = el_f32(&call->t[call->n - 1]);
  size_t i, end, k = q.h.k;
  el_range(call, q.h.t, q.h.rows, &i, &end);
  for (; i < end; i += q.h.rows) {
    size_t m = least(q.h.rows, end - i);
    const float *sum = acc != NULL ? acc + i * k : NULL;
    for (size_t j = 0; j < q.h.v; j += q.h.cols) {
      size_t n = least(q.h.cols, q.h.v - j);
      logits(&q, i, m, j, n);
      for (size_t r = 0; r < m; r++) {
        float *x = q.block + r * n;
        el_row_loss of = el_row_loss_of(&q.c, i + r);
        el_row_grad(&q.c, &of, lse[i + r], dlosses[i + r], dlse != NULL ? dlse[i + r] : 0, x, x,
                    q.first + j, n);
      }
      for (size_t o = 0; o < n; o += q.unpacked) {
        el_product p = el_head_dx(&q.h, m, least(q.unpacked, n - o));
        p.a = q.block + o;
        p.a_row = n;
        p.b = weights(&q, j + o, p.k);
        p.c = dx + i * k;
        p.acc = sum;
        EL_K(product)(&p, q.scratch, 0, 1);
        sum = p.c;
      }
    }
  }
}
