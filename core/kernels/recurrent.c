/* LSTM and GRU over all time steps; the products with the inputs were made before. Every operand is
 * dense; steps are [s], rows of the batch [b], hidden units [h]; gates in ONNX's order.
 *
 *   lstm       xw[s,b,4h] r[4h,h] h0[b,h] c0[b,h]    -> gates[s,b,4h] y[s,b,h] cells[s,b,h]
 *   lstm_grad  dy?[s,b,h] dcells?[s,b,h] gates cells r c0 -> dxw[s,b,4h] dh0[b,h] dc0[b,h]
 *   gru        xw[s,b,3h] r[3h,h] rb?[3h] h0[b,h]    -> gates[s,b,3h] y[s,b,h] inner[s,b,h]
 *   gru_grad   dy[s,b,h] gates y inner r h0          -> dxw[s,b,3h] dinner[s,b,h] dh0[b,h]
 *
 * attr: reverse (steps run from the last one), for gru also before (linear_before_reset). gates may
 * be xw's memory, dxw that of gates. Chunks are of batch rows.
 */
#include "product.h"
#include "math.h"

typedef struct span {
  size_t steps, batch, units; /* whole sizes */
  size_t row, rows;           /* this chunk's part of the batch */
  int reverse;
} span;

static span span_of(const el_call *call, const el_tensor *states) {
  span s = {(size_t)states->dims[0], (size_t)states->dims[1], (size_t)states->dims[2], 0, 0,
            call->attr[0].i};
  size_t end;
  el_range(call, s.batch, 1, &s.row, &end);
  s.rows = end - s.row;
  return s;
}

/* Offset of this chunk's rows of step t in a tensor [s, b, width]. */
static size_t at(const span *s, size_t t, size_t width) { return (t * s->batch + s->row) * width; }

/* The k-th step to run, and the one before it. */
static size_t step(const span *s, size_t k) { return s->reverse ? s->steps - 1 - k : k; }

/* State before the k-th step: what the step before it left, or the initial one. */
static const float *before(const span *s, size_t k, const float *states, const float *initial) {
  return k == 0 ? initial + s->row * s->units : states + at(s, step(s, k - 1), s->units);
}

/* c[rows, n] = a[rows, k] op(r) + bias + acc, rows of c and acc `width` apart */
static void multiply(const el_call *call, const span *s, const float *a, size_t a_row, size_t k,
                     const float *r, int transposed, size_t n, float *c, size_t width,
                     const float *bias, const float *acc) {
  el_product p = {
      .m = s->rows,
      .n = n,
      .k = k,
      .a = a,
      .a_row = a_row,
      .a_col = 1,
      .b = r,
      .b_row = transposed ? 1 : s->units,
      .b_col = transposed ? s->units : 1,
      .c = c,
      .c_row = width,
      .c_col = 1,
      .bias = bias,
      .acc = acc,
      .alpha = 1.0f,
      .keep = 1.0f,
  };
  EL_K(product)(&p, call->scratch, 0, 1);
}

EL_KERNEL(lstm) {
  span s = span_of(call, &call->t[5]);
  const float *xw = el_cf32(&call->t[0]), *r = el_cf32(&call->t[1]);
  float *gates = el_f32(&call->t[4]), *y = el_f32(&call->t[5]), *cells = el_f32(&call->t[6]);
  size_t h = s.units;
  if (s.rows == 0) return;
  for (size_t k = 0; k < s.steps; k++) {
    size_t t = step(&s, k);
    const float *state = before(&s, k, y, el_cf32(&call->t[2]));
    const float *cell = before(&s, k, cells, el_cf32(&call->t[3]));
    float *z = gates + at(&s, t, 4 * h);
    multiply(call, &s, state, h, h, r, 1, 4 * h, z, 4 * h, NULL, xw + at(&s, t, 4 * h));
    for (size_t row = 0; row < s.rows; row++) {
      float *i = z + row * 4 * h, *o = i + h, *f = o + h, *g = f + h;
      const float *c = cell + row * h;
      float *new_c = cells + at(&s, t, h) + row * h, *new_h = y + at(&s, t, h) + row * h;
      for (size_t j = 0; j < h; j++) {
        i[j] = el_sigmoidf(i[j]);
        o[j] = el_sigmoidf(o[j]);
        f[j] = el_sigmoidf(f[j]);
        g[j] = el_tanhf(g[j]);
        new_c[j] = f[j] * c[j] + i[j] * g[j];
        new_h[j] = o[j] * el_tanhf(new_c[j]);
      }
    }
  }
}

static void clear(float *x, size_t n) {
  for (size_t i = 0; i < n; i++) x[i] = 0.0f;
}

/* dh0 and dc0 hold what flows back into the step that is undone next. */
EL_KERNEL(lstm_grad) {
  span s = span_of(call, &call->t[3]);
  const float *dy = el_has(&call->t[0]) ? el_cf32(&call->t[0]) : NULL;
  const float *dcells = el_has(&call->t[1]) ? el_cf32(&call->t[1]) : NULL;
  const float *gates = el_cf32(&call->t[2]), *cells = el_cf32(&call->t[3]);
  const float *r = el_cf32(&call->t[4]);
  size_t h = s.units;
  float *dxw = el_f32(&call->t[6]);
  float *dh = el_f32(&call->t[7]) + s.row * h, *dc = el_f32(&call->t[8]) + s.row * h;
  if (s.rows == 0) return;
  clear(dh, s.rows * h);
  clear(dc, s.rows * h);
  for (size_t k = s.steps; k-- > 0;) {
    size_t t = step(&s, k), first = at(&s, t, h);
    const float *cell = before(&s, k, cells, el_cf32(&call->t[5]));
    float *dz = dxw + at(&s, t, 4 * h);
    for (size_t row = 0; row < s.rows; row++) {
      const float *gate = gates + at(&s, t, 4 * h) + row * 4 * h;
      float *to = dz + row * 4 * h;
      for (size_t j = 0; j < h; j++) {
        size_t n = row * h + j;
        float i = gate[j], o = gate[h + j], f = gate[2 * h + j], g = gate[3 * h + j];
        float tanh_c = el_tanhf(cells[first + n]);
        float d = dh[n] + (dy != NULL ? dy[first + n] : 0.0f);
        float e = dc[n] + (dcells != NULL ? dcells[first + n] : 0.0f);
        e = e + d * o * (1.0f - tanh_c * tanh_c);
        to[j] = e * g * (i * (1.0f - i));
        to[h + j] = d * tanh_c * (o * (1.0f - o));
        to[2 * h + j] = e * cell[n] * (f * (1.0f - f));
        to[3 * h + j] = e * i * (1.0f - g * g);
        dc[n] = e * f;
      }
    }
    multiply(call, &s, dz, 4 * h, 4 * h, r, 0, h, dh, h, NULL, NULL);
  }
}

EL_KERNEL(gru) {
  span s = span_of(call, &call->t[5]);
  const float *xw = el_cf32(&call->t[0]), *r = el_cf32(&call->t[1]);
  const float *rb = el_has(&call->t[2]) ? el_cf32(&call->t[2]) : NULL;
  float *gates = el_f32(&call->t[4]), *y = el_f32(&call->t[5]), *inner = el_f32(&call->t[6]);
  size_t h = s.units, w = 3 * h;
  int linear_before = call->attr[1].i;
  const float *last_b = rb == NULL ? NULL : rb + 2 * h, *last_r = r + 2 * h * h;
  if (s.rows == 0) return;
  for (size_t k = 0; k < s.steps; k++) {
    size_t t = step(&s, k);
    const float *state = before(&s, k, y, el_cf32(&call->t[3]));
    const float *x = xw + at(&s, t, w);
    float *z = gates + at(&s, t, w), *in = inner + at(&s, t, h);
    multiply(call, &s, state, h, h, r, 1, 2 * h, z, w, rb, x);
    for (size_t row = 0; row < s.rows; row++) {
      for (size_t j = 0; j < 2 * h; j++) z[row * w + j] = el_sigmoidf(z[row * w + j]);
    }
    if (linear_before) {
      multiply(call, &s, state, h, h, last_r, 1, h, in, h, last_b, NULL);
      for (size_t row = 0; row < s.rows; row++) {
        for (size_t j = 0; j < h; j++)
          z[row * w + 2 * h + j] = x[row * w + 2 * h + j] + z[row * w + h + j] * in[row * h + j];
      }
    } else {
      for (size_t row = 0; row < s.rows; row++) {
        for (size_t j = 0; j < h; j++) in[row * h + j] = z[row * w + h + j] * state[row * h + j];
      }
      multiply(call, &s, in, h, h, last_r, 1, h, z + 2 * h, w, last_b, x + 2 * h);
    }
    for (size_t row = 0; row < s.rows; row++) {
      float *u = z + row * w, *n = u + 2 * h;
      for (size_t j = 0; j < h; j++) {
        n[j] = el_tanhf(n[j]);
        y[at(&s, t, h) + row * h + j] = (1.0f - u[j]) * n[j] + u[j] * state[row * h + j];
      }
    }
  }
}

/* dinner: the gradient of inner, which is h r + rb of the last gate, or (reset first) reset * h. */
EL_KERNEL(gru_grad) {
  span s = span_of(call, &call->t[2]);
  const float *dy = el_cf32(&call->t[0]), *gates = el_cf32(&call->t[1]), *y = el_cf32(&call->t[2]);
  const float *inner = el_cf32(&call->t[3]), *r = el_cf32(&call->t[4]);
  size_t h = s.units, w = 3 * h;
  int linear_before = call->attr[1].i;
  float *dxw = el_f32(&call->t[6]), *dinner = el_f32(&call->t[7]);
  float *dh = el_f32(&call->t[8]) + s.row * h;
  if (s.rows == 0) return;
  clear(dh, s.rows * h);
  for (size_t k = s.steps; k-- > 0;) {
    size_t t = step(&s, k), first = at(&s, t, h);
    const float *state = before(&s, k, y, el_cf32(&call->t[5]));
    const float *gate = gates + at(&s, t, w);
    float *dz = dxw + at(&s, t, w), *din = dinner + first;
    /* The reset gate waits in dz's middle until its gradient is known. */
    for (size_t row = 0; row < s.rows; row++) {
      for (size_t j = 0; j < h; j++) {
        size_t n = row * h + j, at_z = row * w + j;
        float z = gate[at_z], reset = gate[at_z + h], new = gate[at_z + 2 * h];
        float d = dh[n] + dy[first + n];
        dz[at_z] = d * (state[n] - new) * (z * (1.0f - z));
        dz[at_z + h] = reset;
        dz[at_z + 2 * h] = d * (1.0f - z) * (1.0f - new *new);
        dh[n] = d * z;
      }
    }
    if (!linear_before)
      multiply(call, &s, dz + 2 * h, w, h, r + 2 * h * h, 0, h, din, h, NULL, NULL);
    for (size_t row = 0; row < s.rows; row++) {
      for (size_t j = 0; j < h; j++) {
        size_t n = row * h + j, at_z = row * w + j;
        float reset = dz[at_z + h], turn = reset * (1.0f - reset);
        if (linear_before) {
          din[n] = dz[at_z + 2 * h] * reset;
          dz[at_z + h] = dz[at_z + 2 * h] * inner[first + n] * turn;
        } else {
          dh[n] += din[n] * reset;
          dz[at_z + h] = din[n] * state[n] * turn;
        }
      }
    }
    multiply(call, &s, dz, w, 2 * h, r, 0, h, dh, h, NULL, dh);
    if (linear_before) multiply(call, &s, din, h, h, r + 2 * h * h, 0, h, dh, h, NULL, dh);
  }
}
