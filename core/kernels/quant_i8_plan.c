/* What products of int8 codes need. */
#include "linalg_plan.h"
#include "quant.h"
#include "quant_i8.h"

static int32_t last(const el_tensor *t) { return t->dims[t->rank - 1]; }

static int same_rows(const el_tensor *a, const el_tensor *b) {
  if (a->rank != b->rank) return 0;
  for (int32_t i = 0; i + 1 < a->rank; i++) {
    if (a->dims[i] != b->dims[i]) return 0;
  }
  return 1;
}

/* x [.., k], y [.., n], codes i8 [n, k], scale f32 [n, 1]; the sum over `sum` terms fits 32 bits.
 */
static int operands_ok(const el_call *call, const el_tensor *x, const el_tensor *y, int32_t sum) {
  const el_tensor *w = &call->t[1], *s = &call->t[2];
  return el_array(x, 1, EL_RANK) && el_array(y, 1, EL_RANK) && same_rows(x, y) &&
         el_plain(w, EL_I8) && w->rank == 2 && w->dims[0] == last(y) && w->dims[1] == last(x) &&
         el_array(s, 2, 2) && s->dims[0] == last(y) && s->dims[1] == 1 && sum <= EL_I8_SUM;
}

static el_status needs(el_need *need, size_t m, size_t n, size_t sum, el_isa isa) {
  el_status status = el_needs(need, 0, el_i8_scratch(m, sum, isa));
  size_t most = m / 32 > n / 64 ? m / 32 : n / 64;
  need->chunks = el_cut_products((uint64_t)m * n * sum);
  if (need->chunks > most) need->chunks = most < 1 ? 1 : (uint32_t)most;
  return status;
}

el_plan el_plan_qlinear_i8, el_plan_qlinear_i8_dx, el_plan_qconv2d_i8, el_plan_qconv2d_i8_dx;

el_status el_plan_qlinear_i8(const el_call *call, el_isa isa, el_need *need) {
  if (call->n < 4 || call->n > 6 || call->n_attr != 2) return EL_E_MISMATCH;
  const el_tensor *x = &call->t[0], *y = &call->t[call->n - 1];
  if (!el_array(x, 1, EL_RANK) || !operands_ok(call, x, y, last(x)) ||
      !el_optional(call, 3, NULL, last(y)) || !el_optional(call, 4, y, 0) ||
      !el_act_ok(call->attr[1].i)) {
    return EL_E_MISMATCH;
  }
  size_t k = (size_t)last(x);
  return needs(need, el_size(x) / k, (size_t)last(y), k, isa);
}

el_status el_plan_qlinear_i8_dx(const el_call *call, el_isa isa, el_need *need) {
  if (call->n < 4 || call->n > 5 || call->n_attr != 2) return EL_E_MISMATCH;
  const el_tensor *dy = &call->t[0], *dx = &call->t[call->n - 1];
  if (!el_array(dy, 1, EL_RANK) || !operands_ok(call, dx, dy, last(dy)) ||
      call->attr[1].i != last(dx) || !el_optional(call, 3, dx, 0)) {
    return EL_E_MISMATCH;
  }
  size_t n = (size_t)last(dy);
  return needs(need, el_size(dy) / n, (size_t)last(dx), n, isa);
}

/* x is the image side, y the output side. */
static el_status conv_needs(const el_call *call, const el_tensor *x, const el_tensor *y, int back,
                            el_isa isa, el_need *need) {
  const el_tensor *w = &call->t[1], *s = &call->t[2];
  if (!el_array(x, 4, 4) || !el_array(y, 4, 4)) return EL_E_MISMATCH;
  el_conv c = el_get_qconv(call, x, y, back);
  if (!el_window_ok(&c.w, call->attr + EL_W_PAD) || c.groups != 1 || y->dims[0] != c.batch) {
    return EL_E_MISMATCH;
  }
  int64_t taps = (int64_t)c.w.taps[0] * c.w.taps[1]; /* below 2^62 */
  if (taps > EL_I8_SUM || taps * c.in_c > EL_I8_SUM || taps * c.out_c > EL_I8_SUM) {
    return EL_E_MISMATCH;
  }
  if (!el_plain(w, EL_I8) || w->rank != 2 || w->dims[0] != c.out_c || w->dims[1] != taps * c.in_c ||
      !el_array(s, 2, 2) || s->dims[0] != c.out_c || s->dims[1] != 1) {
    return EL_E_MISMATCH;
  }
  size_t m = el_size(back ? x : y) / (size_t)c.batch / (size_t)(back ? c.in_c : c.out_c);
  uint64_t image = el_size(back ? y : x) / (size_t)c.batch;
  uint64_t level = isa < EL_ISA_AVX2 || el_i8_has_dots(isa) ? 1 : 2;
  uint64_t scratch = el_i8_scratch(m, (size_t)(taps * (back ? c.out_c : c.in_c)), isa);
  el_status status = el_needs(need, (uint64_t)el_size(y) * (uint64_t)(taps * c.in_c),
                              scratch + el_i8_align(image * level));
  if (need->chunks > (uint32_t)c.batch) need->chunks = (uint32_t)c.batch;
  return status;
}

el_status el_plan_qconv2d_i8(const el_call *call, el_isa isa, el_need *need) {
  if (call->n < 4 || call->n > 6 || call->n_attr != EL_QC_ACT + 3) return EL_E_MISMATCH;
  const el_tensor *y = &call->t[call->n - 1];
  if (!el_array(y, 4, 4) || !el_optional(call, 3, NULL, y->dims[3]) ||
      !el_optional(call, 4, y, 0) || !el_act_ok(call->attr[EL_QC_ACT].i)) {
    return EL_E_MISMATCH;
  }
  return conv_needs(call, &call->t[0], y, 0, isa, need);
}

el_status el_plan_qconv2d_i8_dx(const el_call *call, el_isa isa, el_need *need) {
  if (call->n < 4 || call->n > 5 || call->n_attr != EL_QC_IN + 5) return EL_E_MISMATCH;
  const el_tensor *dx = &call->t[call->n - 1];
  const el_word *in = call->attr + EL_QC_IN;
  if (!el_array(dx, 4, 4) || !el_optional(call, 3, dx, 0) || in[0].i != dx->dims[1] ||
      in[1].i != dx->dims[2] || in[4].i != dx->dims[3]) {
    return EL_E_MISMATCH;
  }
  return conv_needs(call, dx, &call->t[0], 1, isa, need);
}
