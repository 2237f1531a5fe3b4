/* What attention and its gradient need: operands that fit, and in the vector variants a block of
 * packed queries, their tile of scores, and the scratch of the products between them. */
#include "attention.h"
#include "linalg_plan.h"

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* The most that one of a block's products needs, whole and last blocks and tiles. */
static uint64_t products(const el_attention *a, int grad, el_isa isa) {
  size_t most_q = a->queries < EL_BLOCK_QUERIES ? a->queries : EL_BLOCK_QUERIES;
  size_t nq[2] = {most_q, a->queries % EL_BLOCK_QUERIES};
  size_t nk[2] = {el_tile_keys(a), a->keys % EL_TILE_KEYS};
  uint64_t most = 0;
  for (int i = 0; i < 2; i++) {
    if (nq[i] == 0) continue;
    size_t w = el_block_width(nq[i]);
    for (int j = 0; j < 2; j++) {
      if (nk[j] == 0) continue;
      el_product all[6] = {el_scores_product(a, a->d, w, nk[j]),
                           el_to_queries(a, a->dv, w, nq[i], nk[j])};
      int n = 2;
      if (grad) {
        all[1] = el_to_queries(a, a->d, w, nq[i], nk[j]);
        all[n++] = el_scores_product(a, a->dv, w, nk[j]);
        all[n++] = el_to_keys(a, a->dv, w, nq[i], nk[j]);
        all[n++] = el_to_keys(a, a->d, w, nq[i], nk[j]);
      }
      for (int p = 0; p < n; p++) most = larger(most, el_product_scratch(&all[p], isa));
    }
  }
  return most;
}

static int is_mask(const el_tensor *m, const el_attention *a) {
  if (!el_array(m, 4, 4)) return 0;
  size_t full[4] = {a->batch, a->heads, a->queries, a->keys};
  for (int i = 0; i < 4; i++) {
    if (m->dims[i] != 1 && (size_t)m->dims[i] != full[i]) return 0;
  }
  return 1;
}

/* q, k, v begin at operand `at`; the mask is operand `mask` where the call has one. */
static el_status fits(const el_call *call, uint32_t at, uint32_t mask, uint32_t outputs,
                      el_attention *a) {
  if (call->n < mask + outputs || call->n > mask + 1 + outputs || call->n_attr != 3)
    return EL_E_MISMATCH;
  const el_tensor *q = &call->t[at], *k = &call->t[at + 1], *v = &call->t[at + 2];
  if (!el_array(q, 4, 4) || !el_array(k, 4, 4) || !el_array(v, 4, 4)) return EL_E_MISMATCH;
  if (k->dims[0] != q->dims[0] || v->dims[0] != q->dims[0] || k->dims[1] != v->dims[1] ||
      k->dims[2] != v->dims[2] || k->dims[3] != q->dims[3] || q->dims[2] % k->dims[2] != 0)
    return EL_E_MISMATCH;
  if (call->attr[1].i != 0 && call->attr[1].i != 1) return EL_E_MISMATCH;
  int masked = call->n == mask + 1 + outputs && el_has(&call->t[mask]);
  *a = el_attention_of(call, at, masked ? 99 : mask, outputs);
  return masked && !is_mask(&call->t[mask], a) ? EL_E_MISMATCH : EL_OK;
}

static int is_output(const el_tensor *o, const el_attention *a) {
  return el_array(o, 4, 4) && (size_t)o->dims[0] == a->batch && (size_t)o->dims[1] == a->queries &&
         (size_t)o->dims[2] == a->heads && (size_t)o->dims[3] == a->dv;
}

static int is_lse(const el_tensor *l, const el_attention *a) {
  return el_array(l, 3, 3) && (size_t)l->dims[0] == a->batch && (size_t)l->dims[1] == a->heads &&
         (size_t)l->dims[2] == a->queries;
}

/* Work in products; scratch in floats and the products' bytes. */
static el_status needs(const el_attention *a, int grad, el_isa isa, uint32_t outputs,
                       el_need *need) {
  uint64_t rows = (uint64_t)a->batch * a->heads * a->queries, scratch = 0;
  uint64_t inner = (uint64_t)a->keys * (a->d + a->dv) * (grad ? 2 : 1);
  uint64_t work = rows > UINT64_MAX / inner ? UINT64_MAX : rows * inner;
  if (isa != EL_ISA_REF) {
    uint64_t w = el_block_width(a->queries), d = (uint64_t)a->d + (grad ? a->dv : 0);
    scratch = (d + el_tile_keys(a) * (grad ? 2u : 1u) + 3) * w * sizeof(float);
    scratch += products(a, grad, isa);
  }
  el_status status = el_needs(need, work, scratch);
  need->outputs = outputs;
  return status;
}

el_plan el_plan_attention, el_plan_attention_grad;
el_status el_plan_attention(const el_call *call, el_isa isa, el_need *need) {
  el_attention a;
  if (fits(call, 0, 3, 2, &a) != EL_OK || !is_output(&call->t[call->n - 2], &a) ||
      !is_lse(&call->t[call->n - 1], &a))
    return EL_E_MISMATCH;
  return needs(&a, 0, isa, 2, need);
}

el_status el_plan_attention_grad(const el_call *call, el_isa isa, el_need *need) {
  el_attention a;
  const el_tensor *t = call->t;
  if (fits(call, 1, 6, 3, &a) != EL_OK || !is_output(&t[0], &a) || !is_output(&t[4], &a) ||
      !is_lse(&t[5], &a))
    return EL_E_MISMATCH;
  for (uint32_t i = 0; i < 3; i++) {
    const el_tensor *out = &t[call->n - 3 + i];
    if (!el_array(out, 4, 4) || !el_same_dims(out, &t[1 + i])) return EL_E_MISMATCH;
  }
  return needs(&a, 1, isa, 3, need);
}
