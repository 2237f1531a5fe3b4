/* Matrix products: one description of C = op(A) op(B) for every operator that is one.
 *
 * C[i,j] = act(alpha * sum_l A[i,l] * B[l,j] + bias[j] + keep * acc[i,j])
 *
 * Every operand is addressed by a row and a column stride, so that transposing costs nothing.
 * The portable variant sums over l = 0, 1, .. k-1 in this order, starting from 0, each product and
 * each sum rounded; then alpha, bias, acc and act in this order. This order is the definition.
 */
#ifndef EL_PRODUCT_H
#define EL_PRODUCT_H

#include "kernel.h"
#include "math.h"

enum { EL_ACT_NONE = 0, EL_ACT_RELU = 1, EL_ACT_RELU6 = 2, EL_ACTS = 3 };

typedef struct el_product {
  size_t m, n, k;
  const float *a; /* A[i,l] = a[i*a_row + l*a_col] */
  size_t a_row, a_col;
  const float *b; /* B[l,j] = b[l*b_row + j*b_col] */
  size_t b_row, b_col;
  float *c;
  size_t c_row, c_col;
  const float *acc;  /* laid out as c, or NULL; may be c itself */
  const float *bias; /* [n], or NULL */
  float alpha, keep;
  int act;
  int guard; /* a value that is not finite is not written (weight updates; acc is c) */
} el_product;

/* Part `chunk` of `chunks` of a product, cut over rows or columns of C. The bits of C do not
 * depend on the cut. scratch: at least el_product_scratch bytes, EL_ALIGN aligned. */
void EL_K(product)(const el_product *p, void *scratch, uint32_t chunk, uint32_t chunks);

/* An optional operand is absent when its rank is 0. */
static inline int el_has(const el_tensor *t) { return t->rank > 0; }

static inline float el_finish(float sum, const el_product *p, float bias, float acc) {
  float v = p->alpha * sum;
  if (p->bias != NULL) v = v + bias;
  if (p->acc != NULL) v = v + p->keep * acc;
  if (p->act != EL_ACT_NONE) v = el_relu(v);
  if (p->act == EL_ACT_RELU6 && v > 6.0f) v = 6.0f;
  return v;
}

/* The part of `n` items that `chunk` of `chunks` covers, in multiples of grain. */
static inline void el_part(size_t n, size_t grain, uint32_t chunk, uint32_t chunks, size_t *begin,
                           size_t *end) {
  size_t grains = (n + grain - 1) / grain;
  *begin = (size_t)((uint64_t)grains * chunk / chunks) * grain;
  *end = (size_t)((uint64_t)grains * (chunk + 1u) / chunks) * grain;
  if (*begin > n) *begin = n;
  if (*end > n) *end = n;
}

#endif
