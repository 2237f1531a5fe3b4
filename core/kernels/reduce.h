/* A reduction as alternating groups of kept and reduced dimensions. */
#ifndef EL_REDUCE_H
#define EL_REDUCE_H

#include "kernel.h"

typedef struct el_reduce {
  size_t inner;   /* elements of the innermost group */
  int inner_kept; /* whether that group is kept */
  size_t reduced; /* combinations of outer reduced indices, 1 if none */
  int32_t n_keep, n_red;
  size_t keep_dim[EL_RANK], keep_stride[EL_RANK]; /* outer kept dims, innermost first */
  size_t red_dim[EL_RANK], red_stride[EL_RANK];   /* outer reduced dims, innermost first */
} el_reduce;

/* Bit i: axis i is reduced. The six attribute words are axes, padded with -1, then keepdims. */
static inline uint32_t el_axes_mask(const el_call *call) {
  uint32_t mask = 0;
  for (uint32_t i = 0; i < EL_RANK; i++) {
    if (call->attr[i].i >= 0) mask |= 1u << call->attr[i].i;
  }
  return mask;
}

/* Axes that x has and y, aligned to the right, has not or has as 1. */
static inline uint32_t el_shape_mask(const el_tensor *x, const el_tensor *y) {
  uint32_t mask = 0;
  for (int32_t i = 0; i < x->rank; i++) {
    int32_t k = i - (x->rank - y->rank);
    if (k < 0 || y->dims[k] == 1) mask |= 1u << i;
  }
  return mask;
}

static inline void el_reduce_of(el_reduce *r, const el_tensor *x, uint32_t mask) {
  r->inner = 1;
  r->inner_kept = 1;
  r->reduced = 1;
  r->n_keep = 0;
  r->n_red = 0;
  size_t stride = 1;
  int started = 0, open = 1;
  for (int32_t i = x->rank - 1; i >= 0; i--) {
    size_t d = (size_t)x->dims[i];
    if (d == 1) continue;
    int kept = !((mask >> i) & 1u);
    if (!started) {
      started = 1;
      r->inner_kept = kept;
    }
    if (open && kept == r->inner_kept) {
      r->inner *= d;
    } else if (kept) {
      open = 0;
      r->keep_dim[r->n_keep] = d;
      r->keep_stride[r->n_keep++] = stride;
    } else {
      open = 0;
      r->red_dim[r->n_red] = d;
      r->red_stride[r->n_red++] = stride;
      r->reduced *= d;
    }
    stride *= d;
  }
}

static inline size_t el_offset_of(const size_t *dim, const size_t *stride, int32_t n,
                                  size_t index) {
  size_t at = 0;
  for (int32_t k = 0; k < n; k++) {
    at += index % dim[k] * stride[k];
    index /= dim[k];
  }
  return at;
}

/* Where the index-th combination of outer kept or outer reduced indices begins. */
static inline size_t el_keep_offset(const el_reduce *r, size_t index) {
  return el_offset_of(r->keep_dim, r->keep_stride, r->n_keep, index);
}
static inline size_t el_reduce_offset(const el_reduce *r, size_t index) {
  return el_offset_of(r->red_dim, r->red_stride, r->n_red, index);
}

#endif
