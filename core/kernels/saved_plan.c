/* What packing and unpacking of saved activations need. */
#include "plan.h"

static el_status pieces(const el_call *call, el_need *need, size_t grain) {
  size_t size = el_size(&call->t[0]);
  need->chunks = el_cut((size + grain - 1) / grain, size);
  need->scratch = 0;
  return EL_OK;
}

static int bits_of(const el_tensor *bits, const el_tensor *v) {
  return el_plain(bits, EL_U8) && bits->rank == 1 && (size_t)bits->dims[0] == (el_size(v) + 7) / 8;
}

el_plan el_plan_pack_mask, el_plan_mask_grad, el_plan_pack_f16, el_plan_unpack_f16;
el_status el_plan_pack_mask(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t;
  if (call->n != 2 || call->n_attr != 3 || !el_plain(&t[0], EL_F32) || !bits_of(&t[1], &t[0]) ||
      call->attr[0].i < 0 || call->attr[0].i > 2)
    return EL_E_MISMATCH;
  return pieces(call, need, 128);
}
el_status el_plan_mask_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t;
  if (call->n != 3 || call->n_attr != 1 || !el_plain(&t[0], EL_F32) || !bits_of(&t[1], &t[0]) ||
      !el_plain(&t[2], EL_F32) || !el_same_dims(&t[0], &t[2]))
    return EL_E_MISMATCH;
  return pieces(call, need, 128);
}
static el_status halves(const el_call *call, el_need *need, int32_t from, int32_t to) {
  const el_tensor *t = call->t;
  if (call->n != 2 || call->n_attr != 0 || !el_plain(&t[0], from) || !el_plain(&t[1], to) ||
      !el_same_dims(&t[0], &t[1]))
    return EL_E_MISMATCH;
  return pieces(call, need, 16);
}
el_status el_plan_pack_f16(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return halves(call, need, EL_F32, EL_F16);
}
el_status el_plan_unpack_f16(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return halves(call, need, EL_F16, EL_F32);
}
