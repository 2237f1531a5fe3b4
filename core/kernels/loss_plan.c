/* What losses need. The loss itself is one chunk, since its sum has one order. */
#include "plan.h"

static int scalar(const el_tensor *t) {
  return el_plain(t, EL_F32) && t->rank == 1 && t->dims[0] == 1;
}

/* inner is x without its last dim */
static int leads(const el_tensor *inner, const el_tensor *x) {
  if (x->rank < 1 || inner->rank != x->rank - 1) return 0;
  for (int32_t i = 0; i < inner->rank; i++) {
    if (inner->dims[i] != x->dims[i]) return 0;
  }
  return 1;
}

static int classes(const el_tensor *t) {
  return el_plain(&t[0], EL_F32) && el_plain(&t[1], EL_I32) && el_plain(&t[2], EL_F32) &&
         leads(&t[1], &t[0]) && leads(&t[2], &t[0]) && scalar(&t[3]);
}

static int elements(const el_tensor *t) {
  return el_plain(&t[0], EL_F32) && el_plain(&t[1], EL_F32) && el_plain(&t[2], EL_F32) &&
         t[0].rank >= 1 && el_same_dims(&t[0], &t[1]) && t[2].rank == 1 &&
         t[2].dims[0] == t[0].dims[0] && scalar(&t[3]);
}

el_plan el_plan_class_loss, el_plan_class_loss_grad, el_plan_loss, el_plan_loss_grad;
el_status el_plan_class_loss(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t;
  if (call->n != 6 || call->n_attr != 0 || !classes(t) || !scalar(&t[4]) ||
      !el_plain(&t[5], EL_F32) || !el_same_dims(&t[5], &t[0])) {
    return EL_E_MISMATCH;
  }
  need->chunks = 1;
  need->scratch = 0;
  need->outputs = 2;
  return EL_OK;
}

el_status el_plan_class_loss_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t;
  if (call->n != 6 || call->n_attr != 0 || !classes(t) || !scalar(&t[4]) ||
      !el_plain(&t[5], EL_F32) || !el_same_dims(&t[5], &t[0])) {
    return EL_E_MISMATCH;
  }
  need->chunks = el_cut(el_size(&t[1]), el_size(&t[0]));
  need->scratch = 0;
  return EL_OK;
}

el_status el_plan_loss(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n != 5 || call->n_attr != 0 || !elements(call->t) || !scalar(&call->t[4]))
    return EL_E_MISMATCH;
  need->chunks = 1;
  need->scratch = 0;
  return EL_OK;
}

el_status el_plan_loss_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t;
  if (call->n != 6 || call->n_attr != 0 || !elements(t) || !scalar(&t[4]) ||
      !el_plain(&t[5], EL_F32) || !el_same_dims(&t[5], &t[0])) {
    return EL_E_MISMATCH;
  }
  need->chunks = el_cut((size_t)t[0].dims[0], el_size(&t[0]));
  need->scratch = 0;
  return EL_OK;
}
