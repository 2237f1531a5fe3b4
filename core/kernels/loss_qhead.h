/* Operands and words of cross-entropy from a product over codes (loss_qhead.c). */
#ifndef EL_LOSS_QHEAD_H
#define EL_LOSS_QHEAD_H

#include "loss_head.h"

/* The first three as every loss over classes has them. */
enum { EL_QH_GROUP = 3, EL_QH_FIRST = 4, EL_QH_CLASSES = 5, EL_QH_WORDS = 6 };

/* x labels codes scale? zero?, then those of qhead and of qhead_dx */
enum { EL_QH_CODES = 2, EL_QH_WEIGHT = 5, EL_QH_BIAS = 6, EL_QH_BEFORE = 7 };
enum { EL_QHD_LSE = 5, EL_QHD_DLOSSES, EL_QHD_WEIGHT, EL_QHD_BIAS, EL_QHD_DLSE, EL_QHD_ACC };

/* Optional operand i of a call with one output, NULL where it is absent. */
static inline const el_tensor *el_given(const el_call *call, uint32_t i) {
  return i + 1 < call->n && el_has(&call->t[i]) ? &call->t[i] : NULL;
}

#endif
