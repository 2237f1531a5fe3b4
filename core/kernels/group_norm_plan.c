/* What group_norm (x, scale?, bias? -> y) and its gradient (dy, x, scale? -> dx) need. */
#include "group_norm.h"
#include "plan.h"

/* `full` inputs of the same dims, then vectors over their last axis, each may be absent. */
static el_status groups(const el_call *call, uint32_t full, uint32_t most, el_need *need) {
  const el_tensor *x = &call->t[0];
  if (call->n < full + 1 || call->n > most || call->n_attr != 2) return EL_E_MISMATCH;
  if (!el_plain(x, EL_F32) || x->rank < 2) return EL_E_MISMATCH;
  int32_t c = x->dims[x->rank - 1], n = call->attr[0].i;
  if (n < 1 || n > c || c % n != 0) return EL_E_MISMATCH;
  for (uint32_t i = 1; i < call->n; i++) {
    const el_tensor *t = &call->t[i];
    if (i < full || i == call->n - 1) {
      if (!el_plain(t, EL_F32) || !el_same_dims(t, x)) return EL_E_MISMATCH;
    } else if (t->dtype != EL_ABSENT && (!el_plain(t, EL_F32) || t->rank != 1 || t->dims[0] != c)) {
      return EL_E_MISMATCH;
    }
  }
  uint64_t scratch = (uint64_t)EL_GROUP_VECTORS * (uint64_t)c * sizeof(float);
  if (scratch > SIZE_MAX / 4) return EL_E_MISMATCH;
  need->chunks = el_cut((size_t)x->dims[0] * (size_t)n, el_size(x));
  need->scratch = (size_t)scratch;
  return EL_OK;
}

el_plan el_plan_group_norm, el_plan_group_norm_grad;
el_status el_plan_group_norm(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return groups(call, 1, 4, need);
}
el_status el_plan_group_norm_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return groups(call, 2, 4, need);
}
