/* What interpolation needs. */
#include "plan.h"

/* `picked` is `whole` with the axis replaced by as many elements as index has rows. */
static int fits(const el_call *call, const el_tensor *whole, const el_tensor *picked) {
  const el_tensor *index = &call->t[1], *weight = &call->t[2];
  int32_t axis = call->attr[0].i;
  if (!el_plain(whole, EL_F32) || !el_plain(picked, EL_F32) || !el_plain(index, EL_I32) ||
      !el_plain(weight, EL_F32) || index->rank != 2 || !el_same_dims(index, weight) || axis < 0 ||
      axis >= whole->rank || picked->rank != whole->rank)
    return 0;
  for (int32_t i = 0; i < whole->rank; i++) {
    if (picked->dims[i] != (i == axis ? index->dims[0] : whole->dims[i])) return 0;
  }
  return 1;
}

static el_status pieces(const el_call *call, const el_tensor *y, size_t work, el_need *need) {
  size_t outer = 1;
  for (int32_t i = 0; i < call->attr[0].i; i++) outer *= (size_t)y->dims[i];
  need->chunks = el_cut(outer * work, el_size(y) * (size_t)call->t[1].dims[1]);
  need->scratch = 0;
  return EL_OK;
}

el_plan el_plan_interpolate, el_plan_interpolate_grad;

el_status el_plan_interpolate(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n != 4 || call->n_attr != 1 || !fits(call, &call->t[0], &call->t[3]))
    return EL_E_MISMATCH;
  return pieces(call, &call->t[3], (size_t)call->t[1].dims[0], need);
}

el_status el_plan_interpolate_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *dx = &call->t[3];
  if (call->n != 4 || call->n_attr != 2 || !fits(call, dx, &call->t[0]) ||
      dx->dims[call->attr[0].i] != call->attr[1].i)
    return EL_E_MISMATCH;
  size_t inner = 1;
  for (int32_t i = call->attr[0].i + 1; i < dx->rank; i++) inner *= (size_t)dx->dims[i];
  return pieces(call, dx, (inner + 63) / 64, need);
}
