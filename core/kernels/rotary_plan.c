/* What rotary (x, cos, sin -> y) needs. */
#include "plan.h"

el_plan el_plan_rotary;
el_status el_plan_rotary(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n != 4 || call->n_attr != 2) return EL_E_MISMATCH;
  for (uint32_t i = 0; i < 4; i++) {
    if (!el_plain(&call->t[i], EL_F32)) return EL_E_MISMATCH;
  }
  const el_tensor *x = &call->t[0], *c = &call->t[1];
  if (x->rank != 4 || !el_same_dims(&call->t[3], x) || !el_same_dims(&call->t[2], c) ||
      c->rank < 2 || c->rank > 3 || (c->rank == 3 && c->dims[0] != x->dims[0]) ||
      c->dims[c->rank - 2] != x->dims[1] || c->dims[c->rank - 1] > x->dims[3] / 2)
    return EL_E_MISMATCH;
  for (uint32_t i = 0; i < 2; i++) {
    if (call->attr[i].i != 0 && call->attr[i].i != 1) return EL_E_MISMATCH;
  }
  need->chunks = el_cut((size_t)x->dims[0] * (size_t)x->dims[1], el_size(x));
  need->scratch = 0;
  return EL_OK;
}
