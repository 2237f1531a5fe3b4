/* What reading and writing a few rows needs. */
#include "plan.h"

el_plan el_plan_blank, el_plan_take_rows, el_plan_put_rows, el_plan_pack_i8, el_plan_unpack_i8;

static int known(const el_tensor *t) {
  return t->dtype >= EL_F32 && t->dtype <= EL_BF16 && el_plain(t, t->dtype);
}

static el_status cut(const el_tensor *t, el_need *need) {
  size_t size = el_size(t);
  need->chunks = el_cut((size + 63) / 64, size);
  need->scratch = 0;
  return EL_OK;
}

/* `part` lies inside `whole` from element `at` on. */
static int inside(const el_tensor *part, const el_tensor *whole, int32_t at) {
  return known(part) && known(whole) && part->dtype == whole->dtype && at >= 0 &&
         (size_t)at + el_size(part) <= el_size(whole);
}

el_status el_plan_blank(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n != 1 || call->n_attr != 0 || !known(&call->t[0])) return EL_E_MISMATCH;
  return cut(&call->t[0], need);
}

el_status el_plan_take_rows(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t;
  if (call->n != 2 || call->n_attr != 1 || !inside(&t[1], &t[0], call->attr[0].i))
    return EL_E_MISMATCH;
  return cut(&t[1], need);
}

static int in_place(const el_tensor *old, const el_tensor *now) {
  return known(old) && known(now) && old->dtype == now->dtype && el_same_dims(old, now);
}

el_status el_plan_put_rows(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t;
  if (call->n != 3 || call->n_attr != 1 || !in_place(&t[0], &t[2]) ||
      !inside(&t[1], &t[2], call->attr[0].i))
    return EL_E_MISMATCH;
  return cut(&t[1], need);
}

/* int8 rows q [rows, n + 4] hold those of x, n elements each, from row `at` on */
static int holds(const el_tensor *q, const el_tensor *x, int32_t at) {
  if (!el_plain(q, EL_I8) || !el_plain(x, EL_F32) || q->rank != 2 || q->dims[1] < 5 || at < 0)
    return 0;
  size_t n = (size_t)q->dims[1] - 4, size = el_size(x);
  return size % n == 0 && at + (int64_t)(size / n) <= q->dims[0];
}

static el_status rows(const el_tensor *q, const el_tensor *x, el_need *need) {
  size_t size = el_size(x);
  need->chunks = el_cut(size / ((size_t)q->dims[1] - 4), 4 * size);
  need->scratch = 0;
  return EL_OK;
}

el_status el_plan_pack_i8(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t;
  if (call->n != 3 || call->n_attr != 2 || !in_place(&t[0], &t[2]) ||
      !holds(&t[2], &t[1], call->attr[0].i))
    return EL_E_MISMATCH;
  return rows(&t[2], &t[1], need);
}

el_status el_plan_unpack_i8(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *t = call->t;
  if (call->n != 2 || call->n_attr != 1 || !holds(&t[0], &t[1], call->attr[0].i))
    return EL_E_MISMATCH;
  return rows(&t[0], &t[1], need);
}
