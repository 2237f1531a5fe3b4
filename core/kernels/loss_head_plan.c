/* What cross-entropy from a product needs: a block of logits and the products' scratch. */
#include "linalg_plan.h"
#include "loss_classes_plan.h"
#include "loss_head.h"

typedef el_product shape_of(const el_head *h, size_t m, size_t n);

static int rows(const el_tensor *t, const el_tensor *labels) {
  return el_plain(t, EL_F32) && el_same_dims(t, labels);
}

/* x, labels and w, and class vectors at `bias` and after it, before `outputs` outputs. */
static int operands(const el_call *call, uint32_t bias, uint32_t outputs) {
  const el_tensor *t = call->t;
  if (call->n < bias + outputs || !el_rows_of(&t[0], &t[1]) || !el_class_attrs(call, &t[1]) ||
      !el_plain(&t[2], EL_F32) || t[2].rank != 2 || t[2].dims[1] != t[0].dims[t[0].rank - 1]) {
    return 0;
  }
  for (uint32_t i = bias; i < bias + 2 && i + outputs < call->n; i++) {
    if (!el_class_vector(&t[i], t[2].dims[0])) return 0;
  }
  return 1;
}

/* Scratch for the products of whole blocks and of the last ones. */
static uint64_t products(const el_head *h, shape_of *shape, el_isa isa) {
  size_t m[2] = {h->rows, h->t % h->rows}, n[2] = {h->cols, h->v % h->cols};
  uint64_t most = 0;
  for (int i = 0; i < 4; i++) {
    if (m[i / 2] == 0 || n[i % 2] == 0) continue;
    el_product p = shape(h, m[i / 2], n[i % 2]);
    uint64_t bytes = el_product_scratch(&p, isa);
    most = bytes > most ? bytes : most;
  }
  return most;
}

static el_status needs(const el_call *call, shape_of *second, size_t blocks, uint32_t outputs,
                       el_isa isa, el_need *need) {
  el_head h = el_head_of(&call->t[0], &call->t[2]);
  uint64_t bytes = products(&h, el_head_logits, isa), other = products(&h, second, isa);
  uint64_t scratch = (bytes > other ? bytes : other) + el_head_floats(&h) * sizeof(float);
  el_status status = el_needs(need, (uint64_t)h.t * h.v * h.k, scratch);
  if (need->chunks > blocks) need->chunks = (uint32_t)blocks;
  need->outputs = outputs;
  return status;
}

/* Whole rows of logits; the product back takes some classes at a time. */
static el_status whole_needs(const el_call *call, el_isa isa, el_need *need) {
  el_head h = el_head_whole(&call->t[0], &call->t[2]), back = h;
  if (back.cols > EL_HEAD_BACK) back.cols = EL_HEAD_BACK;
  uint64_t bytes = products(&h, el_head_logits, isa), other = products(&back, el_head_dx, isa);
  uint64_t block = ((uint64_t)h.rows * h.v + 4 * h.rows + 15) * sizeof(float);
  if (block > INT32_MAX) return EL_E_MISMATCH;
  el_status status = el_needs(need, (uint64_t)h.t * h.v * h.k,
                              (bytes > other ? bytes : other) + el_head_floats(&h) * sizeof(float));
  size_t blocks = (h.t + h.rows - 1) / h.rows;
  if (need->chunks > blocks) need->chunks = (uint32_t)blocks;
  need->outputs = 3;
  return status;
}

static size_t blocks_of(size_t n, size_t block) { return (n + block - 1) / block; }

el_plan el_plan_linear_cross_entropy, el_plan_linear_cross_entropy_dx,
    el_plan_linear_cross_entropy_dw, el_plan_linear_cross_entropy_both;

el_status el_plan_linear_cross_entropy(const el_call *call, el_isa isa, el_need *need) {
  const el_tensor *t = call->t;
  if (call->n > 7 || !operands(call, 3, 2) || !rows(&t[call->n - 2], &t[1]) ||
      !rows(&t[call->n - 1], &t[1])) {
    return EL_E_MISMATCH;
  }
  el_head h = el_head_of(&t[0], &t[2]);
  return needs(call, el_head_logits, blocks_of(h.t, h.rows), 2, isa, need);
}

/* x labels w dlosses b? weight? */
el_status el_plan_linear_cross_entropy_both(const el_call *call, el_isa isa, el_need *need) {
  const el_tensor *t = call->t;
  if (call->n > 9 || !operands(call, 4, 3) || !rows(&t[3], &t[1]) ||
      !rows(&t[call->n - 3], &t[1]) || !rows(&t[call->n - 2], &t[1]) ||
      !el_plain(&t[call->n - 1], EL_F32) || !el_same_dims(&t[call->n - 1], &t[0])) {
    return EL_E_MISMATCH;
  }
  return whole_needs(call, isa, need);
}

/* x labels w lse dlosses b? weight? dlse? */
static int gradient(const el_call *call, uint32_t outputs) {
  const el_tensor *t = call->t;
  return call->n <= 8 + outputs && operands(call, 5, outputs) && rows(&t[3], &t[1]) &&
         rows(&t[4], &t[1]) && (call->n < 8 + outputs || t[7].rank == 0 || rows(&t[7], &t[1]));
}

el_status el_plan_linear_cross_entropy_dx(const el_call *call, el_isa isa, el_need *need) {
  const el_tensor *t = call->t;
  if (!gradient(call, 1) || !el_plain(&t[call->n - 1], EL_F32) ||
      !el_same_dims(&t[call->n - 1], &t[0])) {
    return EL_E_MISMATCH;
  }
  el_head h = el_head_of(&t[0], &t[2]);
  return needs(call, el_head_dx, blocks_of(h.t, h.rows), 1, isa, need);
}

el_status el_plan_linear_cross_entropy_dw(const el_call *call, el_isa isa, el_need *need) {
  const el_tensor *t = call->t;
  if (!gradient(call, 2)) return EL_E_MISMATCH;
  const el_tensor *dw = &t[call->n - 2], *db = &t[call->n - 1];
  if (!el_plain(dw, EL_F32) || !el_same_dims(dw, &t[2]) || db->rank != 1 ||
      !el_class_vector(db, t[2].dims[0])) {
    return EL_E_MISMATCH;
  }
  el_head h = el_head_of(&t[0], &t[2]);
  return needs(call, el_head_dw, blocks_of(h.v, h.cols), 2, isa, need);
}
