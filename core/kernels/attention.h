/* Attention over heads: o = softmax(scale q k.T + mask) v, and its gradient.
 *
 *   attention       q[b,s,h,d] k[b,t,hk,d] v[b,t,hk,dv] mask? -> o[b,s,h,dv] lse[b,h,s]
 *   attention_grad  dy[b,s,h,dv] q k v o lse mask? -> dq dk dv
 *   attr: scale, causal, offset (query i sees the keys j <= i + offset)
 *
 * Dense. mask [b|1, h|1, s|1, t|1] is added to the scores. A query that sees no key has o = 0,
 * lse = -inf and no gradient. The scores of a block of queries and a tile of keys at a time are all
 * that is ever held (Milakov & Gimelshein 2018; Dao et al. 2022). Chunks of the forward pass are of
 * queries; those of the gradient are of key heads, whose query heads are summed in order. */
#ifndef EL_ATTENTION_H
#define EL_ATTENTION_H

#include "product.h"

typedef struct el_attention {
  size_t batch, queries, keys, heads, key_heads, d, dv;
  float scale;
  int causal;
  int64_t offset;
  const float *q, *k, *v, *mask;         /* mask: NULL without one */
  size_t mask_b, mask_h, mask_i, mask_j; /* strides, 0 where it broadcasts */
} el_attention;

/* Read a call's operands: q, k, v from `at` on, the mask in `mask` if the call has that one. */
static inline el_attention el_attention_of(const el_call *call, uint32_t at, uint32_t mask,
                                           uint32_t outputs) {
  const el_tensor *q = &call->t[at], *k = &call->t[at + 1], *v = &call->t[at + 2];
  el_attention a = {
      .batch = (size_t)q->dims[0],
      .queries = (size_t)q->dims[1],
      .keys = (size_t)k->dims[1],
      .heads = (size_t)q->dims[2],
      .key_heads = (size_t)k->dims[2],
      .d = (size_t)q->dims[3],
      .dv = (size_t)v->dims[3],
      .scale = call->attr[0].f,
      .causal = call->attr[1].i,
      .offset = call->attr[2].i,
      .q = el_cf32(q),
      .k = el_cf32(k),
      .v = el_cf32(v),
  };
  if (call->n == mask + 1 + outputs && el_has(&call->t[mask])) {
    const el_tensor *m = &call->t[mask];
    size_t stride = 1, *strides[4] = {&a.mask_b, &a.mask_h, &a.mask_i, &a.mask_j};
    a.mask = el_cf32(m);
    for (int i = 3; i >= 0; i--) {
      *strides[i] = m->dims[i] > 1 ? stride : 0;
      stride *= (size_t)m->dims[i];
    }
  }
  return a;
}

/* Keys before the first one that query i does not see. */
static inline size_t el_seen(const el_attention *a, size_t i) {
  if (!a->causal) return a->keys;
  int64_t n = (int64_t)i + a->offset + 1;
  return n < 0 ? 0 : n > (int64_t)a->keys ? a->keys : (size_t)n;
}

/* Row i of head h of sample b in q or o, and the row of key j that it meets. */
static inline size_t el_query_row(const el_attention *a, size_t b, size_t h, size_t i) {
  return (b * a->queries + i) * a->heads + h;
}
static inline size_t el_key_row(const el_attention *a, size_t b, size_t hk, size_t j) {
  return (b * a->keys + j) * a->key_heads + hk;
}

/* ---- blocks of the vector variants ---------------------------------------------------------- */

enum { EL_BLOCK_QUERIES = 64, EL_TILE_KEYS = 64, EL_BLOCK_GRAIN = 16 };

/* Queries of a block in memory: padded to whole vectors of any instruction set. */
static inline size_t el_block_width(size_t queries) {
  size_t n = queries < EL_BLOCK_QUERIES ? queries : EL_BLOCK_QUERIES;
  return (n + EL_BLOCK_GRAIN - 1) / EL_BLOCK_GRAIN * EL_BLOCK_GRAIN;
}

static inline size_t el_tile_keys(const el_attention *a) {
  return a->keys < EL_TILE_KEYS ? a->keys : EL_TILE_KEYS;
}

/* The products of nq queries and nk keys, over scores laid out [key, query] with `w` queries a row:
 * scores of inner size d (packed queries [d, w]), its transposed use over queries (rows of a query
 * tensor gain), and over keys (rows of a key tensor gain). */
static inline el_product el_scores_product(const el_attention *a, size_t d, size_t w, size_t nk) {
  return (el_product){.m = nk,
                      .n = w,
                      .k = d,
                      .a_row = a->key_heads * d,
                      .a_col = 1,
                      .b_row = w,
                      .b_col = 1,
                      .c_row = w,
                      .c_col = 1,
                      .alpha = 1.0f,
                      .keep = 1.0f};
}

static inline el_product el_to_queries(const el_attention *a, size_t d, size_t w, size_t nq,
                                       size_t nk) {
  return (el_product){.m = nq,
                      .n = d,
                      .k = nk,
                      .a_row = 1,
                      .a_col = w,
                      .b_row = a->key_heads * d,
                      .b_col = 1,
                      .c_row = a->heads * d,
                      .c_col = 1,
                      .alpha = 1.0f,
                      .keep = 1.0f};
}

static inline el_product el_to_keys(const el_attention *a, size_t d, size_t w, size_t nq,
                                    size_t nk) {
  return (el_product){.m = nk,
                      .n = d,
                      .k = nq,
                      .a_row = w,
                      .a_col = 1,
                      .b_row = a->heads * d,
                      .b_col = 1,
                      .c_row = a->key_heads * d,
                      .c_col = 1,
                      .alpha = 1.0f,
                      .keep = 1.0f};
}

#endif
