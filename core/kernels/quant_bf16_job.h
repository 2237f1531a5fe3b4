/* One call of a product with operands rounded to bfloat16, as its variants see it. */
#ifndef EL_QUANT_BF16_JOB_H
#define EL_QUANT_BF16_JOB_H

#include "quant_bf16.h"

/* p: its a is what is rounded, dense; its b is not read. The part is rows i0 .. i1 - 1 and columns
 * j0 .. j1 - 1. */
typedef struct el_bf16_job {
  el_product p;
  el_codes q;
  int back;
  el_bf16_cut cut;
  size_t i0, i1, j0, j1;
} el_bf16_job;

static inline const float *el_bf16_optional(const el_call *call, uint32_t i) {
  return i + 1 < call->n && el_has(&call->t[i]) ? el_cf32(&call->t[i]) : NULL;
}

/* Of qlinear_bf16, or of its gradient to the input: codes at t[1..3], alpha first of the words. */
static inline el_bf16_job el_bf16_job_of(const el_call *call, int back) {
  const el_tensor *x = &call->t[0], *y = &call->t[call->n - 1];
  size_t sum = (size_t)x->dims[x->rank - 1], n = (size_t)y->dims[y->rank - 1];
  el_bf16_job q = {
      .p = {.m = el_size(x) / sum,
            .n = n,
            .k = sum,
            .a = el_cf32(x),
            .a_row = sum,
            .a_col = 1,
            .c = el_f32(y),
            .c_row = n,
            .c_col = 1,
            .bias = back ? NULL : el_bf16_optional(call, 4),
            .acc = el_bf16_optional(call, back ? 4 : 5),
            .alpha = call->attr[0].f,
            .keep = 1.0f,
            .act = back ? EL_ACT_NONE : call->attr[1].i},
      .q = el_get_codes(call->t + 1, back ? n : sum, call->attr[back ? 1 : 2].i),
      .back = back,
  };
  q.cut = el_cut_bf16(q.p.m, n, sum);
  q.i0 = call->chunk / q.cut.across * q.cut.rows;
  q.j0 = call->chunk % q.cut.across * q.cut.columns;
  q.i1 = q.p.m - q.i0 < q.cut.rows ? q.p.m : q.i0 + q.cut.rows;
  q.j1 = n - q.j0 < q.cut.columns ? n : q.j0 + q.cut.columns;
  return q;
}

#endif
