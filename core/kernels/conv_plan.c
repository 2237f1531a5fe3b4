/* What convolutions and pools need. */
#include "conv.h"
#include "linalg_plan.h"

static int conv_ok(const el_call *call, const el_tensor *x, const el_tensor *w, const el_tensor *y,
                   el_conv *c) {
  if (!el_array(x, 4, 4) || !el_array(w, 4, 4) || !el_array(y, 4, 4)) return 0;
  *c = el_get_conv(call, x, w, y);
  return el_window_ok(&c->w, call->attr + EL_W_PAD) && c->groups >= 1 && c->in_c % c->groups == 0 &&
         c->out_c % c->groups == 0 && w->dims[3] == c->in_c / c->groups && w->dims[0] == c->out_c &&
         y->dims[0] == c->batch;
}

/* Products: each output element sums over the taps and channels of one weight row. */
static uint64_t conv_work(const el_tensor *w, const el_tensor *y) {
  return (uint64_t)el_size(y) * (uint64_t)(el_size(w) / (size_t)w->dims[0]);
}

el_plan el_plan_conv2d, el_plan_conv2d_dx, el_plan_conv2d_dw, el_plan_max_pool2d,
    el_plan_max_pool2d_grad, el_plan_max_pool2d_tap, el_plan_max_pool2d_tap_grad,
    el_plan_avg_pool2d, el_plan_avg_pool2d_grad, el_plan_depthwise_plane;

el_status el_plan_conv2d(const el_call *call, el_isa isa, el_need *need) {
  if (call->n < 3 || call->n > 5 || call->n_attr != EL_W_END + 3) return EL_E_MISMATCH;
  const el_tensor *w = &call->t[1], *y = &call->t[call->n - 1];
  el_conv c;
  if (!conv_ok(call, &call->t[0], w, y, &c) || !el_optional(call, 2, NULL, c.out_c) ||
      !el_optional(call, 3, y, 0) || !el_act_ok(call->attr[EL_W_END + 2].i)) {
    return EL_E_MISMATCH;
  }
  return el_needs(need, conv_work(w, y), el_conv_scratch(&c, isa));
}

el_status el_plan_conv2d_dx(const el_call *call, el_isa isa, el_need *need) {
  if (call->n < 3 || call->n > 4 || call->n_attr != EL_W_END + 4) return EL_E_MISMATCH;
  const el_tensor *w = &call->t[1], *dx = &call->t[call->n - 1];
  el_conv c;
  if (!conv_ok(call, dx, w, &call->t[0], &c) || !el_optional(call, 2, dx, 0) ||
      call->attr[EL_W_END + 2].i != dx->dims[1] || call->attr[EL_W_END + 3].i != dx->dims[2]) {
    return EL_E_MISMATCH;
  }
  return el_needs(need, conv_work(w, &call->t[0]), el_conv_dx_scratch(&c, isa));
}

el_status el_plan_conv2d_dw(const el_call *call, el_isa isa, el_need *need) {
  if (call->n < 3 || call->n > 4 || call->n_attr != EL_W_END + 4) return EL_E_MISMATCH;
  const el_tensor *dw = &call->t[call->n - 1];
  el_conv c;
  if (!conv_ok(call, &call->t[1], dw, &call->t[0], &c) || !el_optional(call, 2, dw, 0) ||
      call->attr[EL_W_END + 2].i != dw->dims[1] || call->attr[EL_W_END + 3].i != dw->dims[2]) {
    return EL_E_MISMATCH;
  }
  uint64_t work = conv_work(dw, &call->t[0]);
  return el_needs(need, work, el_conv_dw_scratch(&c, el_cut_products(work), isa));
}

el_status el_plan_depthwise_plane(const el_call *call, el_isa isa, el_need *need) {
  if (call->n < 3 || call->n > 4 || call->n_attr != EL_W_END + 4) return EL_E_MISMATCH;
  const el_tensor *x = &call->t[0], *w = &call->t[1], *y = &call->t[call->n - 1];
  const el_word *a = call->attr;
  el_conv c;
  if (!conv_ok(call, x, w, y, &c) || !el_same_dims(x, y) || c.groups != c.in_c ||
      a[EL_W_STRIDE].i != 1 || a[EL_W_STRIDE + 1].i != 1 || !el_optional(call, 2, NULL, c.out_c) ||
      !el_act_ok(a[EL_W_END + 2].i) || (a[EL_W_END + 3].i != 0 && a[EL_W_END + 3].i != 1)) {
    return EL_E_MISMATCH;
  }
  uint64_t pixels = (uint64_t)c.w.in[0] * (uint64_t)c.w.in[1];
  uint64_t taps = (uint64_t)c.w.taps[0] * (uint64_t)c.w.taps[1];
  uint64_t aside =
      isa == EL_ISA_REF ? (pixels + taps) * EL_PLANES : (2 * pixels + taps + 1) * EL_PLANES_VEC;
  return el_needs(need, conv_work(w, y), aside * sizeof(float));
}

/* Pools: the words after the window are kernel[2] and, for averages, the count rule and the part
 * of the padding (bottom, right) that is never counted. */
static el_status pool(const el_call *call, const el_tensor *x, const el_tensor *y, uint32_t words,
                      el_need *need) {
  if (call->n_attr != words || !el_array(x, 4, 4) || !el_array(y, 4, 4)) return EL_E_MISMATCH;
  if (x->dims[0] != y->dims[0] || x->dims[3] != y->dims[3]) return EL_E_MISMATCH;
  el_window w = el_get_window(call, x, y, call->attr[EL_W_END].i, call->attr[EL_W_END + 1].i);
  if (!el_window_ok(&w, call->attr + EL_W_PAD)) return EL_E_MISMATCH;
  if ((int64_t)w.taps[0] * w.taps[1] > (1 << 24)) return EL_E_MISMATCH; /* counted in floats */
  need->chunks = el_cut((size_t)x->dims[0], el_size(x));
  need->scratch = 0;
  need->outputs = 1;
  return EL_OK;
}

static int average_ok(const el_call *call) {
  const el_word *a = call->attr + EL_W_END + 2;
  return (a[0].i == 0 || a[0].i == 1) && a[1].i >= 0 && a[2].i >= 0 &&
         a[1].i <= call->attr[EL_W_PAD + 2].i && a[2].i <= call->attr[EL_W_PAD + 3].i;
}

el_status el_plan_max_pool2d(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n != 2) return EL_E_MISMATCH;
  return pool(call, &call->t[0], &call->t[1], EL_W_END + 2, need);
}

el_status el_plan_max_pool2d_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n != 4) return EL_E_MISMATCH;
  const el_tensor *dy = &call->t[0], *x = &call->t[1], *y = &call->t[2], *dx = &call->t[3];
  if (!el_array(dy, 4, 4) || !el_array(dx, 4, 4) || !el_same_dims(dy, y) || !el_same_dims(dx, x)) {
    return EL_E_MISMATCH;
  }
  return pool(call, x, y, EL_W_END + 2, need);
}

/* A pool whose taps of the maxima are bytes: fewer than 255 a window. */
static el_status tapped(const el_call *call, const el_tensor *x, const el_tensor *tap,
                        uint32_t words, el_need *need) {
  if (!el_plain(tap, EL_U8) || call->n_attr != words) return EL_E_MISMATCH;
  el_tensor y = *tap;
  y.dtype = EL_F32;
  int64_t rows = call->attr[EL_W_END].i, columns = call->attr[EL_W_END + 1].i;
  if (rows < 1 || columns < 1 || rows * columns > 255) return EL_E_MISMATCH;
  return pool(call, x, &y, words, need);
}

el_status el_plan_max_pool2d_tap(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n != 2) return EL_E_MISMATCH;
  return tapped(call, &call->t[0], &call->t[1], EL_W_END + 2, need);
}

el_status el_plan_max_pool2d_tap_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n != 3 || call->n_attr != EL_W_END + 4) return EL_E_MISMATCH;
  const el_tensor *dy = &call->t[0], *tap = &call->t[1], *dx = &call->t[2];
  if (!el_array(dy, 4, 4) || !el_array(dx, 4, 4) || !el_plain(tap, EL_U8) ||
      !el_same_dims(dy, tap) || call->attr[EL_W_END + 2].i != dx->dims[1] ||
      call->attr[EL_W_END + 3].i != dx->dims[2]) {
    return EL_E_MISMATCH;
  }
  return tapped(call, dx, tap, EL_W_END + 4, need);
}

el_status el_plan_avg_pool2d(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n != 2 || call->n_attr != EL_W_END + 5 || !average_ok(call)) return EL_E_MISMATCH;
  return pool(call, &call->t[0], &call->t[1], EL_W_END + 5, need);
}

el_status el_plan_avg_pool2d_grad(const el_call *call, el_isa isa, el_need *need) {
  (void)isa;
  if (call->n != 2 || call->n_attr != EL_W_END + 7 || !average_ok(call)) return EL_E_MISMATCH;
  const el_tensor *dx = &call->t[1];
  if (!el_array(dx, 4, 4) || call->attr[EL_W_END + 5].i != dx->dims[1] ||
      call->attr[EL_W_END + 6].i != dx->dims[2]) {
    return EL_E_MISMATCH;
  }
  return pool(call, dx, &call->t[0], EL_W_END + 7, need);
}
