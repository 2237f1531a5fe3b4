/* Attention with vectors along queries: a block of queries is packed once as [d, queries], so that
 * a tile of scores lies as [key, query] and every product reads keys and values where they lie.
 * Each product is el_product's; between them come the mask and the exponentials. */
#include "attention.h"
#include "math.h"
#include "vec.h"

typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));

/* A block of nq queries of one head, w of them in memory, and this worker's buffers. */
typedef struct block {
  const el_attention *a;
  size_t b, h, hk, i0, nq, w;
  float *q, *dy; /* packed [d, w] and [dv, w] */
  float *p, *ds; /* tiles [key, w]: scores or probabilities, and their gradients */
  float *row[3]; /* vectors [w] */
  void *scratch; /* of products */
} block;

INLINE vec choose(ivec where, vec a, vec b) {
  return (vec)(((ivec)a & where) | ((ivec)b & ~where));
}

/* exp(x) for x <= 0 up to rounding: below -86 it is 0. As el_expf, but 2^n goes in at once; what
 * that makes of x below -86 is not taken. */
INLINE vec exp_down(vec x) {
  vec shifted = x * 1.44269504f + 12582912.0f;
  vec n = shifted - 12582912.0f;
  vec r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * r * r + r) + 1.0f;
  p = (vec)((uvec)p + ((uvec)shifted << 23));
  p = p + r * 0.0f; /* NaN stays NaN, whatever the sum of its bits is */
  return (vec)((ivec)p & ~(x < -86.0f));
}

/* out[c, x] = rows[x, c] for the nq rows of a block, 0 beyond them. */
static void pack_rows(const block *k, const float *rows, size_t stride, size_t d, float *out) {
  size_t x = 0, w = k->w;
  for (; x + LANES <= k->nq; x += LANES) {
    const float *r = rows + x * stride;
    size_t c = 0;
    for (; c + LANES <= d; c += LANES) {
      vec t[LANES];
#pragma GCC unroll 16
      for (size_t y = 0; y < LANES; y++) t[y] = load(r + y * stride + c);
      transpose(t);
#pragma GCC unroll 16
      for (size_t y = 0; y < LANES; y++) store(out + (c + y) * w + x, t[y]);
    }
    for (; c < d; c++) {
      for (size_t y = 0; y < LANES; y++) out[c * w + x + y] = r[y * stride + c];
    }
  }
  for (; x < w; x++) {
    for (size_t c = 0; c < d; c++) out[c * w + x] = x < k->nq ? rows[x * stride + c] : 0.0f;
  }
}

/* p[j, x] += mask of query i0 + x and key j0 + j. */
static void add_mask(const block *k, size_t j0, size_t nk) {
  const el_attention *a = k->a;
  const float *mask = a->mask + k->b * a->mask_b + k->h * a->mask_h + k->i0 * a->mask_i;
  mask += j0 * a->mask_j;
  size_t w = k->w, x = 0;
  if (a->mask_i == 0) {
    for (size_t j = 0; j < nk; j++) {
      float m = mask[j * a->mask_j];
      for (size_t i = 0; i < w; i++) k->p[j * w + i] += m;
    }
    return;
  }
  for (; a->mask_j == 1 && x + 4 <= k->nq; x += 4) {
    const float *m = mask + x * a->mask_i;
    size_t j = 0;
    for (; j + 4 <= nk; j += 4) {
      vec4 t[4];
      for (size_t y = 0; y < 4; y++) t[y] = load4(m + y * a->mask_i + j);
      transpose4(t);
      for (size_t y = 0; y < 4; y++) {
        float *to = k->p + (j + y) * w + x;
        store4(to, load4(to) + t[y]);
      }
    }
    for (; j < nk; j++) {
      for (size_t y = 0; y < 4; y++) k->p[j * w + x + y] += m[y * a->mask_i + j];
    }
  }
  for (; x < k->nq; x++) {
    for (size_t j = 0; j < nk; j++) k->p[j * w + x] += mask[x * a->mask_i + j * a->mask_j];
  }
}

/* p = scores of the block's queries and keys j0 .. j0 + nk. */
static void tile_scores(const block *k, size_t j0, size_t nk) {
  const el_attention *a = k->a;
  el_product s = el_scores_product(a, a->d, k->w, nk);
  s.a = a->k + el_key_row(a, k->b, k->hk, j0) * a->d;
  s.b = k->q;
  s.c = k->p;
  s.alpha = a->scale;
  EL_K(product)(&s, k->scratch, 0, 1);
  if (a->mask != NULL) add_mask(k, j0, nk);
  if (!a->causal) return;
  for (size_t j = 0; j < nk; j++) { /* queries i < j - offset do not see key j */
    int64_t first = (int64_t)(j0 + j) - a->offset - (int64_t)k->i0;
    size_t hidden = first <= 0 ? 0 : first > (int64_t)k->w ? k->w : (size_t)first;
    for (size_t x = 0; x < hidden; x++) k->p[j * k->w + x] = -el_inf();
  }
}

/* Keys that the last query of the block sees. */
static size_t last_seen(const block *k) { return el_seen(k->a, k->i0 + k->nq - 1); }

/* Scores become probabilities relative to the largest score so far (row 0: maximum, row 1: sum of
 * exponentials); what was summed before shrinks by row 2. */
static void soften(const block *k, size_t nk) {
  for (size_t x = 0; x < k->w; x += LANES) {
    vec old = load(k->row[0] + x), top = old, total = {0};
    for (size_t j = 0; j < nk; j++) {
      vec s = load(k->p + j * k->w + x);
      top = choose(s > top, s, top);
    }
    vec zero = choose(top == -el_inf(), (vec){0}, top); /* no key is seen yet */
    for (size_t j = 0; j < nk; j++) {
      vec p = exp_down(load(k->p + j * k->w + x) - zero);
      store(k->p + j * k->w + x, p);
      total += p;
    }
    vec keep = exp_down(old - zero);
    store(k->row[0] + x, top);
    store(k->row[1] + x, load(k->row[1] + x) * keep + total);
    store(k->row[2] + x, keep);
  }
}

static void forward(const block *k, float *o, float *lse) {
  const el_attention *a = k->a;
  size_t stride = a->heads * a->dv, seen = last_seen(k), tile = el_tile_keys(a);
  pack_rows(k, a->q + el_query_row(a, k->b, k->h, k->i0) * a->d, a->heads * a->d, a->d, k->q);
  for (size_t x = 0; x < k->w; x++) {
    k->row[0][x] = -el_inf();
    k->row[1][x] = 0.0f;
  }
  for (size_t x = 0; x < k->nq; x++) {
    for (size_t c = 0; c < a->dv; c++) o[x * stride + c] = 0.0f;
  }
  for (size_t j0 = 0; j0 < seen; j0 += tile) {
    size_t nk = a->keys - j0 < tile ? a->keys - j0 : tile;
    tile_scores(k, j0, nk);
    soften(k, nk);
    for (size_t x = 0; x < k->nq; x++) {
      float keep = k->row[2][x];
      if (j0 == 0 || keep == 1.0f) continue;
      for (size_t c = 0; c < a->dv; c++) o[x * stride + c] *= keep;
    }
    el_product p = el_to_queries(a, a->dv, k->w, k->nq, nk);
    p.a = k->p;
    p.b = a->v + el_key_row(a, k->b, k->hk, j0) * a->dv;
    p.c = o;
    p.acc = o;
    EL_K(product)(&p, k->scratch, 0, 1);
  }
  for (size_t x = 0; x < k->nq; x++) {
    float total = k->row[1][x];
    lse[x] = total != 0.0f ? k->row[0][x] + el_logf(total) : -el_inf();
    float part = total != 0.0f ? 1.0f / total : 0.0f;
    for (size_t c = 0; c < a->dv; c++) o[x * stride + c] *= part;
  }
}

/* Buffers of a worker, `grad` those of the gradient too; a block of w queries fits in them. */
static block buffers(const el_attention *a, float *scratch, int grad) {
  size_t w = el_block_width(a->queries), tile = el_tile_keys(a) * w;
  block k = {.a = a, .q = scratch};
  float *next = scratch + a->d * w;
  if (grad) {
    k.dy = next;
    k.ds = k.dy + a->dv * w;
    next = k.ds + tile;
  }
  k.p = next;
  for (size_t i = 0; i < 3; i++) k.row[i] = next + tile + i * w;
  k.scratch = next + tile + 3 * w;
  return k;
}

static void set_queries(block *k, size_t i0) {
  size_t rest = k->a->queries - i0;
  k->i0 = i0;
  k->nq = rest < EL_BLOCK_QUERIES ? rest : EL_BLOCK_QUERIES;
  k->w = el_block_width(k->nq);
}

EL_KERNEL(attention) {
  el_attention a = el_attention_of(call, 0, 3, 2);
  block k = buffers(&a, call->scratch, 0);
  size_t blocks = (a.queries + EL_BLOCK_QUERIES - 1) / EL_BLOCK_QUERIES, at, end;
  el_range(call, a.batch * a.heads * blocks, 1, &at, &end);
  for (; at < end; at++) {
    size_t row = at / blocks;
    k.b = row / a.heads;
    k.h = row % a.heads;
    k.hk = k.h / (a.heads / a.key_heads);
    set_queries(&k, at % blocks * EL_BLOCK_QUERIES);
    forward(&k, el_f32(&call->t[call->n - 2]) + el_query_row(&a, k.b, k.h, k.i0) * a.dv,
            el_f32(&call->t[call->n - 1]) + row * a.queries + k.i0);
  }
}

/* p becomes probabilities and ds, which holds dy v.T, the gradient of the scores / scale. Row 0 is
 * lse (infinite for a query without keys), row 1 the sum of dy * o. */
static void sharpen(const block *k, size_t nk) {
  for (size_t x = 0; x < k->w; x += LANES) {
    vec lse = load(k->row[0] + x), mean = load(k->row[1] + x);
    for (size_t j = 0; j < nk; j++) {
      size_t at = j * k->w + x;
      vec p = exp_down(load(k->p + at) - lse);
      store(k->p + at, p);
      store(k->ds + at, p * (load(k->ds + at) - mean));
    }
  }
}

typedef struct grads {
  const float *dy, *o, *lse;
  float *dq, *dk, *dv;
} grads;

/* Add what one block of queries contributes. */
static void backward(const block *k, const grads *g) {
  const el_attention *a = k->a;
  size_t row = el_query_row(a, k->b, k->h, k->i0), tile = el_tile_keys(a), seen = last_seen(k);
  const float *q = a->q + row * a->d, *dy = g->dy + row * a->dv, *o = g->o + row * a->dv;
  const float *lse = g->lse + (k->b * a->heads + k->h) * a->queries + k->i0;
  float *dq = g->dq + row * a->d;
  pack_rows(k, q, a->heads * a->d, a->d, k->q);
  pack_rows(k, dy, a->heads * a->dv, a->dv, k->dy);
  for (size_t x = 0; x < k->w; x++) {
    float sum = 0.0f;
    for (size_t c = 0; x < k->nq && c < a->dv; c++)
      sum += dy[x * a->heads * a->dv + c] * o[x * a->heads * a->dv + c];
    k->row[1][x] = sum;
    k->row[0][x] = x < k->nq && lse[x] != -el_inf() ? lse[x] : el_inf();
  }
  for (size_t x = 0; x < k->nq; x++) {
    for (size_t c = 0; c < a->d; c++) dq[x * a->heads * a->d + c] = 0.0f;
  }
  for (size_t j0 = 0; j0 < seen; j0 += tile) {
    size_t nk = a->keys - j0 < tile ? a->keys - j0 : tile;
    size_t key = el_key_row(a, k->b, k->hk, j0);
    tile_scores(k, j0, nk);
    el_product slope = el_scores_product(a, a->dv, k->w, nk);
    slope.a = a->v + key * a->dv;
    slope.b = k->dy;
    slope.c = k->ds;
    EL_K(product)(&slope, k->scratch, 0, 1);
    sharpen(k, nk);
    el_product to_v = el_to_keys(a, a->dv, k->w, k->nq, nk);
    to_v.a = k->p;
    to_v.b = dy;
    to_v.c = g->dv + key * a->dv;
    to_v.acc = to_v.c;
    EL_K(product)(&to_v, k->scratch, 0, 1);
    el_product to_k = el_to_keys(a, a->d, k->w, k->nq, nk);
    to_k.a = k->ds;
    to_k.b = q;
    to_k.c = g->dk + key * a->d;
    to_k.acc = to_k.c;
    to_k.alpha = a->scale;
    EL_K(product)(&to_k, k->scratch, 0, 1);
    el_product to_q = el_to_queries(a, a->d, k->w, k->nq, nk);
    to_q.a = k->ds;
    to_q.b = a->k + key * a->d;
    to_q.c = dq;
    to_q.acc = dq;
    to_q.alpha = a->scale;
    EL_K(product)(&to_q, k->scratch, 0, 1);
  }
}

EL_KERNEL(attention_grad) {
  el_attention a = el_attention_of(call, 1, 6, 3);
  const el_tensor *out = &call->t[call->n - 3];
  grads g = {el_cf32(&call->t[0]), el_cf32(&call->t[4]), el_cf32(&call->t[5]),
             el_f32(&out[0]),      el_f32(&out[1]),      el_f32(&out[2])};
  block k = buffers(&a, call->scratch, 1);
  size_t group = a.heads / a.key_heads, at, end;
  el_range(call, a.batch * a.key_heads, 1, &at, &end);
  for (; at < end; at++) {
    k.b = at / a.key_heads;
    k.hk = at % a.key_heads;
    for (size_t j = 0; j < a.keys; j++) {
      size_t row = el_key_row(&a, k.b, k.hk, j);
      for (size_t c = 0; c < a.d; c++) g.dk[row * a.d + c] = 0.0f;
      for (size_t c = 0; c < a.dv; c++) g.dv[row * a.dv + c] = 0.0f;
    }
    for (k.h = k.hk * group; k.h < (k.hk + 1) * group; k.h++) {
      for (size_t i0 = 0; i0 < a.queries; i0 += EL_BLOCK_QUERIES) {
        set_queries(&k, i0);
        backward(&k, &g);
      }
    }
  }
}
