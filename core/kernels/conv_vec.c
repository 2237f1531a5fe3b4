/* Convolution with vectors: gather the taps of a block of output pixels, then one product.
 *
 * Pointwise ones need no gathering, depthwise ones have loops of their own (depthwise_vec.c).
 * Blocks are fixed by shapes, so the bits do not depend on chunks or threads.
 */
#include "conv_parts.h"
#include "depthwise.h"
#include "vec.h"

static const float *optional(const el_call *call, uint32_t i) {
  return i + 1 < call->n && el_has(&call->t[i]) ? el_cf32(&call->t[i]) : NULL;
}

INLINE void copy(float *dst, const float *src, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) store(dst + i, load(src + i));
  for (; i + 4 <= n; i += 4) store4(dst + i, load4(src + i));
  for (; i < n; i++) dst[i] = src[i];
}

INLINE void add(float *dst, const float *src, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) store(dst + i, load(dst + i) + load(src + i));
  for (; i < n; i++) dst[i] += src[i];
}

INLINE void clear(float *dst, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) store(dst + i, (vec){0});
  for (; i < n; i++) dst[i] = 0.0f;
}

/* Output pixel `row` of all. */
typedef struct pixel {
  int32_t b, y, x;
} pixel;

static pixel pixel_of(const el_conv *c, size_t row) {
  size_t w = (size_t)c->w.out[1], h = (size_t)c->w.out[0];
  return (pixel){(int32_t)(row / w / h), (int32_t)(row / w % h), (int32_t)(row % w)};
}

static void next(const el_conv *c, pixel *p) {
  if (++p->x < c->w.out[1]) return;
  p->x = 0;
  if (++p->y < c->w.out[0]) return;
  p->y = 0;
  p->b++;
}

/* col[i, ..] = the inputs that output pixel first + i sees through window positions [p0, p1) in
 * channels [ch, ch + n); 0 outside the image. */
static void gather(const el_conv *c, const float *x, size_t first, size_t rows, int32_t p0,
                   int32_t p1, int32_t ch, int32_t n, float *col) {
  const el_window *w = &c->w;
  pixel o = pixel_of(c, first);
  size_t cn = (size_t)n;
  int32_t ky0 = p0 / w->taps[1], kx0 = p0 % w->taps[1];
  int whole = n == c->in_c && w->step[1] == 1; /* neighbouring taps are neighbours in memory */
  for (size_t i = 0; i < rows; i++, next(c, &o)) {
    int32_t x0, x1, ix = o.x * w->stride[1] - w->pad[1];
    el_taps(w, 1, o.x, &x0, &x1);
    int32_t kx = kx0, left = p1 - p0; /* positions left to gather */
    for (int32_t ky = ky0; left > 0; ky++, kx = 0) {
      int32_t stop = w->taps[1] < kx + left ? w->taps[1] : kx + left; /* end of this row's taps */
      int32_t iy = o.y * w->stride[0] - w->pad[0] + ky * w->step[0];
      int32_t a = kx > x0 ? kx : x0, b = stop < x1 ? stop : x1;
      left -= stop - kx;
      if (iy < 0 || iy >= w->in[0] || a >= b) {
        clear(col, (size_t)(stop - kx) * cn);
        col += (size_t)(stop - kx) * cn;
        continue;
      }
      if (a > kx) clear(col, (size_t)(a - kx) * cn);
      col += (size_t)(a - kx) * cn;
      const float *s = x + el_pixel(o.b, iy, ix + a * w->step[1], w->in, c->in_c) + (size_t)ch;
      if (whole) {
        copy(col, s, (size_t)(b - a) * cn);
        col += (size_t)(b - a) * cn;
      } else {
        size_t far = (size_t)w->step[1] * (size_t)c->in_c;
        for (int32_t t = a; t < b; t++, col += cn) copy(col, s + (size_t)(t - a) * far, cn);
      }
      if (stop > b) clear(col, (size_t)(stop - b) * cn);
      col += (size_t)(stop - b) * cn;
    }
  }
}

/* dx[..] += col: the reverse of gather over all positions. */
static void spread(const el_conv *c, float *dx, size_t first, size_t rows, int32_t ch, int32_t n,
                   const float *col) {
  const el_window *w = &c->w;
  pixel o = pixel_of(c, first);
  size_t cn = (size_t)n, line = (size_t)w->taps[1] * cn;
  int whole = n == c->in_c && w->step[1] == 1;
  for (size_t i = 0; i < rows; i++, next(c, &o)) {
    int32_t y0, y1, x0, x1;
    el_taps(w, 0, o.y, &y0, &y1);
    el_taps(w, 1, o.x, &x0, &x1);
    int32_t iy = o.y * w->stride[0] - w->pad[0], ix = o.x * w->stride[1] - w->pad[1];
    for (int32_t ky = 0; ky < w->taps[0]; ky++, col += line) {
      if (ky < y0 || ky >= y1 || x0 >= x1) continue;
      float *d = dx + el_pixel(o.b, iy + ky * w->step[0], ix + x0 * w->step[1], w->in, c->in_c) +
                 (size_t)ch;
      const float *s = col + (size_t)x0 * cn;
      if (whole) {
        add(d, s, (size_t)(x1 - x0) * cn);
        continue;
      }
      size_t far = (size_t)w->step[1] * (size_t)c->in_c;
      for (int32_t t = 0; t < x1 - x0; t++) add(d + (size_t)t * far, s + (size_t)t * cn, cn);
    }
  }
}

/* The product's scratch, behind the gathered taps of blocks out of `pixels`. */
static void *after(const el_conv *c, void *col, size_t pixels) {
  return (uint8_t *)col + el_gather_bytes(c, pixels);
}

void EL_K(conv_part)(const el_conv *c, const el_conv_part *part, const float *x, const float *bias,
                     const float *acc, float *y, size_t row, size_t rows, void *col) {
  int32_t cg = c->in_c / c->groups;
  gather(c, x, row, rows, 0, c->w.taps[0] * c->w.taps[1], (int32_t)part->group * cg, cg, col);
  size_t channel = part->group * ((size_t)c->out_c / (size_t)c->groups) + part->first;
  size_t at = row * (size_t)c->out_c + channel;
  el_product p = el_forward_product(c, rows);
  p.n = part->count;
  p.a = col;
  p.b = part->w;
  p.c = y + at;
  p.bias = bias != NULL ? bias + channel : NULL;
  p.acc = acc != NULL ? acc + at : NULL;
  p.act = c->act;
  EL_K(product)(&p, after(c, col, el_pixels(c)), 0, 1);
}

void EL_K(conv_dx_part)(const el_conv *c, const el_conv_part *part, const float *dy, float *dx,
                        size_t first, size_t rows, void *col) {
  int32_t cg = c->in_c / c->groups;
  size_t channel = part->group * ((size_t)c->out_c / (size_t)c->groups) + part->first;
  el_product p = el_back_product(c, rows);
  p.k = part->count;
  p.a = dy + first * (size_t)c->out_c + channel;
  p.b = part->w;
  p.c = col;
  EL_K(product)(&p, after(c, col, el_pixels(c) / (size_t)c->batch), 0, 1);
  spread(c, dx, first, rows, (int32_t)part->group * cg, cg, col);
}

void EL_K(conv_dx_start)(float *dx, const float *acc, size_t n) {
  if (acc == NULL) {
    clear(dx, n);
  } else if (acc != dx) {
    copy(dx, acc, n);
  }
}

EL_KERNEL(conv2d) {
  const el_tensor *xt = &call->t[0], *wt = &call->t[1], *yt = &call->t[call->n - 1];
  el_conv c = el_get_conv(call, xt, wt, yt);
  c.act = call->attr[EL_W_END + 2].i;
  const float *bias = optional(call, 2), *acc = optional(call, 3), *w = el_cf32(wt);
  if (el_is_depthwise(&c)) {
    EL_K(depthwise)(call, &c, w, bias, acc, call->scratch);
    return;
  }
  size_t pixels = el_pixels(&c), block = el_block(&c, pixels), k = el_taps_of(&c);
  size_t groups = (size_t)c.groups, og = (size_t)c.out_c / groups;
  if (el_is_pointwise(&c)) {
    el_product p = el_forward_product(&c, pixels);
    p.a = el_cf32(xt);
    p.b = w;
    p.c = el_f32(yt);
    p.bias = bias;
    p.acc = acc;
    p.act = c.act;
    EL_K(product)(&p, call->scratch, call->chunk, call->chunks);
    return;
  }
  size_t begin, end;
  el_range(call, pixels, block, &begin, &end);
  for (size_t row = begin; row < end; row += block) {
    size_t rows = end - row < block ? end - row : block;
    for (size_t g = 0; g < groups; g++) {
      el_conv_part part = {.w = w + g * og * k, .group = g, .count = og};
      EL_K(conv_part)(&c, &part, el_cf32(xt), bias, acc, el_f32(yt), row, rows, call->scratch);
    }
  }
}

EL_KERNEL(conv2d_dx) {
  const el_tensor *dyt = &call->t[0], *wt = &call->t[1], *dxt = &call->t[call->n - 1];
  el_conv c = el_get_conv(call, dxt, wt, dyt);
  const float *acc = optional(call, 2), *w = el_cf32(wt);
  if (el_is_depthwise(&c)) {
    EL_K(depthwise_dx)(call, &c, w, acc, call->scratch);
    return;
  }
  size_t pixels = el_pixels(&c) / (size_t)c.batch, image = el_size(dxt) / (size_t)c.batch;
  if (el_is_pointwise(&c)) {
    el_product p = el_back_product(&c, el_pixels(&c));
    p.a = el_cf32(dyt);
    p.b = w;
    p.c = el_f32(dxt);
    p.acc = acc;
    EL_K(product)(&p, call->scratch, call->chunk, call->chunks);
    return;
  }
  size_t block = el_block(&c, pixels), k = el_taps_of(&c), groups = (size_t)c.groups;
  size_t og = (size_t)c.out_c / groups, begin, end;
  el_range(call, (size_t)c.batch, 1, &begin, &end);
  for (size_t b = begin; b < end; b++) {
    EL_K(conv_dx_start)(el_f32(dxt) + b * image, acc != NULL ? acc + b * image : NULL, image);
    for (size_t row = 0; row < pixels; row += block) {
      size_t rows = pixels - row < block ? pixels - row : block, first = b * pixels + row;
      for (size_t g = 0; g < groups; g++) {
        el_conv_part part = {.w = w + g * og * k, .group = g, .count = og};
        EL_K(conv_dx_part)(&c, &part, el_cf32(dyt), el_f32(dxt), first, rows, call->scratch);
      }
    }
  }
}

EL_KERNEL(conv2d_dw) {
  const el_tensor *dyt = &call->t[0], *xt = &call->t[1], *dwt = &call->t[call->n - 1];
  el_conv c = el_get_conv(call, xt, dwt, dyt);
  const float *acc = optional(call, 2);
  float *dw = el_f32(dwt);
  if (el_is_depthwise(&c)) {
    EL_K(depthwise_dw)(call, &c, acc);
    return;
  }
  size_t pixels = el_pixels(&c), block = el_block(&c, pixels), k = el_taps_of(&c);
  if (el_is_pointwise(&c)) {
    el_product p = el_weight_product(&c, pixels, k);
    p.a = el_cf32(dyt);
    p.b = el_cf32(xt);
    p.c = dw;
    p.acc = acc;
    EL_K(product)(&p, call->scratch, call->chunk, call->chunks);
    return;
  }
  size_t groups = (size_t)c.groups, og = (size_t)c.out_c / groups, begin, end;
  int32_t cg = c.in_c / c.groups;
  el_positions(&c, call->chunk, call->chunks, &begin, &end);
  if (begin == end) return;
  float *col = call->scratch;
  void *rest = after(&c, col, pixels);
  for (size_t row = 0; row < pixels; row += block) {
    size_t rows = pixels - row < block ? pixels - row : block;
    for (size_t g = 0; g < groups; g++) {
      gather(&c, el_cf32(xt), row, rows, (int32_t)begin, (int32_t)end, (int32_t)g * cg, cg, col);
      size_t at = g * og * k + begin * (size_t)cg;
      el_product p = el_weight_product(&c, rows, (end - begin) * (size_t)cg);
      p.a = el_cf32(dyt) + row * (size_t)c.out_c + g * og;
      p.b = col;
      p.c = dw + at;
      p.acc = row > 0 ? dw + at : acc != NULL ? acc + at : NULL;
      EL_K(product)(&p, rest, 0, 1);
    }
  }
}
