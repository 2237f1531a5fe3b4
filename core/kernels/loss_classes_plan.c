/* What the cross-entropies of rows need. */
#include "plan.h"
#include "loss_classes_plan.h"

static int scalar(const el_tensor *t) {
  return el_plain(t, EL_F32) && t->rank == 1 && t->dims[0] == 1;
}

/* rows: labels' shape, f32 */
static int rows(const el_tensor *t, const el_tensor *labels) {
  return el_plain(t, EL_F32) && el_same_dims(t, labels);
}

el_plan el_plan_cross_entropy, el_plan_cross_entropy_grad, el_plan_counted, el_plan_weighted_loss,
    el_plan_weighted_loss_grad;

el_status el_plan_cross_entropy(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t;
  if (call->n < 4 || call->n > 5 || !el_rows_of(&t[0], &t[1]) || !el_class_attrs(call, &t[1]) ||
      !rows(&t[call->n - 2], &t[1]) || !rows(&t[call->n - 1], &t[1])) {
    return EL_E_MISMATCH;
  }
  if (call->n == 5 && !el_class_vector(&t[2], t[0].dims[t[0].rank - 1])) return EL_E_MISMATCH;
  need->chunks = el_cut(el_size(&t[1]), el_size(&t[0]));
  need->scratch = 0;
  need->outputs = 2;
  return EL_OK;
}

el_status el_plan_cross_entropy_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t, *dx = &t[call->n - 1];
  if (call->n < 5 || call->n > 7 || !el_rows_of(&t[0], &t[1]) || !el_class_attrs(call, &t[1]) ||
      !rows(&t[2], &t[1]) || !rows(&t[3], &t[1]) || !el_plain(dx, EL_F32) ||
      !el_same_dims(dx, &t[0])) {
    return EL_E_MISMATCH;
  }
  if (call->n > 5 && !el_class_vector(&t[4], t[0].dims[t[0].rank - 1])) return EL_E_MISMATCH;
  if (call->n > 6 && t[5].rank != 0 && !rows(&t[5], &t[1])) return EL_E_MISMATCH;
  need->chunks = el_cut(el_size(&t[1]), el_size(&t[0]));
  need->scratch = 0;
  return EL_OK;
}

el_status el_plan_counted(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t;
  if (call->n != 2 || call->n_attr != 2 || !el_plain(&t[0], EL_I32) || t[0].rank < 1 ||
      !rows(&t[1], &t[0]) || call->attr[1].i < 0) {
    return EL_E_MISMATCH;
  }
  need->chunks = 1;
  need->scratch = 0;
  return EL_OK;
}

/* losses [b, ..], sample_weight [b], norm [1] */
static int weighted(const el_tensor *t) {
  return el_plain(&t[0], EL_F32) && t[0].rank >= 1 && el_plain(&t[1], EL_F32) && t[1].rank == 1 &&
         t[1].dims[0] == t[0].dims[0] && scalar(&t[2]);
}

el_status el_plan_weighted_loss(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n != 4 || call->n_attr != 0 || !weighted(call->t) || !scalar(&call->t[3]))
    return EL_E_MISMATCH;
  need->chunks = 1;
  need->scratch = 0;
  return EL_OK;
}

el_status el_plan_weighted_loss_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t;
  if (call->n != 5 || call->n_attr != 0 || !weighted(t) || !scalar(&t[3]) || !rows(&t[4], &t[0]))
    return EL_E_MISMATCH;
  need->chunks = 1;
  need->scratch = 0;
  return EL_OK;
}
