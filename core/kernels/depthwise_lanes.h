/* Depthwise loops over one group of channels, included once for each width of a group:
 * V the vector type, W its lanes, LD and ST load and store, FIN the epilogue, NAME adds a suffix.
 */

/* One output pixel at a border: only the taps inside the image. */
static void NAME(border_pixel)(const el_conv *c, const el_product *p, const float *x,
                               const float *w, int32_t b, int32_t oy, int32_t ox, size_t ch) {
  int32_t y0, y1, x0, x1;
  size_t channels = (size_t)c->in_c;
  el_taps(&c->w, 0, oy, &y0, &y1);
  el_taps(&c->w, 1, ox, &x0, &x1);
  V sum = {0};
  for (int32_t ky = y0; ky < y1; ky++) {
    for (int32_t kx = x0; kx < x1; kx++) {
      int32_t iy = oy * c->w.stride[0] - c->w.pad[0] + ky * c->w.step[0];
      int32_t ix = ox * c->w.stride[1] - c->w.pad[1] + kx * c->w.step[1];
      sum += LD(x + el_pixel(b, iy, ix, c->w.in, c->in_c) + ch) *
             LD(w + (size_t)(ky * c->w.taps[1] + kx) * channels + ch);
    }
  }
  V bias = {0};
  if (p->bias != NULL) bias = LD(p->bias + ch);
  FIN(p, el_pixel(b, oy, ox, c->w.out, c->in_c) + ch, sum, bias);
}

/* `pixels` neighbouring outputs from a table of input columns: cols[ky * n_cols + i] points at the
 * channels of input column i of tap row ky, or at zeros. A column is loaded once for all taps that
 * meet it when kw is 3 and stride and step are 1. pixels and narrow are constants where inlined. */
INLINE void NAME(segment)(const el_product *p, const float *const *cols, size_t n_cols, size_t rows,
                          size_t kw, size_t stride, size_t step, const float *w, size_t channels,
                          size_t ch, size_t at, const size_t pixels, const int narrow) {
  V zero = {0}, sum[6];
#pragma GCC unroll 6
  for (size_t i = 0; i < pixels; i++) sum[i] = zero;
  for (size_t ky = 0; ky < rows; ky++, cols += n_cols) {
    if (narrow) {
      V w0 = LD(w + ch), w1 = LD(w + channels + ch), w2 = LD(w + 2 * channels + ch);
#pragma GCC unroll 8
      for (size_t i = 0; i < pixels + 2; i++) {
        V x = LD(cols[i] + ch);
        if (i >= 2) sum[i - 2] += x * w2;
        if (i >= 1 && i <= pixels) sum[i - 1] += x * w1;
        if (i < pixels) sum[i] += x * w0;
      }
      w += 3 * channels;
    } else {
      for (size_t kx = 0; kx < kw; kx++, w += channels) {
        V v = LD(w + ch);
#pragma GCC unroll 6
        for (size_t i = 0; i < pixels; i++) sum[i] += LD(cols[i * stride + kx * step] + ch) * v;
      }
    }
  }
  V bias = zero, done[6]; /* a copy, so that the sums themselves stay in registers */
  if (p->bias != NULL) bias = LD(p->bias + ch);
#pragma GCC unroll 6
  for (size_t i = 0; i < pixels; i++) done[i] = sum[i];
#pragma GCC unroll 1
  for (size_t i = 0; i < pixels; i++) FIN(p, at + i * channels + ch, done[i], bias);
}

#define SEGMENT(first, pixels, narrow)                                         \
  for (size_t h = ch; h + W <= channels; h += W) {                             \
    NAME(segment)                                                              \
    (p, cols + (first)*stride, n_cols, rows, kw, stride, step, w, channels, h, \
     at + (first)*channels, pixels, narrow);                                   \
  }

/* All groups of channels from `ch` on; returns the first channel left over. */
static size_t NAME(segments)(const el_product *p, const float *const *cols, size_t n_cols,
                             size_t rows, size_t kw, size_t stride, size_t step, const float *w,
                             size_t channels, size_t ch, size_t at, size_t pixels) {
  size_t i = 0;
#if W > 1
  if (kw == 3 && stride == 1 && step == 1) {
    switch (pixels) {
      case 6:
        SEGMENT(0, 6, 1) break;
      case 5:
        SEGMENT(0, 5, 1) break;
      case 4:
        SEGMENT(0, 4, 1) break;
      case 3:
        SEGMENT(0, 3, 1) break;
      case 2:
        SEGMENT(0, 2, 1) break;
      default:
        SEGMENT(0, 1, 1) break;
    }
    i = pixels;
  }
  for (; i + 4 <= pixels; i += 4) SEGMENT(i, 4, 0)
  for (; i + 2 <= pixels; i += 2) SEGMENT(i, 2, 0)
#endif
  for (; i < pixels; i++) SEGMENT(i, 1, 0)
  return ch + (channels - ch) / W * W;
}
#undef SEGMENT

/* Gradients of `taps` neighbouring weights (ky, kx ..) in one group of channels: sums over all
 * images, rows and columns in order. `taps` is a constant wherever this is inlined. */
INLINE void NAME(weights)(const el_conv *c, const float *dy, const float *x, int32_t ky, int32_t kx,
                          const int32_t taps, size_t ch, float *out) {
  const el_window *w = &c->w;
  size_t channels = (size_t)c->in_c, far = (size_t)w->stride[1] * channels;
  size_t apart = (size_t)w->step[1] * channels;
  V zero = {0}, sum[4] = {zero, zero, zero, zero};
  int32_t lo = 0, hi = w->out[1]; /* columns that see every one of these taps */
  while (lo < hi && lo * w->stride[1] - w->pad[1] + kx * w->step[1] < 0) lo++;
  while (hi > lo && (hi - 1) * w->stride[1] - w->pad[1] + (kx + taps - 1) * w->step[1] >= w->in[1])
    hi--;
  for (int32_t b = 0; b < c->batch; b++) {
    for (int32_t oy = 0; oy < w->out[0]; oy++) {
      int32_t iy = oy * w->stride[0] - w->pad[0] + ky * w->step[0];
      if (iy < 0 || iy >= w->in[0]) continue;
      const float *d = dy + el_pixel(b, oy, 0, w->out, c->in_c) + ch;
      const float *line = x + el_pixel(b, iy, 0, w->in, c->in_c) + ch;
      for (int32_t ox = 0; ox < w->out[1]; ox++) {
        if (ox == lo && lo < hi) {
          const float *s =
              line + (size_t)(lo * w->stride[1] - w->pad[1] + kx * w->step[1]) * channels;
          const float *e = d + (size_t)lo * channels;
          for (; ox < hi; ox++, e += channels, s += far) {
            V g = LD(e);
#pragma GCC unroll 4
            for (int32_t t = 0; t < taps; t++) sum[t] += g * LD(s + (size_t)t * apart);
          }
          ox--;
          continue;
        }
#pragma GCC unroll 4
        for (int32_t t = 0; t < taps; t++) {
          int32_t ix = ox * w->stride[1] - w->pad[1] + (kx + t) * w->step[1];
          if (ix >= 0 && ix < w->in[1])
            sum[t] += LD(d + (size_t)ox * channels) * LD(line + (size_t)ix * channels);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int32_t t = 0; t < taps; t++) ST(out + t * W, sum[t]);
}

static void NAME(all_weights)(const el_conv *c, const el_product *p, const float *dy,
                              const float *x, size_t ch) {
  int32_t kw = c->w.taps[1], n = c->w.taps[0] * kw;
  float sums[4 * W];
  for (int32_t ky = 0; ky < c->w.taps[0]; ky++) {
    for (int32_t kx = 0; kx < kw;) {
      int32_t taps = kw - kx < 4 ? kw - kx : 4;
      if (taps == 1) NAME(weights)(c, dy, x, ky, kx, 1, ch, sums);
      if (taps == 2) NAME(weights)(c, dy, x, ky, kx, 2, ch, sums);
      if (taps == 3) NAME(weights)(c, dy, x, ky, kx, 3, ch, sums);
      if (taps == 4) NAME(weights)(c, dy, x, ky, kx, 4, ch, sums);
      for (int32_t t = 0; t < taps; t++, kx++) {
        for (size_t i = 0; i < W; i++) {
          size_t at = (ch + i) * (size_t)n + (size_t)(ky * kw + kx);
          p->c[at] =
              el_finish(sums[t * W + (int32_t)i], p, 0.0f, p->acc != NULL ? p->acc[at] : 0.0f);
        }
      }
    }
  }
}

#undef V
#undef W
#undef LD
#undef ST
#undef FIN
#undef NAME
