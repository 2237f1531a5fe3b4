/* Products with operands rounded to bfloat16 in portable C, see quant_bf16.h.
 *
 *   qlinear_bf16     x[m,k] codes scale? zero? b?[n] acc?[m,n] -> y[m,n]
 *   qlinear_bf16_dx  dy[m,n] codes scale? zero? acc?[m,k]      -> dx[m,k]
 */
#include "quant_bf16_job.h"

static void run(const el_call *call, int back) {
  el_bf16_job q = el_bf16_job_of(call, back);
  const el_product *p = &q.p;
  float *x = call->scratch;
  for (size_t i = q.i0; i < q.i1; i += EL_BF16_REF_ROWS) {
    size_t rows = q.i1 - i < EL_BF16_REF_ROWS ? q.i1 - i : EL_BF16_REF_ROWS;
    for (size_t l = 0; l < rows * p->k; l++) x[l] = el_round_bf16(p->a[i * p->k + l]);
    for (size_t j = q.j0; j < q.j1; j++) {
      float sum[EL_BF16_REF_ROWS] = {0};
      for (size_t l = 0; l < p->k; l++) {
        float w = el_round_bf16(back ? el_element(&q.q, l, j) : el_element(&q.q, j, l));
        for (size_t r = 0; r < rows; r++) sum[r] += x[r * p->k + l] * w;
      }
      for (size_t r = 0; r < rows; r++) {
        size_t at = (i + r) * p->n + j;
        p->c[at] = el_finish(sum[r], p, p->bias != NULL ? p->bias[j] : 0.0f,
                             p->acc != NULL ? p->acc[at] : 0.0f);
      }
    }
  }
}

EL_KERNEL(qlinear_bf16) { run(call, 0); }

EL_KERNEL(qlinear_bf16_dx) { run(call, 1); }
