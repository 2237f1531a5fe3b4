/* What cross-entropy from a product over codes needs: a block of logits, one of weights, and the
 * products' scratch. */
#include "loss_classes_plan.h"
#include "loss_qhead.h"
#include "quant_plan.h"

el_plan el_plan_qhead, el_plan_qhead_loss, el_plan_qhead_dx;

static int class_words(const el_call *call, const el_tensor *labels, uint32_t words) {
  float smoothing = call->attr[0].f;
  int32_t shift = call->attr[2].i;
  return call->n_attr == words && smoothing >= 0.0f && smoothing <= 1.0f && shift >= 0 &&
         shift < labels->dims[labels->rank - 1] && call->attr[words - 1].i >= 1;
}

/* Absent, or one number for each class. */
static int class_vector(const el_call *call, uint32_t i, int32_t classes) {
  const el_tensor *t = el_given(call, i);
  return t == NULL || (el_plain(t, EL_F32) && t->rank == 1 && t->dims[0] == classes);
}

static int gathered(const el_tensor *t, size_t rows) {
  return el_plain(t, EL_F32) && t->rank == 2 && t->dims[0] == 4 && (size_t)t->dims[1] == rows;
}

/* x, labels, codes and words that every call with codes has. */
static int operands(const el_call *call, uint32_t weight, uint32_t bias) {
  const el_tensor *t = call->t;
  if (!el_rows_of(&t[0], &t[1]) || !class_words(call, &t[1], EL_QH_WORDS)) return 0;
  const el_tensor *codes = &t[EL_QH_CODES];
  int32_t first = call->attr[EL_QH_FIRST].i, classes = call->attr[EL_QH_CLASSES].i;
  if (codes->rank != 2 || codes->dims[0] < 1 || first < 0 || first >= classes ||
      codes->dims[0] > classes - first) {
    return 0;
  }
  return el_codes_ok(codes, codes->dims[0], t[0].dims[t[0].rank - 1], call->attr[EL_QH_GROUP].i) &&
         class_vector(call, weight, classes) && class_vector(call, bias, classes);
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

static el_status needs(const el_call *call, int back, el_isa isa, el_need *need) {
  el_head h = el_head_of(&call->t[0], &call->t[EL_QH_CODES]);
  size_t some = el_head_unpacked(&h), last = h.v % h.cols, blocks = (h.t + h.rows - 1) / h.rows;
  size_t m[2] = {h.rows, h.t % h.rows};
  size_t n[4] = {some, h.cols % some, last < some ? last : some, last % some};
  uint64_t most = 0;
  for (int i = 0; i < 8; i++) {
    if (m[i / 4] == 0 || n[i % 4] == 0) continue;
    el_product p = el_head_logits(&h, m[i / 4], n[i % 4]);
    p.c_row = h.cols;
    most = larger(most, el_product_scratch(&p, isa));
    if (!back) continue;
    p = el_head_dx(&h, m[i / 4], n[i % 4]);
    p.a_row = h.cols;
    most = larger(most, el_product_scratch(&p, isa));
  }
  most += el_unpacked_bytes((uint64_t)some * h.k) + (uint64_t)el_head_floats(&h) * sizeof(float);
  el_status status = el_needs(need, (uint64_t)h.t * h.v * h.k, most);
  if (need->chunks > blocks) need->chunks = (uint32_t)blocks;
  return status;
}

el_status el_plan_qhead(const el_call *call, el_isa isa, el_need *need) {
  if (call->n < 6 || call->n > 9 || !operands(call, EL_QH_WEIGHT, EL_QH_BIAS)) return EL_E_MISMATCH;
  const el_tensor *before = el_given(call, EL_QH_BEFORE);
  size_t rows = el_size(&call->t[1]);
  if (!gathered(&call->t[call->n - 1], rows) || (before != NULL && !gathered(before, rows))) {
    return EL_E_MISMATCH;
  }
  return needs(call, 0, isa, need);
}

el_status el_plan_qhead_dx(const el_call *call, el_isa isa, el_need *need) {
  const el_tensor *t = call->t;
  if (call->n < 8 || call->n > 12 || !operands(call, EL_QHD_WEIGHT, EL_QHD_BIAS)) {
    return EL_E_MISMATCH;
  }
  const el_tensor *dx = &t[call->n - 1], *dlse = el_given(call, EL_QHD_DLSE);
  const el_tensor *acc = el_given(call, EL_QHD_ACC);
  const el_tensor *rows[3] = {&t[EL_QHD_LSE], &t[EL_QHD_DLOSSES], dlse};
  for (int i = 0; i < 3; i++) {
    if (rows[i] != NULL && (!el_plain(rows[i], EL_F32) || !el_same_dims(rows[i], &t[1]))) {
      return EL_E_MISMATCH;
    }
  }
  if (!el_plain(dx, EL_F32) || !el_same_dims(dx, &t[0]) ||
      (acc != NULL && (!el_plain(acc, EL_F32) || !el_same_dims(acc, &t[0])))) {
    return EL_E_MISMATCH;
  }
  return needs(call, 1, isa, need);
}

el_status el_plan_qhead_loss(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t;
  if (call->n < 4 || call->n > 5 || !el_plain(&t[0], EL_I32) || t[0].rank < 1 ||
      !class_words(call, &t[0], 4) || !gathered(&t[1], el_size(&t[0]))) {
    return EL_E_MISMATCH;
  }
  if (call->n > 4 && el_has(&t[2]) &&
      !(el_plain(&t[2], EL_F32) && t[2].rank == 1 && t[2].dims[0] == call->attr[3].i)) {
    return EL_E_MISMATCH;
  }
  for (uint32_t i = call->n - 2; i < call->n; i++) {
    if (!el_plain(&t[i], EL_F32) || !el_same_dims(&t[i], &t[0])) return EL_E_MISMATCH;
  }
  need->chunks = 1;
  need->scratch = 0;
  need->outputs = 2;
  return EL_OK;
}
