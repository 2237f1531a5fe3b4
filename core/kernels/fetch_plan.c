/* What fetch accepts: two dense tensors of one type and shape. One chunk: it waits for memory or
 * for a disk, not for arithmetic. */
#include "plan.h"

el_plan el_plan_fetch;

el_status el_plan_fetch(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *w = &call->t[0], *y = &call->t[1];
  if (call->n != 2 || call->n_attr != 0 || w->dtype < EL_F32 || w->dtype > EL_BF16 ||
      !el_plain(w, w->dtype) || !el_plain(y, w->dtype) || !el_same_dims(w, y)) {
    return EL_E_MISMATCH;
  }
  need->chunks = 1;
  need->scratch = 0;
  return EL_OK;
}
