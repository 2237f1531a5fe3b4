/* What products and convolutions over codes need. */
#include "quant_plan.h"

static int32_t last(const el_tensor *t) { return t->dims[t->rank - 1]; }

/* A dense matrix of a type. */
static int matrix(const el_tensor *t, int32_t dtype, int32_t rows, int32_t columns) {
  return el_plain(t, dtype) && t->rank == 2 && t->dims[0] == rows && t->dims[1] == columns;
}

int el_codes_ok(const el_tensor *t, int32_t rows, int64_t width, int32_t group) {
  if (width < 1 || width > INT32_MAX || group < 0) return 0;
  int32_t columns = (int32_t)width;
  if (t[0].dtype == EL_F16 || t[0].dtype == EL_BF16) {
    return group == 0 && matrix(&t[0], t[0].dtype, rows, columns) && !el_has(&t[1]) &&
           !el_has(&t[2]);
  }
  int32_t groups = group > 0 ? (columns - 1) / group + 1 : 1;
  if (!matrix(&t[1], EL_F32, rows, groups)) return 0;
  if (el_has(&t[2]) && !matrix(&t[2], EL_I8, rows, groups)) return 0;
  if (t[0].dtype == EL_U8) return matrix(&t[0], EL_U8, rows, columns / 2 + columns % 2);
  return matrix(&t[0], EL_I8, rows, columns);
}

el_plan el_plan_qlinear, el_plan_qlinear_dx, el_plan_qconv2d, el_plan_qconv2d_dx, el_plan_qgather;

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* A product p of p->n columns over codes: chunks, and scratch for one block of weights and for the
 * product over it, full or the last one. */
static el_status product_needs(el_need *need, el_product *p, int back, el_isa isa) {
  size_t n = p->n;
  uint64_t most = 0;
  uint32_t chunks = el_cut_products((uint64_t)p->m * n * p->k), parts = (uint32_t)((n + 31) / 32);
  if (p->m < (size_t)64 * chunks && chunks > parts) chunks = parts;
  el_code_cut cut = el_cut_codes(p->m, n, p->k, chunks);
  size_t sizes[2] = {cut.block, n % cut.block > 0 ? n % cut.block : cut.block};
  for (int i = 0; i < 2; i++) {
    p->n = sizes[i];
    p->b_row = back ? sizes[i] : 1;
    most = larger(most, el_product_scratch(p, isa));
  }
  most += el_unpacked_bytes((uint64_t)cut.block * p->k);
  if (!back && p->m <= EL_FEW_ROWS) most = el_unpacked_bytes((p->k + 3) / 4);
  if (isa == EL_ISA_REF) most = 0;
  el_status status = el_needs(need, 0, most);
  need->chunks = chunks;
  return status;
}

int el_qlinear_ok(const el_call *call) {
  if (call->n < 5 || call->n > 7 || call->n_attr != 3) return 0;
  const el_tensor *x = &call->t[0], *y = &call->t[call->n - 1];
  return el_array(x, 1, EL_RANK) && el_array(y, 1, EL_RANK) && el_same_rows(x, y) &&
         el_codes_ok(call->t + 1, last(y), last(x), call->attr[2].i) &&
         el_optional(call, 4, NULL, last(y)) && el_optional(call, 5, y, 0) &&
         el_act_ok(call->attr[1].i);
}

int el_qlinear_dx_ok(const el_call *call) {
  if (call->n < 5 || call->n > 6 || call->n_attr != 3) return 0;
  const el_tensor *dy = &call->t[0], *dx = &call->t[call->n - 1];
  return el_array(dy, 1, EL_RANK) && el_array(dx, 1, EL_RANK) && el_same_rows(dy, dx) &&
         call->attr[2].i == last(dx) &&
         el_codes_ok(call->t + 1, last(dy), last(dx), call->attr[1].i) &&
         el_optional(call, 4, dx, 0);
}

el_status el_plan_qlinear(const el_call *call, el_isa isa, el_need *need) {
  if (!el_qlinear_ok(call)) return EL_E_MISMATCH;
  const el_tensor *x = &call->t[0], *y = &call->t[call->n - 1];
  size_t k = (size_t)last(x), n = (size_t)last(y), m = el_size(x) / k;
  el_product p = {
      .m = m, .n = n, .k = k, .a_row = k, .a_col = 1, .b_col = k, .c_row = n, .c_col = 1};
  return product_needs(need, &p, 0, isa);
}

el_status el_plan_qlinear_dx(const el_call *call, el_isa isa, el_need *need) {
  if (!el_qlinear_dx_ok(call)) return EL_E_MISMATCH;
  const el_tensor *dy = &call->t[0], *dx = &call->t[call->n - 1];
  size_t n = (size_t)last(dy), k = (size_t)last(dx), m = el_size(dy) / n;
  el_product p = {
      .m = m, .n = k, .k = n, .a_row = n, .a_col = 1, .b_col = 1, .c_row = k, .c_col = 1};
  return product_needs(need, &p, 1, isa);
}

/* x is the image side, y the output side of a convolution over the codes at t[1..3]. */
static int qconv_ok(const el_call *call, const el_tensor *x, const el_tensor *y, int back,
                    int32_t group, el_conv *c) {
  if (!el_array(x, 4, 4) || !el_array(y, 4, 4)) return 0;
  *c = el_get_qconv(call, x, y, back);
  if (!el_window_ok(&c->w, call->attr + EL_W_PAD) || c->groups < 1 || c->in_c % c->groups != 0 ||
      c->out_c % c->groups != 0 || y->dims[0] != c->batch) {
    return 0;
  }
  int64_t taps = (int64_t)c->w.taps[0] * c->w.taps[1]; /* below 2^62 */
  if (taps > INT32_MAX) return 0;
  return el_codes_ok(call->t + 1, c->out_c, taps * (c->in_c / c->groups), group);
}

static uint64_t conv_scratch(const el_conv *c, int back, el_isa isa) {
  if (isa == EL_ISA_REF) return 0;
  uint64_t k = el_taps_of(c);
  if (el_is_depthwise(c)) {
    return el_unpacked_bytes(k * (uint64_t)c->out_c) +
           (back ? el_conv_dx_scratch(c, isa) : el_conv_scratch(c, isa));
  }
  size_t pixels = back ? el_pixels(c) / (size_t)c->batch : el_pixels(c), rows = el_block(c, pixels);
  size_t og = (size_t)c->out_c / (size_t)c->groups, block = el_channel_block(c);
  size_t row_sizes[2] = {rows, pixels % rows > 0 ? pixels % rows : rows};
  size_t channel_sizes[2] = {block, og % block > 0 ? og % block : block};
  uint64_t most = 0;
  for (int i = 0; i < 2; i++) {
    for (int j = 0; j < 2; j++) {
      el_product p = back ? el_back_product(c, row_sizes[i]) : el_forward_product(c, row_sizes[i]);
      *(back ? &p.k : &p.n) = channel_sizes[j];
      most = larger(most, el_product_scratch(&p, isa));
    }
  }
  return el_unpacked_bytes(k * block) + el_gather_bytes(c, pixels) + most;
}

el_status el_plan_qconv2d(const el_call *call, el_isa isa, el_need *need) {
  if (call->n < 5 || call->n > 7 || call->n_attr != EL_QC_ACT + 4) return EL_E_MISMATCH;
  const el_tensor *y = &call->t[call->n - 1];
  el_conv c;
  if (!qconv_ok(call, &call->t[0], y, 0, call->attr[EL_QC_ACT + 3].i, &c) ||
      !el_optional(call, 4, NULL, c.out_c) || !el_optional(call, 5, y, 0) || !el_act_ok(c.act)) {
    return EL_E_MISMATCH;
  }
  return el_needs(need, (uint64_t)el_size(y) * el_taps_of(&c), conv_scratch(&c, 0, isa));
}

el_status el_plan_qconv2d_dx(const el_call *call, el_isa isa, el_need *need) {
  if (call->n < 5 || call->n > 6 || call->n_attr != EL_QC_IN + 6) return EL_E_MISMATCH;
  const el_tensor *dy = &call->t[0], *dx = &call->t[call->n - 1];
  const el_word *in = call->attr + EL_QC_IN;
  el_conv c;
  if (!qconv_ok(call, dx, dy, 1, in[5].i, &c) || !el_optional(call, 4, dx, 0) ||
      in[0].i != dx->dims[1] || in[1].i != dx->dims[2] || in[4].i != dx->dims[3]) {
    return EL_E_MISMATCH;
  }
  return el_needs(need, (uint64_t)el_size(dy) * el_taps_of(&c), conv_scratch(&c, 1, isa));
}

el_status el_plan_qgather(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n != 5 || call->n_attr != 2) return EL_E_MISMATCH;
  const el_tensor *index = &call->t[3], *y = &call->t[4];
  if (!el_plain(index, EL_I32) || !el_array(y, 1, EL_RANK) || y->rank != index->rank + 1 ||
      last(y) != call->attr[1].i || call->t[0].rank != 2 ||
      !el_codes_ok(call->t, call->t[0].dims[0], last(y), call->attr[0].i)) {
    return EL_E_MISMATCH;
  }
  for (int32_t i = 0; i < index->rank; i++) {
    if (index->dims[i] != y->dims[i]) return EL_E_MISMATCH;
  }
  need->chunks = el_cut(el_size(index), el_size(y));
  need->scratch = 0;
  need->outputs = 1;
  return EL_OK;
}
