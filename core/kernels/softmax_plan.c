/* What softmax and its relatives need: n dense operands of the same dims, rank at least 1. */
#include "plan.h"

static el_status same(const el_call *call, el_need *need, uint32_t n) {
  const el_tensor *x = &call->t[0];
  if (call->n != n || call->n_attr != 0) return EL_E_MISMATCH;
  for (uint32_t i = 0; i < n; i++) {
    if (!el_plain(&call->t[i], EL_F32) || !el_same_dims(&call->t[i], x)) return EL_E_MISMATCH;
  }
  if (x->rank < 1) return EL_E_MISMATCH;
  size_t size = el_size(x);
  need->chunks = el_cut(size / (size_t)x->dims[x->rank - 1], size);
  need->scratch = 0;
  return EL_OK;
}

el_plan el_plan_softmax, el_plan_softmax_grad;
el_status el_plan_softmax(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return same(call, need, 2);
}
el_status el_plan_softmax_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return same(call, need, 3);
}
