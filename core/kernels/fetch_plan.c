/* What fetch accepts: two dense tensors of one type, the second some rows of the first or all of
 * it. One chunk: it waits for memory or for a disk, not for arithmetic. */
#include "plan.h"

el_plan el_plan_fetch;

el_status el_plan_fetch(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *w = &call->t[0], *y = &call->t[1];
  if (call->n != 2 || call->n_attr != 2 || w->dtype < EL_F32 || w->dtype > EL_BF16 ||
      !el_plain(w, w->dtype) || !el_plain(y, w->dtype) || w->rank != y->rank) {
    return EL_E_MISMATCH;
  }
  int32_t first = call->attr[0].i, rows = call->attr[1].i;
  if (rows == 0) {
    if (first != 0 || !el_same_dims(w, y)) return EL_E_MISMATCH;
  } else {
    if (w->rank < 1 || rows < 0 || first < 0 || y->dims[0] != rows || rows > w->dims[0] ||
        first > w->dims[0] - rows) {
      return EL_E_MISMATCH;
    }
    for (int32_t i = 1; i < w->rank; i++) {
      if (w->dims[i] != y->dims[i]) return EL_E_MISMATCH;
    }
  }
  need->chunks = 1;
  need->scratch = 0;
  return EL_OK;
}
