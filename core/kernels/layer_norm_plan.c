/* What layer normalisation (x, scale, bias -> y) and its gradient (dy, x, scale -> dx) need. */
#include "plan.h"

static int vector(const el_tensor *t, int32_t n) {
  return el_plain(t, EL_F32) && t->rank == 1 && t->dims[0] == n;
}

static int like(const el_tensor *t, const el_tensor *x) {
  return el_plain(t, EL_F32) && el_same_dims(t, x);
}

static el_status rows(const el_call *call, int vectors, el_need *need) {
  const el_tensor *x = &call->t[0];
  if (call->n != 4 || call->n_attr != 1 || !el_plain(x, EL_F32) || x->rank < 1 ||
      !like(&call->t[3], x))
    return EL_E_MISMATCH;
  int32_t n = x->dims[x->rank - 1];
  if (vectors == 2 ? !vector(&call->t[1], n) : !like(&call->t[1], x)) return EL_E_MISMATCH;
  if (!vector(&call->t[2], n)) return EL_E_MISMATCH;
  need->chunks = el_cut(el_size(x) / (size_t)n, el_size(x));
  need->scratch = 0;
  return EL_OK;
}

el_plan el_plan_layer_norm, el_plan_layer_norm_grad;
el_status el_plan_layer_norm(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return rows(call, 2, need);
}
el_status el_plan_layer_norm_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return rows(call, 1, need);
}
