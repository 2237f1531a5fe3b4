/* What a fetch brings, for its kernel and for ports that read it from a file. */
#ifndef EL_FETCH_H
#define EL_FETCH_H

#include "kernel.h"

#define EL_FETCH 312u /* the opcode in kernels.def */

/* Bytes of y. */
static inline size_t el_fetch_bytes(const el_call *call) {
  return el_size(&call->t[1]) * el_item_bytes(call->t[1].dtype);
}

/* The first byte of w that is brought. */
static inline size_t el_fetch_offset(const el_call *call) {
  size_t rows = (size_t)call->attr[1].i;
  return rows > 0 ? el_fetch_bytes(call) / rows * (size_t)call->attr[0].i : 0;
}

#endif
