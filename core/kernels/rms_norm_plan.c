/* What rms_norm (x, weight? -> y) and its gradient (dy, x, weight? -> dx) need. */
#include "plan.h"

/* `full` inputs of the same dims, then at most one vector over their last axis. */
static el_status rows(const el_call *call, uint32_t full, el_need *need) {
  const el_tensor *x = &call->t[0];
  if (call->n < full + 1 || call->n > full + 2 || call->n_attr != 1) return EL_E_MISMATCH;
  if (!el_plain(x, EL_F32) || x->rank < 1) return EL_E_MISMATCH;
  for (uint32_t i = 1; i < call->n; i++) {
    const el_tensor *t = &call->t[i];
    if (i == full && call->n == full + 2) {
      if (t->dtype == EL_ABSENT) continue;
      if (!el_plain(t, EL_F32) || t->rank != 1 || t->dims[0] != x->dims[x->rank - 1])
        return EL_E_MISMATCH;
    } else if (!el_plain(t, EL_F32) || !el_same_dims(t, x)) {
      return EL_E_MISMATCH;
    }
  }
  need->chunks = el_cut(el_size(x) / (size_t)x->dims[x->rank - 1], el_size(x));
  need->scratch = 0;
  return EL_OK;
}

el_plan el_plan_rms_norm, el_plan_rms_norm_grad;
el_status el_plan_rms_norm(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return rows(call, 1, need);
}
el_status el_plan_rms_norm_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return rows(call, 2, need);
}
