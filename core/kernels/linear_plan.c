/* What dense layers and batched products need. */
#include "linalg_plan.h"

/* Leading dims equal, last dims given: a is [.., k], b is [.., n]. */
static int same_rows(const el_tensor *a, const el_tensor *b) {
  if (a->rank != b->rank) return 0;
  for (int32_t i = 0; i + 1 < a->rank; i++) {
    if (a->dims[i] != b->dims[i]) return 0;
  }
  return 1;
}

static int32_t last(const el_tensor *t) { return t->dims[t->rank - 1]; }

static size_t lead(const el_tensor *t) { return el_size(t) / (size_t)last(t); }

static el_status product_needs(el_need *need, const el_product *p, el_isa isa) {
  return el_needs(need, (uint64_t)p->m * p->n * p->k, el_product_scratch(p, isa));
}

el_plan el_plan_linear, el_plan_linear_dx, el_plan_linear_dw, el_plan_linear_sgd, el_plan_matmul,
    el_plan_col_sum;

el_status el_plan_linear(const el_call *call, el_isa isa, el_need *need) {
  if (call->n < 3 || call->n > 5 || call->n_attr != 2) return EL_E_MISMATCH;
  const el_tensor *x = &call->t[0], *w = &call->t[1], *y = &call->t[call->n - 1];
  if (!el_array(x, 1, EL_RANK) || !el_array(w, 2, 2) || !el_array(y, 1, EL_RANK) ||
      last(x) != w->dims[1] || last(y) != w->dims[0] || !same_rows(x, y) ||
      !el_optional(call, 2, NULL, w->dims[0]) || !el_optional(call, 3, y, 0) ||
      !el_act_ok(call->attr[1].i)) {
    return EL_E_MISMATCH;
  }
  size_t k = (size_t)last(x), n = (size_t)last(y);
  el_product p = {.m = lead(x),
                  .n = n,
                  .k = k,
                  .a_row = k,
                  .a_col = 1,
                  .b_row = 1,
                  .b_col = k,
                  .c_row = n,
                  .c_col = 1};
  return product_needs(need, &p, isa);
}

el_status el_plan_linear_dx(const el_call *call, el_isa isa, el_need *need) {
  if (call->n < 3 || call->n > 4 || call->n_attr != 1) return EL_E_MISMATCH;
  const el_tensor *dy = &call->t[0], *w = &call->t[1], *dx = &call->t[call->n - 1];
  if (!el_array(dy, 1, EL_RANK) || !el_array(w, 2, 2) || !el_array(dx, 1, EL_RANK) ||
      last(dy) != w->dims[0] || last(dx) != w->dims[1] || !same_rows(dy, dx) ||
      !el_optional(call, 2, dx, 0)) {
    return EL_E_MISMATCH;
  }
  size_t k = (size_t)last(dx), n = (size_t)last(dy);
  el_product p = {.m = lead(dy),
                  .n = k,
                  .k = n,
                  .a_row = n,
                  .a_col = 1,
                  .b_row = k,
                  .b_col = 1,
                  .c_row = k,
                  .c_col = 1};
  return product_needs(need, &p, isa);
}

static el_status weight_needs(const el_tensor *dy, const el_tensor *x, const el_tensor *dw,
                              el_isa isa, el_need *need) {
  if (!el_array(dy, 1, EL_RANK) || !el_array(x, 1, EL_RANK) || !el_array(dw, 2, 2) ||
      !same_rows(dy, x) || dw->dims[0] != last(dy) || dw->dims[1] != last(x)) {
    return EL_E_MISMATCH;
  }
  size_t k = (size_t)last(x), n = (size_t)last(dy);
  el_product p = {.m = n,
                  .n = k,
                  .k = lead(dy),
                  .a_row = 1,
                  .a_col = n,
                  .b_row = k,
                  .b_col = 1,
                  .c_row = k,
                  .c_col = 1};
  return product_needs(need, &p, isa);
}

el_status el_plan_linear_dw(const el_call *call, el_isa isa, el_need *need) {
  if (call->n < 3 || call->n > 4 || call->n_attr != 1) return EL_E_MISMATCH;
  const el_tensor *dw = &call->t[call->n - 1];
  if (!el_optional(call, 2, dw, 0)) return EL_E_MISMATCH;
  return weight_needs(&call->t[0], &call->t[1], dw, isa, need);
}

el_status el_plan_linear_sgd(const el_call *call, el_isa isa, el_need *need) {
  if (call->n != 7 || call->n_attr != 1) return EL_E_MISMATCH;
  const el_tensor *w = &call->t[0], *out = &call->t[6];
  for (uint32_t i = 3; i < 6; i++) {
    if (!el_array(&call->t[i], 1, 1) || call->t[i].dims[0] != 1) return EL_E_MISMATCH;
  }
  if (!el_array(w, 2, 2) || !el_array(out, 2, 2) || !el_same_dims(w, out)) {
    return EL_E_MISMATCH;
  }
  return weight_needs(&call->t[1], &call->t[2], out, isa, need);
}

el_status el_plan_matmul(const el_call *call, el_isa isa, el_need *need) {
  if (call->n != 3 || call->n_attr != 3) return EL_E_MISMATCH;
  const el_tensor *a = &call->t[0], *b = &call->t[1], *c = &call->t[2];
  if (!el_array(a, 2, EL_RANK) || !el_array(b, 2, EL_RANK) || !el_array(c, 2, EL_RANK) ||
      c->rank != (a->rank > b->rank ? a->rank : b->rank)) {
    return EL_E_MISMATCH;
  }
  for (int32_t i = 3; i <= c->rank; i++) {
    int32_t da = i <= a->rank ? a->dims[a->rank - i] : 1,
            db = i <= b->rank ? b->dims[b->rank - i] : 1;
    int32_t dc = c->dims[c->rank - i];
    if ((da != dc && da != 1) || (db != dc && db != 1) || (da != dc && db != dc))
      return EL_E_MISMATCH;
  }
  int ta = call->attr[0].i, tb = call->attr[1].i;
  if ((ta != 0 && ta != 1) || (tb != 0 && tb != 1)) return EL_E_MISMATCH;
  int32_t m = a->dims[a->rank - (ta ? 1 : 2)], k = a->dims[a->rank - (ta ? 2 : 1)];
  int32_t n = b->dims[b->rank - (tb ? 2 : 1)];
  if (b->dims[b->rank - (tb ? 1 : 2)] != k || c->dims[c->rank - 2] != m || last(c) != n)
    return EL_E_MISMATCH;
  el_product p = {.m = (size_t)m,
                  .n = (size_t)n,
                  .k = (size_t)k,
                  .a_row = ta ? 1 : (size_t)k,
                  .a_col = ta ? (size_t)m : 1,
                  .b_row = tb ? 1 : (size_t)n,
                  .b_col = tb ? (size_t)k : 1,
                  .c_row = (size_t)n,
                  .c_col = 1};
  return el_needs(need, (uint64_t)el_size(c) * (uint64_t)k, el_product_scratch(&p, isa));
}

el_status el_plan_col_sum(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n < 2 || call->n > 3 || call->n_attr != 0) return EL_E_MISMATCH;
  const el_tensor *dy = &call->t[0], *s = &call->t[call->n - 1];
  if (!el_array(dy, 1, EL_RANK) || !el_array(s, 1, 1) || s->dims[0] != last(dy) ||
      !el_optional(call, 1, s, 0)) {
    return EL_E_MISMATCH;
  }
  need->chunks = el_cut(((size_t)last(dy) + 15) / 16, el_size(dy));
  need->scratch = 0;
  need->outputs = 1;
  return EL_OK;
}
