/* Tensors of which a few rows at a time are read and written, in their own type or as int8.
 *
 * int8 rows: n codes, then the f32 scale r of the row; element = code * r. A row is rounded as in
 * quant_i8.h; with a seed, to the integer below or above, above as often as the fraction says: by a
 * hash of the seed, the row's largest magnitude and the element's place, so that nothing depends on
 * chunks and the same values are rounded alike. */
#include <string.h>

#include "kernel.h"
#include "math.h"

/* Bytes [*begin, *end) of this chunk. A hostile table may let operands overlap: memmove. */
static void bytes_of(const el_call *call, const el_tensor *t, size_t *begin, size_t *end) {
  el_range(call, el_size(t) * el_item_bytes(t->dtype), 64, begin, end);
}

/* y = 0 */
EL_KERNEL(blank) {
  size_t i, end;
  bytes_of(call, &call->t[0], &i, &end);
  memset((uint8_t *)call->t[0].data + i, 0, end - i);
}

/* x, y: elements of x from attribute `at` on */
EL_KERNEL(take_rows) {
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  size_t i, end, skip = (size_t)call->attr[0].i * el_item_bytes(x->dtype);
  bytes_of(call, y, &i, &end);
  memmove((uint8_t *)y->data + i, (const uint8_t *)x->data + skip + i, end - i);
}

/* old, x, new in old's place: elements from attribute `at` on become x */
EL_KERNEL(put_rows) {
  const el_tensor *x = &call->t[1], *y = &call->t[2];
  size_t i, end, skip = (size_t)call->attr[0].i * el_item_bytes(x->dtype);
  bytes_of(call, x, &i, &end);
  memmove((uint8_t *)y->data + skip + i, (const uint8_t *)x->data + i, end - i);
}

static float top_of(const float *x, size_t n) {
  int32_t most = 0; /* the bits of |x| order like |x|; NaN and infinity come last */
  for (size_t i = 0; i < n; i++) {
    int32_t bits = (int32_t)(el_bits(x[i]) & 0x7FFFFFFFu);
    most = bits > most ? bits : most;
  }
  return most >= 0x7F800000 ? el_nan() : el_from_bits((uint32_t)most);
}

static void nearest(const float *x, float inverse, size_t n, int8_t *q) {
  for (size_t i = 0; i < n; i++) q[i] = (int8_t)el_nearest(x[i] * inverse);
}

static void by_chance(const float *x, float inverse, size_t n, uint32_t key, uint32_t place,
                      int8_t *q) {
  for (size_t i = 0; i < n; i++) {
    uint32_t u = el_mix((place + (uint32_t)i) * 0x9E3779B9u + key) >> 16;
    float v = x[i] * inverse + (float)(int32_t)u * 0x1p-16f;
    int32_t k = (int32_t)v;
    k -= (float)k > v;
    q[i] = (int8_t)(k > 127 ? 127 : k);
  }
}

/* old, x, new in old's place: rows from attribute `at` on become x's; attribute seed, 0: nearest */
EL_KERNEL(pack_i8) {
  const el_tensor *tx = &call->t[1], *tq = &call->t[2];
  size_t n = (size_t)tq->dims[1] - 4, row, end, at = (size_t)call->attr[0].i;
  uint32_t seed = (uint32_t)call->attr[1].i;
  el_range(call, el_size(tx) / n, 1, &row, &end);
  for (; row < end; row++) {
    const float *x = el_cf32(tx) + row * n;
    int8_t *q = (int8_t *)tq->data + (at + row) * (n + 4);
    float top = top_of(x, n), scale = top / 127.0f;
    if (!(top >= 7.8886091e-31f)) { /* 2^-100 */
      if (top == top) scale = 0.0f;
      memset(q, 0, n);
    } else if (seed == 0) {
      nearest(x, 127.0f / top, n, q);
    } else {
      by_chance(x, 127.0f / top, n, el_mix(el_mix(seed) + el_bits(top)), (uint32_t)((at + row) * n),
                q);
    }
    memcpy(q + n, &scale, 4);
  }
}

/* int8 rows, x: rows from attribute `at` on */
EL_KERNEL(unpack_i8) {
  const el_tensor *tq = &call->t[0], *tx = &call->t[1];
  size_t n = (size_t)tq->dims[1] - 4, row, end, at = (size_t)call->attr[0].i;
  el_range(call, el_size(tx) / n, 1, &row, &end);
  for (; row < end; row++) {
    const int8_t *q = (const int8_t *)tq->data + (at + row) * (n + 4);
    float *x = el_f32(tx) + row * n, scale;
    memcpy(&scale, q + n, 4);
    for (size_t i = 0; i < n; i++) x[i] = (float)q[i] * scale;
  }
}
