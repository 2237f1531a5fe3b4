/* What a row of logits is compared with: its label, and what that label weighs. */
#ifndef EL_LOSS_CLASSES_H
#define EL_LOSS_CLASSES_H

#include "lanes.h"
#include "kernel.h"

/* As `ignore`: no label is ignored. */
#define EL_IGNORE_NONE INT32_MIN

typedef struct el_classes {
  const int32_t *labels;
  const float *weight; /* [n], or NULL: ones */
  size_t n;            /* classes */
  size_t row;          /* labels along the last axis */
  size_t shift;        /* a row is compared with the label this far behind it */
  int32_t ignore;
  float smoothing, spread; /* spread: smoothing / n */
  float total;             /* sum of all class weights */
} el_classes;

/* attr: smoothing, ignore, shift */
static inline el_classes el_classes_of(const el_tensor *labels, const el_tensor *weight, size_t n,
                                       const el_word *attr) {
  el_classes c = {
      .labels = el_ci32(labels),
      .weight = weight != NULL && weight->rank > 0 ? el_cf32(weight) : NULL,
      .n = n,
      .row = labels->rank > 0 ? (size_t)labels->dims[labels->rank - 1] : 1,
      .shift = (size_t)attr[2].i,
      .ignore = attr[1].i,
      .smoothing = attr[0].f,
      .spread = attr[0].f / (float)n,
      .total = (float)n,
  };
  if (c.weight != NULL) c.total = el_row_sum(c.weight, n);
  return c;
}

/* The label of row i; 0 where the row is ignored. */
static inline int el_row_label(const el_classes *c, size_t i, int32_t *label) {
  if (i % c->row + c->shift >= c->row) return 0;
  *label = c->labels[i + c->shift];
  return *label != c->ignore || *label == EL_IGNORE_NONE;
}

/* A row's loss is hit * -log p[label] + smooth * sum_j weight[j] * -log p[j]. Both are 0 where it
 * is ignored; hit is NaN and label 0 where its label is no class. */
typedef struct el_row_loss {
  size_t label;
  float hit, smooth;
} el_row_loss;

static inline el_row_loss el_row_loss_of(const el_classes *c, size_t i) {
  int32_t y = 0;
  el_row_loss r = {0, 0.0f, 0.0f};
  if (!el_row_label(c, i, &y)) return r;
  r.smooth = c->spread;
  r.hit = el_nan();
  if (y < 0 || (size_t)y >= c->n) return r;
  r.label = (size_t)y;
  r.hit = (1.0f - c->smoothing) * (c->weight != NULL ? c->weight[y] : 1.0f);
  return r;
}

/* The loss of a row, from distances below its largest logit `top`: of the label's logit (own), of
 * log(sum(exp(x))) (lse) and of each logit times its weight, summed (all). */
static inline float el_row_loss_at(const el_classes *c, const el_row_loss *r, float own, float lse,
                                   float all) {
  float loss = r->hit * (lse - own);
  return r->smooth != 0.0f ? loss + r->smooth * (c->total * lse - all) : loss;
}

/* sum_j exp(x[j] - top) */
static inline float el_exp_sum(const float *x, size_t n, float top) {
  float lane[EL_LANES] = {0};
  EL_LANES_LOOP(n, lane[j] += el_expf(x[i + j] - top));
  return el_lanes_sum(lane);
}

/* sum_j weight[j] * (x[j] - top) over the classes first .. first + n - 1, whose logits x holds. */
static inline float el_weighted_row(const el_classes *c, const float *x, size_t first, size_t n,
                                    float top) {
  const float *w = c->weight != NULL ? c->weight + first : NULL;
  float lane[EL_LANES] = {0};
  EL_LANES_LOOP(n, lane[j] += (w != NULL ? w[i + j] : 1.0f) * (x[i + j] - top));
  return el_lanes_sum(lane);
}

/* Gradient of (loss, lse) over the classes first .. first + n - 1, where p = exp(x - lse):
 * dx = p * (dloss * (hit + smooth * total) + dlse) - dloss * (hit at the label, smooth * weight).
 * Zeros where nothing arrives, whatever x holds. dx may be x. */
static inline void el_row_grad(const el_classes *c, const el_row_loss *r, float lse, float dloss,
                               float dlse, const float *x, float *dx, size_t first, size_t n) {
  int counts = dloss != 0.0f && (r->hit != 0.0f || r->smooth != 0.0f);
  float hit = counts ? dloss * r->hit : 0.0f, smooth = counts ? dloss * r->smooth : 0.0f;
  float scale = hit + smooth * c->total + dlse;
  if (!counts && dlse == 0.0f) {
    for (size_t i = 0; i < n; i++) dx[i] = 0.0f;
    return;
  }
  EL_INDEPENDENT for (size_t i = 0; i < n; i++) dx[i] = el_expf(x[i] - lse) * scale;
  for (size_t i = 0; smooth != 0.0f && i < n; i++)
    dx[i] -= smooth * (c->weight != NULL ? c->weight[first + i] : 1.0f);
  if (r->label >= first && r->label - first < n) dx[r->label - first] -= hit;
}

/* Take logits j .. j + n - 1 of row i into what is known of it: its largest logit, the sum of exp
 * below that, its label's logit, the sum of weighted logits. */
static inline void el_row_gather(const el_classes *c, size_t i, const float *x, size_t j, size_t n,
                                 float *top, float *sum, float *own, float *all) {
  float high = el_max(*top, el_row_max(x, n));
  *sum = *sum * el_expf(*top - high) + el_exp_sum(x, n, high);
  *top = high;
  el_row_loss of = el_row_loss_of(c, i);
  if (of.label >= j && of.label - j < n) *own = x[of.label - j];
  if (of.smooth != 0.0f) *all += el_weighted_row(c, x, j, n, 0.0f);
}

/* The loss of row i, whose logits were all taken in, and the logarithm of its sum of exp. */
static inline float el_row_gathered(const el_classes *c, size_t i, float top, float sum, float own,
                                    float all, float *lse) {
  float log_total = el_logf(sum);
  el_row_loss of = el_row_loss_of(c, i);
  *lse = top + log_total;
  return of.hit == 0.0f && of.smooth == 0.0f
             ? 0.0f
             : el_row_loss_at(c, &of, own - top, log_total, all - c->total * top);
}

#endif
