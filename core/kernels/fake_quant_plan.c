/* What rounding to a grid needs: x (or dy and x), scale, zero -> y. Levels fit 16 bits, so that
 * rounding by addition is exact. */
#include "plan.h"

static int levels(const el_call *call) {
  int32_t lo = call->attr[0].i, hi = call->attr[1].i;
  return lo >= -65535 && hi <= 65535 && lo < hi;
}

static int single(const el_tensor *t) { return el_plain(t, EL_F32) && t->rank == 1; }

static el_status grid(const el_call *call, uint32_t n, el_need *need) {
  if (call->n != n || call->n_attr != 3 || !levels(call)) return EL_E_MISMATCH;
  const el_tensor *x = &call->t[n - 4], *scale = &call->t[n - 3], *zero = &call->t[n - 2];
  const el_tensor *y = &call->t[n - 1], *first = &call->t[0];
  int32_t axis = call->attr[2].i;
  if (!el_plain(x, EL_F32) || !el_plain(first, EL_F32) || !el_plain(y, EL_F32) ||
      !el_same_dims(first, x) || !el_same_dims(y, x) || !single(scale) || !single(zero) ||
      !el_same_dims(scale, zero))
    return EL_E_MISMATCH;
  if (axis < 0 || axis > EL_RANK || (scale->dims[0] != 1 && axis >= x->rank) ||
      (scale->dims[0] != 1 && x->dims[axis] != scale->dims[0]))
    return EL_E_MISMATCH;
  size_t size = el_size(x);
  need->chunks = el_cut((size + 15) / 16, size);
  need->scratch = 0;
  return EL_OK;
}

el_plan el_plan_fake_quant, el_plan_fake_quant_grad, el_plan_quant_range;
el_status el_plan_fake_quant(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return grid(call, 4, need);
}
el_status el_plan_fake_quant_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return grid(call, 5, need);
}
el_status el_plan_quant_range(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n != 3 || call->n_attr != 2 || !levels(call) || !el_plain(&call->t[0], EL_F32) ||
      !single(&call->t[1]) || !single(&call->t[2]) || call->t[1].dims[0] != 1 ||
      call->t[2].dims[0] != 1)
    return EL_E_MISMATCH;
  need->chunks = 1;
  need->outputs = 2;
  need->scratch = 0;
  return EL_OK;
}
