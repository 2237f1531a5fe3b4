/* Sums, means and maxima over any set of axes. Each output is reduced in one written-down order:
 * over the outer reduced indices in row-major order, one after the other; a reduced innermost
 * dimension first becomes one number per row, by lanes.h. */
#include "lanes.h"
#include "reduce.h"

typedef enum mode { SUM, MAX } mode;

/* Outputs [begin, end) of a reduction whose innermost dimension is kept: columns [col, col + len)
 * of one output row, summed over all reduced indices. */
static void columns(const el_reduce *r, const float *x, float *restrict y, size_t len, mode m) {
  for (size_t k = 0; k < r->reduced; k++) {
    const float *row = x + el_reduce_offset(r, k);
    if (k == 0) {
      for (size_t j = 0; j < len; j++) y[j] = row[j];
    } else if (m == SUM) {
      for (size_t j = 0; j < len; j++) y[j] += row[j];
    } else {
      for (size_t j = 0; j < len; j++) y[j] = el_max(row[j], y[j]);
    }
  }
}

static float rows(const el_reduce *r, const float *x, mode m) {
  float total = 0.0f;
  for (size_t k = 0; k < r->reduced; k++) {
    const float *row = x + el_reduce_offset(r, k);
    float part = m == SUM ? el_row_sum(row, r->inner) : el_row_max(row, r->inner);
    total = k == 0 ? part : (m == SUM ? total + part : el_max(part, total));
  }
  return total;
}

static void reduce(const el_call *call, mode m, int mean, uint32_t mask) {
  const el_tensor *tx = &call->t[0], *ty = &call->t[1];
  const float *x = el_cf32(tx);
  float *y = el_f32(ty);
  el_reduce r;
  el_reduce_of(&r, tx, mask);
  size_t begin, end, size = el_size(ty);
  float count = (float)(el_size(tx) / size);
  el_range(call, size, 16, &begin, &end);
  for (size_t i = begin; i < end;) {
    size_t len = 1;
    if (r.inner_kept) {
      size_t col = i % r.inner;
      len = r.inner - col < end - i ? r.inner - col : end - i;
      columns(&r, x + el_keep_offset(&r, i / r.inner) + col, y + i, len, m);
    } else {
      y[i] = rows(&r, x + el_keep_offset(&r, i), m);
    }
    i += len;
  }
  if (mean) {
    for (size_t i = begin; i < end; i++) y[i] /= count;
  }
}

EL_KERNEL(reduce_sum) { reduce(call, SUM, 0, el_axes_mask(call)); }
EL_KERNEL(reduce_mean) { reduce(call, SUM, 1, el_axes_mask(call)); }
EL_KERNEL(reduce_max) { reduce(call, MAX, 0, el_axes_mask(call)); }
EL_KERNEL(sum_to) { reduce(call, SUM, 0, el_shape_mask(&call->t[0], &call->t[1])); }
