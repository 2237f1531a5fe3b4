/* Cross-entropy straight from the product that would make the logits: they exist as one block of
 * rows x cols at a time, in scratch. Blocks depend on shapes only. */
#ifndef EL_LOSS_HEAD_H
#define EL_LOSS_HEAD_H

#include "product.h"
#include "quant.h"

#define EL_HEAD_COLS 256u

typedef struct el_head {
  size_t t, k, v;    /* rows of x, their length, classes */
  size_t rows, cols; /* of a block */
} el_head;

/* At least four blocks of rows for several threads; up to 128 rows, so that packing a block of
 * weights is a small share. */
static inline el_head el_head_of(const el_tensor *x, const el_tensor *w) {
  size_t k = (size_t)x->dims[x->rank - 1], v = (size_t)w->dims[0], t = el_size(x) / k;
  size_t rows = (t + 31) / 32 * 8;
  rows = rows < 16 ? 16 : rows > 128 ? 128 : rows;
  return (el_head){
      .t = t,
      .k = k,
      .v = v,
      .rows = rows < t ? rows : t,
      .cols = v < EL_HEAD_COLS ? v : EL_HEAD_COLS,
  };
}

/* Whole rows of logits at once: their gradients need no second product. Rows as above but at least
 * 64, because each block of them reads all weights. */
static inline el_head el_head_whole(const el_tensor *x, const el_tensor *w) {
  el_head h = el_head_of(x, w);
  size_t rows = h.rows < 64 ? 64 : h.rows;
  h.rows = rows < h.t ? rows : h.t;
  h.cols = h.v;
  return h;
}

/* Classes whose codes become f32 at once, where the weights are codes: some blocks of dequantised
 * weights (quant.h), but enough columns for a product that pays. */
static inline size_t el_head_unpacked(const el_head *h) {
  size_t some = el_code_block(h->k);
  some = some < 64 ? 64 : some;
  return some < h->cols ? some : h->cols;
}

/* Classes whose gradients are multiplied with their weights at once. */
#define EL_HEAD_BACK 1024u

/* Floats of scratch before that of the products: a block of logits, four numbers for each row. */
static inline size_t el_head_floats(const el_head *h) {
  return (h->rows * h->cols + 4 * h->rows + 15) / 16 * 16;
}

/* logits[m,n] = x[m,k] w[n,k].T */
static inline el_product el_head_logits(const el_head *h, size_t m, size_t n) {
  return (el_product){
      .m = m,
      .n = n,
      .k = h->k,
      .a_row = h->k,
      .a_col = 1,
      .b_row = 1,
      .b_col = h->k,
      .c_row = n,
      .c_col = 1,
      .alpha = 1.0f,
      .keep = 1.0f,
  };
}

/* dx[m,k] += d[m,n] w[n,k] */
static inline el_product el_head_dx(const el_head *h, size_t m, size_t n) {
  return (el_product){
      .m = m,
      .n = h->k,
      .k = n,
      .a_row = n,
      .a_col = 1,
      .b_row = h->k,
      .b_col = 1,
      .c_row = h->k,
      .c_col = 1,
      .alpha = 1.0f,
      .keep = 1.0f,
  };
}

/* dw[n,k] += d[m,n].T x[m,k] */
static inline el_product el_head_dw(const el_head *h, size_t m, size_t n) {
  return (el_product){
      .m = n,
      .n = h->k,
      .k = m,
      .a_row = 1,
      .a_col = n,
      .b_row = h->k,
      .b_col = 1,
      .c_row = h->k,
      .c_col = 1,
      .alpha = 1.0f,
      .keep = 1.0f,
  };
}

#endif
