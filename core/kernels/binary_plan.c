/* What binary operators with broadcasting need. */
#include "plan.h"

/* Aligned to the right, each dim of t is 1 or y's. */
static int fits(const el_tensor *t, const el_tensor *y) {
  for (int32_t i = 0; i < t->rank; i++) {
    if (t->dims[i] != 1 && t->dims[i] != y->dims[y->rank - t->rank + i]) return 0;
  }
  return 1;
}

el_plan el_plan_binary;
el_status el_plan_binary(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *a = &call->t[0], *b = &call->t[1], *y = &call->t[2];
  if (call->n != 3 || call->n_attr != 0 || !el_plain(a, EL_F32) || !el_plain(b, EL_F32) ||
      !el_plain(y, EL_F32) || a->rank > y->rank || b->rank > y->rank || !fits(a, y) ||
      !fits(b, y)) {
    return EL_E_MISMATCH;
  }
  size_t size = el_size(y);
  need->chunks = el_cut((size + 15) / 16, size);
  need->scratch = 0;
  return EL_OK;
}
