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

/* `moments` of 8 bits for each of `size` elements, an f32 for each block of 256 of them. */
static int codes(const el_tensor *t, uint32_t moments, size_t size) {
  return el_plain(t, EL_U8) && t->rank == 1 &&
         el_size(t) == moments * (size + 4 * ((size + 255) / 256));
}

/* w, state, g, the scalars (after the powers of beta where there are two moments), w', state' */
static el_status update8(const el_call *call, el_need *need, uint32_t moments, uint32_t first,
                         uint32_t scalars) {
  const el_tensor *t = call->t;
  uint32_t out = first + scalars;
  if (call->n != out + 2 || call->n_attr != 0 || !el_plain(&t[0], EL_F32)) return EL_E_MISMATCH;
  if (!el_plain(&t[2], EL_F32) || !el_same_dims(&t[2], &t[0]) || !el_plain(&t[out], EL_F32) ||
      !el_same_dims(&t[out], &t[0])) {
    return EL_E_MISMATCH;
  }
  for (uint32_t i = first; i < out; i++) {
    if (!scalar(&t[i])) return EL_E_MISMATCH;
  }
  size_t size = el_size(&t[0]);
  if (!codes(&t[1], moments, size) || !codes(&t[out + 1], moments, size)) return EL_E_MISMATCH;
  need->chunks = el_cut((size + 255) / 256, size);
  need->scratch = moments * 2 * 256 * sizeof(float);
  need->outputs = 2;
  return EL_OK;
}

el_plan el_plan_adamw8, el_plan_lion, el_plan_lion8;
el_status el_plan_lion(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return update(call, need, 3, 5, 2);
}
el_status el_plan_lion8(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return update8(call, need, 1, 3, 5);
}
el_status el_plan_adamw8(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *powers = &call->t[3];
  if (!el_plain(powers, EL_F32) || powers->rank != 1 || powers->dims[0] != 2) return EL_E_MISMATCH;
  return update8(call, need, 2, 4, 6);
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
