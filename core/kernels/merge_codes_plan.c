/* What merging a low-rank update into int8 codes needs. */
#include "plan.h"

static int matrix(const el_tensor *t, int32_t dtype, int32_t rows, int32_t columns) {
  return el_plain(t, dtype) && t->rank == 2 && t->dims[0] == rows && t->dims[1] == columns;
}

el_plan el_plan_merge_codes;
el_status el_plan_merge_codes(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n != 6 || call->n_attr != 1 || call->t[0].rank != 2 || call->t[2].rank != 2)
    return EL_E_MISMATCH;
  const el_tensor *t = call->t;
  int32_t n = t[0].dims[0], k = t[0].dims[1], rank = t[2].dims[1];
  if (!matrix(&t[0], EL_I8, n, k) || !matrix(&t[1], EL_F32, n, 1) ||
      !matrix(&t[2], EL_F32, n, rank) || !matrix(&t[3], EL_F32, rank, k) ||
      !matrix(&t[4], EL_I8, n, k) || !matrix(&t[5], EL_F32, n, 1))
    return EL_E_MISMATCH;
  need->chunks = el_cut((size_t)n, el_size(&t[0]) * (size_t)rank);
  need->outputs = 2;
  need->scratch = 0;
  return EL_OK;
}
