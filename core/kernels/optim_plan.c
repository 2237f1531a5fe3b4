/* What optimizer kernels need: `tensors` operands of the parameter's dims, then scalars [1], then
 * the new versions. */
#include "plan.h"

static int scalar(const el_tensor *t) {
  return el_plain(t, EL_F32) && t->rank == 1 && t->dims[0] == 1;
}

static el_status update(const el_call *call, el_need *need, uint32_t tensors, uint32_t scalars,
                        uint32_t outputs) {
  const el_tensor *t = call->t;
  if (call->n != tensors + scalars + outputs || call->n_attr != 0) return EL_E_MISMATCH;
  for (uint32_t i = 0; i < call->n; i++) {
    if (i >= tensors && i < tensors + scalars) {
      if (!scalar(&t[i])) return EL_E_MISMATCH;
    } else if (!el_plain(&t[i], EL_F32) || !el_same_dims(&t[i], &t[0])) {
      return EL_E_MISMATCH;
    }
  }
  size_t size = el_size(&t[0]);
  need->chunks = el_cut((size + 15) / 16, size);
  need->scratch = 0;
  need->outputs = outputs;
  return EL_OK;
}

el_plan el_plan_adamw8, el_plan_lion;
el_status el_plan_lion(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return update(call, need, 3, 5, 2);
}
el_status el_plan_adamw8(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t, *state = &t[1], *powers = &t[3];
  if (call->n != 12 || call->n_attr != 0 || !el_plain(&t[0], EL_F32) || !el_plain(state, EL_U8) ||
      state->rank != 1 || !el_plain(&t[11], EL_U8) || !el_same_dims(state, &t[11]) ||
      !el_plain(powers, EL_F32) || powers->rank != 1 || powers->dims[0] != 2) {
    return EL_E_MISMATCH;
  }
  for (uint32_t i = 4; i < 10; i++) {
    if (!scalar(&t[i])) return EL_E_MISMATCH;
  }
  if (!el_plain(&t[2], EL_F32) || !el_same_dims(&t[2], &t[0]) || !el_plain(&t[10], EL_F32) ||
      !el_same_dims(&t[10], &t[0])) {
    return EL_E_MISMATCH;
  }
  size_t size = el_size(&t[0]), blocks = (size + 255) / 256;
  if (el_size(state) != 2 * size + 8 * blocks) return EL_E_MISMATCH;
  need->chunks = el_cut(blocks, size);
  need->scratch = 4 * 256 * sizeof(float);
  need->outputs = 2;
  return EL_OK;
}

el_plan el_plan_sgd, el_plan_momentum, el_plan_adam_tick, el_plan_adamw, el_plan_accumulate,
    el_plan_zero, el_plan_norm_sq;
el_status el_plan_sgd(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return update(call, need, 2, 3, 1);
}
el_status el_plan_momentum(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return update(call, need, 3, 4, 2);
}
el_status el_plan_adam_tick(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  el_status s = update(call, need, 1, 3, 1);
  if (s != EL_OK || el_size(&call->t[0]) != 2) return EL_E_MISMATCH;
  need->chunks = 1;
  return EL_OK;
}
el_status el_plan_adamw(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *powers = &call->t[4];
  if (call->n != 14 || !el_plain(powers, EL_F32) || powers->rank != 1 || powers->dims[0] != 2)
    return EL_E_MISMATCH;
  /* the rest is four tensors, six scalars and three outputs: the powers left out */
  el_tensor rest[13];
  for (uint32_t i = 0; i < 13; i++) rest[i] = call->t[i < 4 ? i : i + 1];
  el_call shorter = *call;
  shorter.t = rest;
  shorter.n = 13;
  return update(&shorter, need, 4, 6, 3);
}
el_status el_plan_accumulate(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return update(call, need, 2, 1, 1);
}
el_status el_plan_zero(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return update(call, need, 1, 0, 1);
}
el_status el_plan_norm_sq(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *acc = &call->t[1];
  if (call->n != 3 || call->n_attr != 0 || !el_plain(&call->t[0], EL_F32) ||
      (acc->dtype != EL_ABSENT && !scalar(acc)) || !scalar(&call->t[2])) {
    return EL_E_MISMATCH;
  }
  need->chunks = 1;
  need->scratch = 0;
  return EL_OK;
}
