/* Products and convolutions over codes with vectors: a block of weights is dequantised into scratch
 * and the f32 product runs over it. Blocks are fixed by shapes, so the bits do not depend on
 * chunks.
 *
 *   qlinear     x[m,k] codes scale? zero? b?[n] acc?[m,n] -> y[m,n]  = act(alpha x w.T + b + acc)
 *   qlinear_dx  dy[m,n] codes scale? zero? acc?[m,k]      -> dx[m,k] = alpha dy w + acc
 *   qconv2d, qconv2d_dx  as conv2d and conv2d_dx, with codes [out, taps * channels]
 */
#include "conv_parts.h"
#include "depthwise.h"
#include "quant.h"
#include "vec.h"

static const float *optional(const el_call *call, uint32_t i) {
  return i + 1 < call->n && el_has(&call->t[i]) ? el_cf32(&call->t[i]) : NULL;
}

static size_t last_dim(const el_tensor *t) { return (size_t)t->dims[t->rank - 1]; }

static void *after(float *block, uint64_t floats) {
  return (uint8_t *)block + el_unpacked_bytes(floats);
}

/* This call's share: some blocks, or some rows of every block. */
typedef struct share {
  size_t first, last;
  uint32_t chunk, chunks;
} share;

static share share_of(const el_call *call, const el_code_cut *cut) {
  share s = {.last = cut->blocks, .chunk = call->chunk, .chunks = call->chunks};
  if (cut->by_rows) return s;
  el_part(cut->blocks, 1, call->chunk, call->chunks, &s.first, &s.last);
  s.chunk = 0;
  s.chunks = 1;
  return s;
}

EL_KERNEL(qlinear) {
  const el_tensor *x = &call->t[0], *y = &call->t[call->n - 1];
  size_t k = last_dim(x), n = last_dim(y), m = el_size(x) / k;
  el_code_cut cut = el_cut_codes(m, n, k, call->chunks);
  el_codes q = el_get_codes(call->t + 1, k, call->attr[2].i);
  const float *bias = optional(call, 4), *acc = optional(call, 5);
  float *w = call->scratch;
  share s = share_of(call, &cut);
  for (size_t i = s.first; i < s.last; i++) {
    size_t j = i * cut.block, rows = n - j < cut.block ? n - j : cut.block;
    EL_K(dequantize)(&q, j, rows, 0, k, w);
    el_product p = {
        .m = m,
        .n = rows,
        .k = k,
        .a = el_cf32(x),
        .a_row = k,
        .a_col = 1,
        .b = w,
        .b_row = 1,
        .b_col = k,
        .c = el_f32(y) + j,
        .c_row = n,
        .c_col = 1,
        .bias = bias != NULL ? bias + j : NULL,
        .acc = acc != NULL ? acc + j : NULL,
        .alpha = call->attr[0].f,
        .keep = 1.0f,
        .act = call->attr[1].i,
    };
    EL_K(product)(&p, after(w, cut.block * k), s.chunk, s.chunks);
  }
}

EL_KERNEL(qlinear_dx) {
  const el_tensor *dy = &call->t[0], *dx = &call->t[call->n - 1];
  size_t n = last_dim(dy), k = last_dim(dx), m = el_size(dy) / n;
  el_code_cut cut = el_cut_codes(m, k, n, call->chunks);
  el_codes q = el_get_codes(call->t + 1, k, call->attr[1].i);
  const float *acc = optional(call, 4);
  float *w = call->scratch;
  share s = share_of(call, &cut);
  for (size_t i = s.first; i < s.last; i++) {
    size_t j = i * cut.block, columns = k - j < cut.block ? k - j : cut.block;
    EL_K(dequantize)(&q, 0, n, j, columns, w);
    el_product p = {
        .m = m,
        .n = columns,
        .k = n,
        .a = el_cf32(dy),
        .a_row = n,
        .a_col = 1,
        .b = w,
        .b_row = columns,
        .b_col = 1,
        .c = el_f32(dx) + j,
        .c_row = k,
        .c_col = 1,
        .acc = acc != NULL ? acc + j : NULL,
        .alpha = call->attr[0].f,
        .keep = 1.0f,
    };
    EL_K(product)(&p, after(w, cut.block * n), s.chunk, s.chunks);
  }
}

EL_KERNEL(qconv2d) {
  const el_tensor *x = &call->t[0], *y = &call->t[call->n - 1];
  el_conv c = el_get_qconv(call, x, y, 0);
  size_t k = el_taps_of(&c), og = (size_t)c.out_c / (size_t)c.groups;
  el_codes q = el_get_codes(call->t + 1, k, call->attr[EL_QC_ACT + 3].i);
  const float *bias = optional(call, 4), *acc = optional(call, 5);
  float *w = call->scratch;
  if (el_is_depthwise(&c)) {
    EL_K(dequantize)(&q, 0, q.rows, 0, k, w);
    EL_K(depthwise)(call, &c, w, bias, acc, after(w, q.rows * k));
    return;
  }
  size_t pixels = el_pixels(&c), rows = el_block(&c, pixels), begin, end;
  size_t block = el_channel_block(&c);
  el_range(call, pixels, rows, &begin, &end);
  for (size_t g = 0; g < (size_t)c.groups; g++) {
    for (size_t o = 0; o < og; o += block) {
      el_conv_part part = {
          .w = w, .group = g, .first = o, .count = og - o < block ? og - o : block};
      EL_K(dequantize)(&q, g * og + o, part.count, 0, k, w);
      for (size_t row = begin; row < end; row += rows) {
        EL_K(conv_part)
        (&c, &part, el_cf32(x), bias, acc, el_f32(y), row, end - row < rows ? end - row : rows,
         after(w, block * k));
      }
    }
  }
}

EL_KERNEL(qconv2d_dx) {
  const el_tensor *dy = &call->t[0], *dxt = &call->t[call->n - 1];
  el_conv c = el_get_qconv(call, dxt, dy, 1);
  size_t k = el_taps_of(&c), og = (size_t)c.out_c / (size_t)c.groups;
  el_codes q = el_get_codes(call->t + 1, k, call->attr[EL_QC_IN + 5].i);
  const float *acc = optional(call, 4);
  float *w = call->scratch, *dx = el_f32(dxt);
  if (el_is_depthwise(&c)) {
    EL_K(dequantize)(&q, 0, q.rows, 0, k, w);
    EL_K(depthwise_dx)(call, &c, w, acc, after(w, q.rows * k));
    return;
  }
  size_t pixels = el_pixels(&c) / (size_t)c.batch, image = el_size(dxt) / (size_t)c.batch;
  size_t rows = el_block(&c, pixels), block = el_channel_block(&c), begin, end;
  el_range(call, (size_t)c.batch, 1, &begin, &end);
  if (begin == end) return;
  EL_K(conv_dx_start)
  (dx + begin * image, acc != NULL ? acc + begin * image : NULL, (end - begin) * image);
  for (size_t g = 0; g < (size_t)c.groups; g++) {
    for (size_t o = 0; o < og; o += block) {
      el_conv_part part = {
          .w = w, .group = g, .first = o, .count = og - o < block ? og - o : block};
      EL_K(dequantize)(&q, g * og + o, part.count, 0, k, w);
      for (size_t b = begin; b < end; b++) {
        for (size_t row = 0; row < pixels; row += rows) {
          EL_K(conv_dx_part)
          (&c, &part, el_cf32(dy), dx, b * pixels + row, pixels - row < rows ? pixels - row : rows,
           after(w, block * k));
        }
      }
    }
  }
}
