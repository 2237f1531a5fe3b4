/* What products with operands rounded to bfloat16 need. */
#include "quant_bf16.h"
#include "quant_plan.h"

static int32_t last(const el_tensor *t) { return t->dims[t->rank - 1]; }

/* Rounded rows, a dequantised block and the product over them, whole or the last ones. */
static uint64_t vector_scratch(el_product *p, const el_bf16_cut *cut, int back, el_isa isa) {
  size_t rows = el_bf16_row_block(cut), columns = el_bf16_column_block(cut, p->k), m = p->m,
         n = p->n;
  size_t row_sizes[3] = {rows, cut->rows % rows, m % cut->rows % rows};
  size_t column_sizes[3] = {columns, cut->columns % columns, n % cut->columns % columns};
  uint64_t most = 0;
  for (int i = 0; i < 9; i++) {
    p->m = row_sizes[i / 3];
    p->n = column_sizes[i % 3];
    if (p->m == 0 || p->n == 0) continue;
    p->b_row = back ? p->n : 1;
    uint64_t bytes = el_product_scratch(p, isa);
    most = bytes > most ? bytes : most;
  }
  return el_unpacked_bytes((uint64_t)rows * p->k) + el_unpacked_bytes((uint64_t)columns * p->k) +
         most;
}

static el_status needs(const el_call *call, el_product *p, int back, el_isa isa, el_need *need) {
  el_bf16_cut cut = el_cut_bf16(p->m, p->n, p->k);
  size_t terms = el_bf16_terms(p->k);
  uint64_t scratch;
  if (isa == EL_ISA_REF) {
    scratch = (uint64_t)EL_BF16_REF_ROWS * p->k * sizeof(float);
  } else if (isa != EL_ISA_AVX512BF16) {
    scratch = vector_scratch(p, &cut, back, isa);
  } else if (!back && p->m <= EL_BF16_FEW) {
    scratch = el_bf16_rows_bytes(p->m, p->k);
    if (call->t[1].dtype != EL_BF16) scratch += el_bf16_few_bytes(p->k);
  } else {
    scratch = el_bf16_rows_bytes(cut.rows, terms) + el_bf16_group_bytes(terms);
    if (call->t[1].dtype != EL_BF16) scratch += el_bf16_weights_bytes(terms);
  }
  el_status status = el_needs(need, 0, scratch);
  need->chunks = (uint32_t)(cut.down * cut.across);
  return status;
}

el_plan el_plan_qlinear_bf16, el_plan_qlinear_bf16_dx;

el_status el_plan_qlinear_bf16(const el_call *call, el_isa isa, el_need *need) {
  if (!el_qlinear_ok(call)) return EL_E_MISMATCH;
  const el_tensor *x = &call->t[0], *y = &call->t[call->n - 1];
  size_t k = (size_t)last(x), n = (size_t)last(y), m = el_size(x) / k;
  el_product p = {
      .m = m, .n = n, .k = k, .a_row = k, .a_col = 1, .b_col = k, .c_row = n, .c_col = 1};
  return needs(call, &p, 0, isa, need);
}

el_status el_plan_qlinear_bf16_dx(const el_call *call, el_isa isa, el_need *need) {
  if (!el_qlinear_dx_ok(call)) return EL_E_MISMATCH;
  const el_tensor *dy = &call->t[0], *dx = &call->t[call->n - 1];
  size_t n = (size_t)last(dy), k = (size_t)last(dx), m = el_size(dy) / n;
  el_product p = {
      .m = m, .n = k, .k = n, .a_row = n, .a_col = 1, .b_col = 1, .c_row = k, .c_col = 1};
  return needs(call, &p, 1, isa, need);
}
