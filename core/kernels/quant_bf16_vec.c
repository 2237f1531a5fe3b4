/* Products with operands rounded to bfloat16 where f32 vectors are all there is: rounded rows and a
 * rounded block of weights stand in scratch as f32, and the f32 product runs over them. */
#include "quant_bf16_job.h"
#include "vec.h"

static void round_all(const float *v, size_t n, float *out) {
  EL_INDEPENDENT
  for (size_t i = 0; i < n; i++) out[i] = el_round_bf16(v[i]);
}

static float *after(float *block, uint64_t floats) {
  return (float *)(void *)((uint8_t *)block + el_unpacked_bytes(floats));
}

static void run(const el_call *call, int back) {
  el_bf16_job q = el_bf16_job_of(call, back);
  size_t sum = q.p.k, rows = el_bf16_row_block(&q.cut), columns = el_bf16_column_block(&q.cut, sum);
  float *x = call->scratch, *w = after(x, rows * sum), *scratch = after(w, columns * sum);
  for (size_t i = q.i0; i < q.i1; i += rows) {
    el_product p = q.p;
    p.m = q.i1 - i < rows ? q.i1 - i : rows;
    p.a = x;
    p.b = w;
    round_all(q.p.a + i * sum, p.m * sum, x);
    for (size_t j = q.j0; j < q.j1; j += columns) {
      p.n = q.j1 - j < columns ? q.j1 - j : columns;
      p.b_row = back ? p.n : 1;
      p.b_col = back ? 1 : sum;
      p.c = q.p.c + i * p.c_row + j;
      p.acc = q.p.acc != NULL ? q.p.acc + i * p.c_row + j : NULL;
      p.bias = q.p.bias != NULL ? q.p.bias + j : NULL;
      if (back) {
        EL_K(dequantize)(&q.q, 0, sum, j, p.n, w);
      } else {
        EL_K(dequantize)(&q.q, j, p.n, 0, sum, w);
      }
      round_all(w, p.n * sum, w);
      EL_K(product)(&p, scratch, 0, 1);
    }
  }
}

EL_KERNEL(qlinear_bf16) { run(call, 0); }

EL_KERNEL(qlinear_bf16_dx) { run(call, 1); }
