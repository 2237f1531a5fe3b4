/* Products and convolutions over codes in portable C: each weight is made where it is used, and
 * nothing is stored aside. Sums run in the order of product.h and conv_ref.c. */
#include "quant.h"

static const float *optional(const el_call *call, uint32_t i) {
  return i + 1 < call->n && el_has(&call->t[i]) ? el_cf32(&call->t[i]) : NULL;
}

static size_t last_dim(const el_tensor *t) { return (size_t)t->dims[t->rank - 1]; }

/* Rows that share a dequantised weight. */
enum { ROWS = 4 };

/* sum[r] += a[r * a_row + l] * w for l in [l0, l1), where w is an expression in l. */
#define RUN(weight)                                                   \
  for (size_t l = l0; l < l1; l++) {                                  \
    float w = weight;                                                 \
    for (size_t r = 0; r < rows; r++) sum[r] += a[r * a_row + l] * w; \
  }

/* Along row j: y = x w.T. */
static void along(const el_codes *q, size_t j, const float *a, size_t a_row, size_t rows,
                  float *sum) {
  if (q->kind == EL_F16) {
    const uint16_t *half = (const uint16_t *)q->codes + j * q->width;
    size_t l0 = 0, l1 = q->width;
    RUN(el_half(half[l]))
    return;
  }
  if (q->kind == EL_BF16) {
    const uint16_t *half = (const uint16_t *)q->codes + j * q->width;
    size_t l0 = 0, l1 = q->width;
    RUN(el_bf16(half[l]))
    return;
  }
  for (size_t g = 0; g < q->groups; g++) {
    size_t l0 = g * q->group, l1 = q->width - l0 < q->group ? q->width : l0 + q->group;
    int32_t zero = el_zero(q, j, g);
    float scale = q->scale[j * q->groups + g];
    if (q->kind == EL_I8) {
      const int8_t *code = (const int8_t *)q->codes + j * q->width;
      RUN((float)(code[l] - zero) * scale)
    } else {
      RUN((float)(el_code(q, j, l, EL_U8) - zero) * scale)
    }
  }
}

/* Down column j: dx = dy w. */
static void down(const el_codes *q, size_t j, const float *a, size_t a_row, size_t rows,
                 float *sum) {
  size_t l0 = 0, l1 = q->rows;
  RUN(el_element(q, l, j))
}

static void product(const el_codes *q, const el_product *p, int back, const el_call *call) {
  size_t i0 = 0, i1 = p->m, j0 = 0, j1 = p->n;
  if (p->m >= p->n) {
    el_part(p->m, ROWS, call->chunk, call->chunks, &i0, &i1);
  } else {
    el_part(p->n, 4, call->chunk, call->chunks, &j0, &j1);
  }
  for (size_t j = j0; j < j1; j++) {
    for (size_t i = i0; i < i1; i += ROWS) {
      size_t rows = i1 - i < ROWS ? i1 - i : ROWS;
      float sum[ROWS] = {0};
      (back ? down : along)(q, j, p->a + i * p->k, p->k, rows, sum);
      for (size_t r = 0; r < rows; r++) {
        size_t at = (i + r) * p->n + j;
        p->c[at] = el_finish(sum[r], p, p->bias != NULL ? p->bias[j] : 0.0f,
                             p->acc != NULL ? p->acc[at] : 0.0f);
      }
    }
  }
}

EL_KERNEL(qlinear) {
  const el_tensor *x = &call->t[0], *y = &call->t[call->n - 1];
  size_t k = last_dim(x);
  el_codes q = el_get_codes(call->t + 1, k, call->attr[2].i);
  el_product p = {
      .m = el_size(x) / k,
      .n = q.rows,
      .k = k,
      .a = el_cf32(x),
      .c = el_f32(y),
      .bias = optional(call, 4),
      .acc = optional(call, 5),
      .alpha = call->attr[0].f,
      .keep = 1.0f,
      .act = call->attr[1].i,
  };
  product(&q, &p, 0, call);
}

EL_KERNEL(qlinear_dx) {
  const el_tensor *dy = &call->t[0], *dx = &call->t[call->n - 1];
  size_t n = last_dim(dy), k = last_dim(dx);
  el_codes q = el_get_codes(call->t + 1, k, call->attr[1].i);
  el_product p = {
      .m = el_size(dy) / n,
      .n = k,
      .k = n,
      .a = el_cf32(dy),
      .c = el_f32(dx),
      .acc = optional(call, 4),
      .alpha = call->attr[0].f,
      .keep = 1.0f,
  };
  product(&q, &p, 1, call);
}

static float finish(const el_conv *c, float sum, const float *bias, const float *acc) {
  el_product p = {.alpha = c->alpha, .keep = 1.0f, .act = c->act, .bias = bias, .acc = acc};
  return el_finish(sum, &p, bias != NULL ? *bias : 0.0f, acc != NULL ? *acc : 0.0f);
}

static const float *at_or_null(const float *p, size_t i) { return p != NULL ? p + i : NULL; }

EL_KERNEL(qconv2d) {
  const el_tensor *xt = &call->t[0], *yt = &call->t[call->n - 1];
  el_conv c = el_get_qconv(call, xt, yt, 0);
  el_codes q = el_get_codes(call->t + 1, el_taps_of(&c), call->attr[EL_QC_ACT + 3].i);
  const float *bias = optional(call, 4), *acc = optional(call, 5);
  int32_t cg = c.in_c / c.groups, og = c.out_c / c.groups;
  size_t begin, end;
  el_range(call, (size_t)c.batch * (size_t)c.w.out[0], 1, &begin, &end);
  for (size_t row = begin; row < end; row++) {
    int32_t b = (int32_t)(row / (size_t)c.w.out[0]), oy = (int32_t)(row % (size_t)c.w.out[0]);
    int32_t y0, y1, x0, x1;
    el_taps(&c.w, 0, oy, &y0, &y1);
    for (int32_t ox = 0; ox < c.w.out[1]; ox++) {
      el_taps(&c.w, 1, ox, &x0, &x1);
      size_t at = el_pixel(b, oy, ox, c.w.out, c.out_c);
      for (int32_t o = 0; o < c.out_c; o++) {
        float sum = 0.0f;
        for (int32_t ky = y0; ky < y1; ky++) {
          for (int32_t kx = x0; kx < x1; kx++) {
            int32_t iy = oy * c.w.stride[0] - c.w.pad[0] + ky * c.w.step[0];
            int32_t ix = ox * c.w.stride[1] - c.w.pad[1] + kx * c.w.step[1];
            const float *x =
                el_cf32(xt) + el_pixel(b, iy, ix, c.w.in, c.in_c) + (size_t)(o / og * cg);
            size_t l = (size_t)(ky * c.w.taps[1] + kx) * (size_t)cg;
            for (int32_t i = 0; i < cg; i++) sum += x[i] * el_element(&q, (size_t)o, l + (size_t)i);
          }
        }
        el_f32(yt)[at + (size_t)o] =
            finish(&c, sum, at_or_null(bias, (size_t)o), at_or_null(acc, at + (size_t)o));
      }
    }
  }
}

EL_KERNEL(qconv2d_dx) {
  const el_tensor *dyt = &call->t[0], *dxt = &call->t[call->n - 1];
  el_conv c = el_get_qconv(call, dxt, dyt, 1);
  el_codes q = el_get_codes(call->t + 1, el_taps_of(&c), call->attr[EL_QC_IN + 5].i);
  const float *acc = optional(call, 4);
  int32_t cg = c.in_c / c.groups, og = c.out_c / c.groups, kh = c.w.taps[0], kw = c.w.taps[1];
  size_t begin, end;
  el_range(call, (size_t)c.batch * (size_t)c.w.in[0], 1, &begin, &end);
  for (size_t row = begin; row < end; row++) {
    int32_t b = (int32_t)(row / (size_t)c.w.in[0]), iy = (int32_t)(row % (size_t)c.w.in[0]);
    for (int32_t ix = 0; ix < c.w.in[1]; ix++) {
      size_t at = el_pixel(b, iy, ix, c.w.in, c.in_c);
      for (int32_t i = 0; i < c.in_c; i++) {
        float sum = 0.0f;
        int32_t o0 = i / cg * og;
        for (int32_t tap = 0; tap < kh * kw; tap++) {
          int32_t oy = el_seen_by(&c.w, 0, iy, tap / kw), ox = el_seen_by(&c.w, 1, ix, tap % kw);
          if (oy < 0 || ox < 0) continue;
          const float *dy = el_cf32(dyt) + el_pixel(b, oy, ox, c.w.out, c.out_c);
          size_t l = (size_t)tap * (size_t)cg + (size_t)(i % cg);
          for (int32_t o = o0; o < o0 + og; o++) sum += dy[o] * el_element(&q, (size_t)o, l);
        }
        el_f32(dxt)[at + (size_t)i] = finish(&c, sum, NULL, at_or_null(acc, at + (size_t)i));
      }
    }
  }
}
