/* What elementwise maps need. */
#include "plan.h"

el_plan el_plan_map;
el_status el_plan_map(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  if (call->n != 2 || !el_is(x, EL_F32) || !el_is(y, EL_F32) || !el_same_dims(x, y) ||
      !el_dense(x) || !el_dense(y)) {
    return EL_E_MISMATCH;
  }
  need->chunks = el_cut(el_size(x), el_size(x));
  need->scratch = 0;
  return EL_OK;
}
