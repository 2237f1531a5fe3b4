/* Checks of products over codes, shared by their plan functions. */
#ifndef EL_QUANT_PLAN_H
#define EL_QUANT_PLAN_H

#include "linalg_plan.h"
#include "quant.h"

static inline int el_same_rows(const el_tensor *a, const el_tensor *b) {
  if (a->rank != b->rank) return 0;
  for (int32_t i = 0; i + 1 < a->rank; i++) {
    if (a->dims[i] != b->dims[i]) return 0;
  }
  return 1;
}

/* Codes, scale and zero at t[0..2] make a matrix [rows, width] in groups of `group`. */
int el_codes_ok(const el_tensor *t, int32_t rows, int64_t width, int32_t group);

/* Operands and words of qlinear and of qlinear_dx, whatever computes them. */
int el_qlinear_ok(const el_call *call);
int el_qlinear_dx_ok(const el_call *call);

#endif
