/* What comparisons, whole-number arithmetic, where, cumsum and argmax need. */
#include "plan.h"

#define COMPARISONS 4
#define INTEGERS 9

static int words(const el_tensor *t) {
  return (t->dtype == EL_F32 || t->dtype == EL_I32) && el_plain(t, t->dtype);
}

/* Aligned to the right, each dim of t is 1 or y's. */
static int fits(const el_tensor *t, const el_tensor *y) {
  if (t->rank > y->rank) return 0;
  for (int32_t i = 0; i < t->rank; i++) {
    if (t->dims[i] != 1 && t->dims[i] != y->dims[y->rank - t->rank + i]) return 0;
  }
  return 1;
}

static el_status rows(const el_tensor *y, el_need *need) {
  size_t size = el_size(y), n = y->rank == 0 ? 1 : (size_t)y->dims[y->rank - 1];
  need->chunks = el_cut(size / n, size);
  need->scratch = 0;
  return EL_OK;
}

el_plan el_plan_compare, el_plan_integer, el_plan_where, el_plan_cumsum, el_plan_argmax;

static int two(const el_call *call, int32_t kinds) {
  const el_tensor *a = &call->t[0], *b = &call->t[1], *y = &call->t[2];
  return call->n == 3 && call->n_attr == 1 && call->attr[0].i >= 0 && call->attr[0].i < kinds &&
         words(a) && words(b) && a->dtype == b->dtype && el_plain(y, EL_I32) && fits(a, y) &&
         fits(b, y);
}

el_status el_plan_compare(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  return two(call, COMPARISONS) ? rows(&call->t[2], need) : EL_E_MISMATCH;
}

el_status el_plan_integer(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (!two(call, INTEGERS) || call->t[0].dtype != EL_I32) return EL_E_MISMATCH;
  return rows(&call->t[2], need);
}

el_status el_plan_where(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *c = &call->t[0], *a = &call->t[1], *b = &call->t[2], *y = &call->t[3];
  if (call->n != 4 || call->n_attr != 0 || !el_plain(c, EL_I32) || !words(a) || !words(b) ||
      !words(y) || a->dtype != b->dtype || a->dtype != y->dtype || !fits(c, y) || !fits(a, y) ||
      !fits(b, y)) {
    return EL_E_MISMATCH;
  }
  return rows(y, need);
}

static int flag(el_word w) { return w.i == 0 || w.i == 1; }

static el_status lines(const el_tensor *x, int32_t axis, el_need *need) {
  size_t size = el_size(x);
  need->chunks = el_cut(size / (size_t)x->dims[axis], size);
  need->scratch = 0;
  return EL_OK;
}

el_status el_plan_cumsum(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  if (call->n != 2 || call->n_attr != 3 || !words(x) || !words(y) || x->dtype != y->dtype ||
      !el_same_dims(x, y) || call->attr[0].i < 0 || call->attr[0].i >= x->rank ||
      !flag(call->attr[1]) || !flag(call->attr[2])) {
    return EL_E_MISMATCH;
  }
  return lines(x, call->attr[0].i, need);
}

el_status el_plan_argmax(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  if (call->n != 2 || call->n_attr != 2 || !words(x) || !el_plain(y, EL_I32) ||
      y->rank != x->rank - 1 || call->attr[0].i < 0 || call->attr[0].i >= x->rank ||
      !flag(call->attr[1])) {
    return EL_E_MISMATCH;
  }
  for (int32_t i = 0; i < y->rank; i++) {
    if (y->dims[i] != x->dims[i < call->attr[0].i ? i : i + 1]) return EL_E_MISMATCH;
  }
  return lines(x, call->attr[0].i, need);
}
