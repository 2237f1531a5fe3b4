/* Depthwise loops over one group of channels, included once for each width of a group:
 * V the vector type, W its lanes, LD and ST load and store, FIN the epilogue, NAME adds a suffix. */

/* One output pixel at a border: only the taps inside the image. */
static void NAME(border_pixel)(const el_conv *c, const el_product *p, const float *x, const float *w,
                               int32_t b, int32_t oy, int32_t ox, size_t ch) {
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

/* Output row (b, oy): four pixels at once where every tap column is inside the image. */
static void NAME(row)(const el_conv *c, const el_product *p, const float *x, const float *w, int32_t b,
                      int32_t oy, int32_t xa, int32_t xb, size_t ch) {
  int32_t y0, y1, ox = 0;
  size_t channels = (size_t)c->in_c;
  el_taps(&c->w, 0, oy, &y0, &y1);
  V bias = {0};
  if (p->bias != NULL) bias = LD(p->bias + ch);
  for (; ox < xa; ox++) NAME(border_pixel)(c, p, x, w, b, oy, ox, ch);
  size_t far = (size_t)c->w.stride[1] * channels;
  for (; ox + 4 <= xb && y0 < y1; ox += 4) {
    V s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    int32_t ix = ox * c->w.stride[1] - c->w.pad[1];
    for (int32_t ky = y0; ky < y1; ky++) {
      int32_t iy = oy * c->w.stride[0] - c->w.pad[0] + ky * c->w.step[0];
      const float *s = x + el_pixel(b, iy, ix, c->w.in, c->in_c) + ch;
      const float *t = w + (size_t)(ky * c->w.taps[1]) * channels + ch;
      for (int32_t kx = 0; kx < c->w.taps[1]; kx++) {
        V v = LD(t);
        s0 += LD(s) * v;
        s1 += LD(s + far) * v;
        s2 += LD(s + 2 * far) * v;
        s3 += LD(s + 3 * far) * v;
        s += (size_t)c->w.step[1] * channels;
        t += channels;
      }
    }
    size_t at = el_pixel(b, oy, ox, c->w.out, c->in_c) + ch;
    FIN(p, at, s0, bias);
    FIN(p, at + channels, s1, bias);
    FIN(p, at + 2 * channels, s2, bias);
    FIN(p, at + 3 * channels, s3, bias);
  }
  for (; ox < c->w.out[1]; ox++) NAME(border_pixel)(c, p, x, w, b, oy, ox, ch);
}

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
  while (hi > lo && (hi - 1) * w->stride[1] - w->pad[1] + (kx + taps - 1) * w->step[1] >= w->in[1]) hi--;
  for (int32_t b = 0; b < c->batch; b++) {
    for (int32_t oy = 0; oy < w->out[0]; oy++) {
      int32_t iy = oy * w->stride[0] - w->pad[0] + ky * w->step[0];
      if (iy < 0 || iy >= w->in[0]) continue;
      const float *d = dy + el_pixel(b, oy, 0, w->out, c->in_c) + ch;
      const float *line = x + el_pixel(b, iy, 0, w->in, c->in_c) + ch;
      for (int32_t ox = 0; ox < w->out[1]; ox++) {
        if (ox == lo && lo < hi) {
          const float *s = line + (size_t)(lo * w->stride[1] - w->pad[1] + kx * w->step[1]) * channels;
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
          if (ix >= 0 && ix < w->in[1]) sum[t] += LD(d + (size_t)ox * channels) * LD(line + (size_t)ix * channels);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int32_t t = 0; t < taps; t++) ST(out + t * W, sum[t]);
}

static void NAME(all_weights)(const el_conv *c, const el_product *p, const float *dy, const float *x,
                              size_t ch) {
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
          p->c[at] = el_finish(sums[t * W + (int32_t)i], p, 0.0f, p->acc != NULL ? p->acc[at] : 0.0f);
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
