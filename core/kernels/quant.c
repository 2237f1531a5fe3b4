/* Codes to f32, the same bits for every instruction set; rows of an embedding.
 *
 *   qgather  codes[n,d] scale? zero? index[..] -> y[..,d]
 */
#include "quant.h"

static void row_i8(const int8_t *code, size_t n, int32_t zero, float scale, float *out) {
  for (size_t i = 0; i < n; i++) out[i] = (float)(code[i] - zero) * scale;
}

static void row_i4(const uint8_t *pair, size_t n, int32_t zero, float scale, float *out) {
  int8_t code[64];
  for (size_t i = 0; i < n; i += 64) {
    size_t m = n - i < 64 ? n - i : 64;
    el_unpack4(pair + i / 2, m, code);
    row_i8(code, m, zero, scale, out + i);
  }
}

static void row_f16(const uint16_t *half, size_t n, float *out) {
  for (size_t i = 0; i < n; i++) out[i] = el_half(half[i]);
}

static void row_bf16(const uint16_t *half, size_t n, float *out) {
  for (size_t i = 0; i < n; i++) out[i] = el_bf16(half[i]);
}

static void row(const el_codes *q, size_t r, size_t column, size_t n, float *out) {
  if (q->kind == EL_F16) {
    row_f16((const uint16_t *)q->codes + r * q->width + column, n, out);
    return;
  }
  if (q->kind == EL_BF16) {
    row_bf16((const uint16_t *)q->codes + r * q->width + column, n, out);
    return;
  }
  for (size_t i = 0; i < n;) {
    size_t at = column + i, g = at / q->group, left = (g + 1) * q->group - at;
    size_t m = n - i < left ? n - i : left;
    float scale = q->scale[r * q->groups + g];
    int32_t zero = el_zero(q, r, g);
    if (q->kind == EL_I8) {
      row_i8((const int8_t *)q->codes + r * q->width + at, m, zero, scale, out + i);
    } else if (at % 2 == 0) {
      row_i4((const uint8_t *)q->codes + r * ((q->width + 1) / 2) + at / 2, m, zero, scale,
             out + i);
    } else { /* a group of odd length ends inside a byte */
      for (size_t j = 0; j < m; j++)
        out[i + j] = (float)(el_code(q, r, at + j, EL_U8) - zero) * scale;
    }
    i += m;
  }
}

void EL_K(dequantize)(const el_codes *q, size_t first, size_t rows, size_t column, size_t columns,
                      float *out) {
  for (size_t i = 0; i < rows; i++) row(q, first + i, column, columns, out + i * columns);
}

EL_KERNEL(qgather) {
  const el_tensor *index = &call->t[3];
  size_t width = (size_t)call->attr[1].i, begin, end;
  el_codes q = el_get_codes(call->t, width, call->attr[0].i);
  float *y = el_f32(&call->t[4]);
  el_range(call, el_size(index), 1, &begin, &end);
  for (size_t i = begin; i < end; i++) {
    int64_t at = el_ci32(index)[i], n = (int64_t)q.rows;
    if (at < 0) at += n;
    at = at < 0 ? 0 : at >= n ? n - 1 : at;
    row(&q, (size_t)at, 0, width, y + i * width);
  }
}
