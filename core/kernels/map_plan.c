/* What elementwise maps need. */
#include "plan.h"

static el_status same(const el_call *call, el_need *need, uint32_t n, uint32_t n_attr) {
  if (call->n != n || call->n_attr != n_attr) return EL_E_MISMATCH;
  for (uint32_t i = 0; i < n; i++) {
    if (!el_plain(&call->t[i], EL_F32) || !el_same_dims(&call->t[i], &call->t[0]))
      return EL_E_MISMATCH;
  }
  size_t size = el_size(&call->t[0]);
  need->chunks = el_cut((size + 15) / 16, size);
  need->scratch = 0;
  return EL_OK;
}

el_plan el_plan_map, el_plan_map1, el_plan_map2, el_plan_map_grad, el_plan_map_grad1,
    el_plan_map_grad2;
el_status el_plan_map(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return same(call, need, 2, 0);
}
el_status el_plan_map1(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return same(call, need, 2, 1);
}
el_status el_plan_map2(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return same(call, need, 2, 2);
}
el_status el_plan_map_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return same(call, need, 3, 0);
}
el_status el_plan_map_grad1(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return same(call, need, 3, 1);
}
el_status el_plan_map_grad2(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return same(call, need, 3, 2);
}
