/* What data movement needs. */
#include "plan.h"

/* A dense operand of 4-byte elements of this type. */
static int words(const el_tensor *t, int32_t dtype) {
  return (dtype == EL_F32 || dtype == EL_I32) && el_plain(t, dtype);
}

static size_t last_dim(const el_tensor *t) {
  return t->rank < 1 ? 1u : (size_t)t->dims[t->rank - 1];
}

static el_status cut(const el_tensor *y, size_t rows, el_need *need) {
  need->chunks = el_cut(rows, el_size(y));
  need->scratch = 0;
  return EL_OK;
}

static el_status cut_rows(const el_tensor *y, el_need *need) {
  return cut(y, el_size(y) / last_dim(y), need);
}

/* x -> y with `n_attr` words, both dense, of one type and rank. */
static int pair(const el_call *call, uint32_t n_attr) {
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  return call->n == 2 && call->n_attr == n_attr && words(x, x->dtype) && words(y, x->dtype) &&
         x->rank == y->rank;
}

el_plan el_plan_copy, el_plan_transpose, el_plan_broadcast_to, el_plan_slice, el_plan_pad,
    el_plan_slice_grad, el_plan_concat, el_plan_gather, el_plan_gather_grad, el_plan_cast;

el_status el_plan_copy(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  if (call->n != 2 || call->n_attr != 0 || (x->dtype != EL_F32 && x->dtype != EL_I32) ||
      !el_sane(x) || !words(y, x->dtype) || !el_same_dims(x, y)) {
    return EL_E_MISMATCH;
  }
  return cut_rows(y, need);
}

el_status el_plan_transpose(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  if (!pair(call, EL_RANK)) return EL_E_MISMATCH;
  uint32_t seen = 0;
  for (int32_t i = 0; i < x->rank; i++) {
    int32_t p = call->attr[i].i;
    if (p < 0 || p >= x->rank || ((seen >> p) & 1u) || y->dims[i] != x->dims[p])
      return EL_E_MISMATCH;
    seen |= 1u << p;
  }
  return cut_rows(y, need);
}

el_status el_plan_broadcast_to(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  if (call->n != 2 || call->n_attr != 0 || !words(x, x->dtype) || !words(y, x->dtype) ||
      x->rank > y->rank) {
    return EL_E_MISMATCH;
  }
  for (int32_t i = 0; i < x->rank; i++) {
    if (x->dims[i] != 1 && x->dims[i] != y->dims[y->rank - x->rank + i]) return EL_E_MISMATCH;
  }
  return cut_rows(y, need);
}

/* part = whole[first::by], as many elements along each axis as part has */
static int inside(const el_tensor *part, const el_tensor *whole, const el_word *first,
                  const el_word *by) {
  for (int32_t i = 0; i < whole->rank; i++) {
    int64_t begin = first[i].i, step = by == NULL ? 1 : by[i].i;
    int64_t end = begin + step * (part->dims[i] - 1);
    if (step == 0 || step > whole->dims[i] || -step > whole->dims[i] || begin < 0 ||
        begin >= whole->dims[i] || end < 0 || end >= whole->dims[i])
      return 0;
  }
  return 1;
}

el_status el_plan_slice(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (!pair(call, 2 * EL_RANK) ||
      !inside(&call->t[1], &call->t[0], call->attr, call->attr + EL_RANK))
    return EL_E_MISMATCH;
  return cut_rows(&call->t[1], need);
}

el_status el_plan_slice_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (!pair(call, 2 * EL_RANK) ||
      !inside(&call->t[0], &call->t[1], call->attr, call->attr + EL_RANK))
    return EL_E_MISMATCH;
  return cut_rows(&call->t[1], need);
}

el_status el_plan_pad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (!pair(call, 2 * EL_RANK + 1) || !inside(&call->t[0], &call->t[1], call->attr, NULL))
    return EL_E_MISMATCH;
  return cut_rows(&call->t[1], need);
}

el_status el_plan_concat(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n < 2 || call->n_attr != 1) return EL_E_MISMATCH;
  const el_tensor *y = &call->t[call->n - 1];
  int32_t axis = call->attr[0].i;
  if (!words(y, y->dtype) || axis < 0 || axis >= y->rank) return EL_E_MISMATCH;
  int64_t total = 0;
  for (uint32_t k = 0; k + 1 < call->n; k++) {
    const el_tensor *x = &call->t[k];
    if (!words(x, y->dtype) || x->rank != y->rank) return EL_E_MISMATCH;
    for (int32_t i = 0; i < y->rank; i++) {
      if (i != axis && x->dims[i] != y->dims[i]) return EL_E_MISMATCH;
    }
    total += x->dims[axis];
  }
  if (total != y->dims[axis]) return EL_E_MISMATCH;
  size_t outer = 1;
  for (int32_t i = 0; i < axis; i++) outer *= (size_t)y->dims[i];
  return cut(y, outer, need);
}

/* y's dims are the table's with `axis` replaced by the dims of index */
static int looks_up(const el_tensor *t, const el_tensor *index, const el_tensor *y, int32_t axis) {
  if (axis < 0 || axis >= t->rank || y->rank != t->rank - 1 + index->rank) return 0;
  for (int32_t i = 0; i < y->rank; i++) {
    int32_t want;
    if (i < axis)
      want = t->dims[i];
    else if (i < axis + index->rank)
      want = index->dims[i - axis];
    else
      want = t->dims[i - index->rank + 1];
    if (y->dims[i] != want) return 0;
  }
  return 1;
}

el_status el_plan_gather(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *x = &call->t[0], *index = &call->t[1], *y = &call->t[2];
  if (call->n != 3 || call->n_attr != 1 || !words(x, x->dtype) || !el_plain(index, EL_I32) ||
      !words(y, x->dtype) || !looks_up(x, index, y, call->attr[0].i)) {
    return EL_E_MISMATCH;
  }
  size_t rows = el_size(index);
  for (int32_t i = 0; i < call->attr[0].i; i++) rows *= (size_t)x->dims[i];
  return cut(y, rows, need);
}

el_status el_plan_gather_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *dy = &call->t[0], *index = &call->t[1], *dx = &call->t[2];
  if (call->n != 3 || call->n_attr != 2 || !el_plain(dy, EL_F32) || !el_plain(index, EL_I32) ||
      !el_plain(dx, EL_F32) || !looks_up(dx, index, dy, call->attr[0].i) ||
      dx->dims[call->attr[0].i] != call->attr[1].i) {
    return EL_E_MISMATCH;
  }
  size_t outer = 1;
  for (int32_t i = 0; i < call->attr[0].i; i++) outer *= (size_t)dx->dims[i];
  return cut(dx, outer, need);
}

el_status el_plan_cast(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  if (call->n != 2 || call->n_attr != 0 || x->dtype < EL_F32 || x->dtype > EL_U8 ||
      !el_plain(x, x->dtype) || !words(y, y->dtype) || (y->dtype != EL_F32 && y->dtype != EL_I32) ||
      !el_same_dims(x, y)) {
    return EL_E_MISMATCH;
  }
  return cut(x, (el_size(x) + 15) / 16, need);
}
