/* The kernels of int8 products, around the includer's `part`, which computes rows [i0, i1) and
 * columns [j0, j1) of a job in the scratch that EL_I8_PANELS asks for, best in whole tiles of ROWS
 * rows and COLUMNS columns.
 *
 *   qlinear_i8     x[m,k] codes[n,k] scale[n,1] b?[n] acc?[m,n] -> y[m,n]
 *   qlinear_i8_dx  dy[m,n] codes[n,k] scale[n,1] acc?[m,k]      -> dx[m,k]
 *   qconv2d_i8, qconv2d_i8_dx  as conv2d and conv2d_dx of one group, codes [o, taps * channels]
 */
#ifndef EL_QUANT_I8_CALLS_H
#define EL_QUANT_I8_CALLS_H

#include "quant_i8_job.h"

static const float *optional(const el_call *call, uint32_t i) {
  return i + 1 < call->n && el_has(&call->t[i]) ? el_cf32(&call->t[i]) : NULL;
}

static void run(const el_call *call, const job *q) {
  size_t i0, i1, j0, j1;
  el_i8_cut(q->m, q->n, ROWS, COLUMNS, call->chunk, call->chunks, &i0, &i1, &j0, &j1);
  if (i0 < i1 && j0 < j1) part(q, call->scratch, i0, i1, j0, j1);
}

EL_KERNEL(qlinear_i8) {
  const el_tensor *x = &call->t[0], *w = &call->t[1];
  size_t n = (size_t)w->dims[0], k = (size_t)w->dims[1];
  job q = {
      .m = el_size(x) / k,
      .n = n,
      .sum = k,
      .t = el_cf32(x),
      .w = (const int8_t *)w->data,
      .scale = el_cf32(&call->t[2]),
      .c_row = n,
      .out = {.c = el_f32(&call->t[call->n - 1]),
              .bias = optional(call, 3),
              .acc = optional(call, 4),
              .alpha = call->attr[0].f,
              .keep = 1.0f,
              .act = call->attr[1].i},
  };
  run(call, &q);
}

EL_KERNEL(qlinear_i8_dx) {
  const el_tensor *dy = &call->t[0], *w = &call->t[1];
  size_t n = (size_t)w->dims[0], k = (size_t)w->dims[1];
  job q = {
      .m = el_size(dy) / n,
      .n = k,
      .sum = n,
      .t = el_cf32(dy),
      .factor = el_cf32(&call->t[2]),
      .w = (const int8_t *)w->data,
      .period = n,
      .stride = k,
      .back = 1,
      .c_row = k,
      .out = {.c = el_f32(&call->t[call->n - 1]),
              .acc = optional(call, 3),
              .alpha = call->attr[0].f,
              .keep = 1.0f},
  };
  run(call, &q);
}

/* Samples of a convolution, each rounded with one scale. */
static void samples(const el_call *call, job *q, size_t pixels, const float *t,
                    const float *factor) {
  size_t begin, end;
  level *image =
      (level *)(void *)((uint8_t *)call->scratch + el_i8_scratch(q->m, q->sum, EL_I8_PANELS));
  el_product whole = q->out;
  q->image = image;
  el_range(call, (size_t)call->t[0].dims[0], 1, &begin, &end);
  for (size_t b = begin; b < end; b++) {
    q->r = round_rows(t + b * pixels * q->channels, factor, pixels, q->channels, image);
    q->out.c = whole.c + b * q->m * q->n;
    q->out.acc = whole.acc != NULL ? whole.acc + b * q->m * q->n : NULL;
    part(q, call->scratch, 0, q->m, 0, q->n);
  }
}

EL_KERNEL(qconv2d_i8) {
  const el_tensor *x = &call->t[0], *y = &call->t[call->n - 1];
  el_conv c = el_get_qconv(call, x, y, 0);
  el_window window = c.w;
  job q = {
      .m = (size_t)c.w.out[0] * (size_t)c.w.out[1],
      .n = (size_t)c.out_c,
      .sum = el_taps_of(&c),
      .channels = (size_t)c.in_c,
      .window = &window,
      .w = (const int8_t *)call->t[1].data,
      .scale = el_cf32(&call->t[2]),
      .c_row = (size_t)c.out_c,
      .out = {.c = el_f32(y),
              .bias = optional(call, 3),
              .acc = optional(call, 4),
              .alpha = c.alpha,
              .keep = 1.0f,
              .act = c.act},
  };
  samples(call, &q, (size_t)c.w.in[0] * (size_t)c.w.in[1], el_cf32(x), NULL);
}

EL_KERNEL(qconv2d_i8_dx) {
  const el_tensor *dy = &call->t[0], *dx = &call->t[call->n - 1];
  el_conv c = el_get_qconv(call, dx, dy, 1);
  el_window window = c.w;
  size_t taps = (size_t)c.w.taps[0] * (size_t)c.w.taps[1], cg = (size_t)c.in_c;
  job q = {
      .m = (size_t)c.w.in[0] * (size_t)c.w.in[1],
      .n = cg,
      .sum = taps * (size_t)c.out_c,
      .back = 1,
      .channels = (size_t)c.out_c,
      .window = &window,
      .strided_back = c.w.stride[0] != 1 || c.w.stride[1] != 1,
      .w = (const int8_t *)call->t[1].data,
      .period = (size_t)c.out_c,
      .stride = taps * cg,
      .jump = cg,
      .c_row = cg,
      .out = {.c = el_f32(dx), .acc = optional(call, 3), .alpha = c.alpha, .keep = 1.0f},
  };
  if (!q.strided_back) { /* a convolution of dy with the taps reversed */
    for (int a = 0; a < 2; a++) {
      window.in[a] = c.w.out[a];
      window.out[a] = c.w.in[a];
      window.pad[a] = c.w.step[a] * (c.w.taps[a] - 1) - c.w.pad[a];
    }
    q.base = (taps - 1) * cg;
    q.jump = 0 - cg;
  }
  samples(call, &q, (size_t)c.w.out[0] * (size_t)c.w.out[1], el_cf32(dy), el_cf32(&call->t[2]));
}

#endif
