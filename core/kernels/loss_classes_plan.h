/* Checks shared by the plan functions of losses over classes. */
#ifndef EL_LOSS_CLASSES_PLAN_H
#define EL_LOSS_CLASSES_PLAN_H

#include "plan.h"

/* labels is i32 of at least one axis; x has one more, the classes. */
static inline int el_rows_of(const el_tensor *x, const el_tensor *labels) {
  if (!el_plain(x, EL_F32) || !el_plain(labels, EL_I32) || labels->rank < 1 ||
      x->rank != labels->rank + 1) {
    return 0;
  }
  for (int32_t i = 0; i < labels->rank; i++) {
    if (labels->dims[i] != x->dims[i]) return 0;
  }
  return 1;
}

/* attr: smoothing 0 .. 1, ignore, shift */
static inline int el_class_attrs(const el_call *call, const el_tensor *labels) {
  if (call->n_attr != 3) return 0;
  float smoothing = call->attr[0].f;
  int32_t shift = call->attr[2].i;
  return smoothing >= 0.0f && smoothing <= 1.0f && shift >= 0 &&
         shift < labels->dims[labels->rank - 1];
}

/* Absent, or one number for each class. */
static inline int el_class_vector(const el_tensor *t, int32_t classes) {
  return t->rank == 0 || (el_plain(t, EL_F32) && t->rank == 1 && t->dims[0] == classes);
}

#endif
