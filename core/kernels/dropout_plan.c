/* What dropout needs: x and y alike, step f32[1], 0 <= p < 1. */
#include "plan.h"

el_plan el_plan_dropout;
el_status el_plan_dropout(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n != 3 || call->n_attr != 2) return EL_E_MISMATCH;
  const el_tensor *x = &call->t[0], *step = &call->t[1], *y = &call->t[2];
  if (!el_plain(x, EL_F32) || !el_plain(y, EL_F32) || !el_same_dims(x, y)) return EL_E_MISMATCH;
  if (!el_plain(step, EL_F32) || step->rank != 1 || step->dims[0] != 1) return EL_E_MISMATCH;
  float p = call->attr[0].f;
  if (!(p >= 0.0f && p < 1.0f)) return EL_E_MISMATCH;
  size_t size = el_size(x);
  need->chunks = el_cut((size + 15) / 16, size);
  need->scratch = 0;
  return EL_OK;
}
