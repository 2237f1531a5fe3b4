/* The portable depthwise convolution in place: its result is as large as its image and may stand
 * where that stood. A few channels at a time are set aside, which is all that their results are
 * made of.
 *
 * Sums over tap rows and tap columns in this order, as conv_ref.c does. With flip the taps lie on
 * the other side: the gradient of the same convolution for its image.
 */
#include "conv.h"

/* Tap t of output o of axis a lies at this place of the image, or outside it. */
static inline int32_t place(const el_window *w, int a, int32_t o, int32_t t, int flip) {
  int32_t off = t * w->step[a] - w->pad[a];
  return flip ? o - off : o + off;
}

/* EL_PLANES of the channels at x, `stride` floats apart; zeros for those that are not there. */
static void set_aside(float *to, const float *x, size_t n, size_t stride, size_t step,
                      size_t count) {
  for (size_t i = 0; i < n; i++) {
    for (size_t j = 0; j < EL_PLANES; j++) {
      to[i * EL_PLANES + j] = j < count ? x[i * stride + j * step] : 0.0f;
    }
  }
}

/* x, w [c, kh, kw, 1], bias or none -> y of x's dims. scratch: a plane of EL_PLANES channels, and
 * their weights. */
EL_KERNEL(depthwise_plane) {
  const el_tensor *xt = &call->t[0], *wt = &call->t[1], *yt = &call->t[call->n - 1];
  const float *bias = call->n > 3 && el_has(&call->t[2]) ? el_cf32(&call->t[2]) : NULL;
  el_conv c = el_get_conv(call, xt, wt, yt);
  el_product p = {.alpha = c.alpha, .act = call->attr[EL_W_END + 2].i, .bias = bias};
  int flip = call->attr[EL_W_END + 3].i;
  const el_window *d = &c.w;
  int32_t rows = d->in[0], columns = d->in[1];
  size_t channels = (size_t)c.in_c, pixels = (size_t)rows * (size_t)columns;
  size_t taps = (size_t)d->taps[0] * (size_t)d->taps[1];
  size_t blocks = (channels + EL_PLANES - 1) / EL_PLANES, begin, end;
  float *plane = (float *)call->scratch, *weights = plane + pixels * EL_PLANES;
  el_range(call, (size_t)c.batch * blocks, 1, &begin, &end);
  for (size_t block = begin; block < end; block++) {
    size_t first = block % blocks * EL_PLANES;
    size_t count = channels - first < EL_PLANES ? channels - first : EL_PLANES;
    size_t image = block / blocks * pixels * channels + first;
    float *y = el_f32(yt) + image;
    set_aside(plane, el_cf32(xt) + image, pixels, channels, 1, count);
    set_aside(weights, el_cf32(wt) + first * taps, taps, 1, taps, count);
    for (int32_t row = 0; row < rows; row++) {
      for (int32_t column = 0; column < columns; column++, y += channels) {
        float sum[EL_PLANES] = {0};
        const float *w = weights;
        for (int32_t ky = 0; ky < d->taps[0]; ky++) {
          int32_t iy = place(d, 0, row, ky, flip);
          if (iy < 0 || iy >= rows) {
            w += (size_t)d->taps[1] * EL_PLANES;
            continue;
          }
          for (int32_t kx = 0; kx < d->taps[1]; kx++, w += EL_PLANES) {
            int32_t ix = place(d, 1, column, kx, flip);
            if (ix < 0 || ix >= columns) continue;
            const float *v = plane + ((size_t)iy * (size_t)columns + (size_t)ix) * EL_PLANES;
            for (size_t j = 0; j < EL_PLANES; j++) sum[j] += v[j] * w[j];
          }
        }
        for (size_t j = 0; j < count; j++) {
          y[j] = el_finish(sum[j], &p, bias != NULL ? bias[first + j] : 0.0f, 0.0f);
        }
      }
    }
  }
}
