/* What reductions need. */
#include "plan.h"
#include "reduce.h"

static el_status cut(const el_tensor *x, const el_tensor *y, el_need *need) {
  need->chunks = el_cut((el_size(y) + 15) / 16, el_size(x));
  need->scratch = 0;
  return EL_OK;
}

el_plan el_plan_reduce, el_plan_sum_to;
el_status el_plan_reduce(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  if (call->n != 2 || call->n_attr != EL_RANK + 1 || !el_plain(x, EL_F32) || !el_plain(y, EL_F32))
    return EL_E_MISMATCH;
  for (uint32_t i = 0; i < EL_RANK; i++) {
    if (call->attr[i].i < -1 || call->attr[i].i >= x->rank) return EL_E_MISMATCH;
  }
  uint32_t mask = el_axes_mask(call);
  int32_t rank = 0;
  for (int32_t i = 0; i < x->rank; i++) {
    int gone = (int)((mask >> i) & 1u);
    if (gone && !call->attr[EL_RANK].i) continue;
    if (rank >= y->rank || y->dims[rank] != (gone ? 1 : x->dims[i])) return EL_E_MISMATCH;
    rank++;
  }
  return rank == y->rank ? cut(x, y, need) : EL_E_MISMATCH;
}

el_status el_plan_sum_to(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  if (call->n != 2 || call->n_attr != 0 || !el_plain(x, EL_F32) || !el_plain(y, EL_F32) ||
      y->rank > x->rank) {
    return EL_E_MISMATCH;
  }
  for (int32_t i = 0; i < y->rank; i++) {
    if (y->dims[i] != 1 && y->dims[i] != x->dims[x->rank - y->rank + i]) return EL_E_MISMATCH;
  }
  return cut(x, y, need);
}
