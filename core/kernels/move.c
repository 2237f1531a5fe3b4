/* Data movement: copies between strided views, padding, joining, looking up rows. Elements are
 * 4-byte words (f32 or i32). Outputs dense; chunks are of output rows (all dims but the last). */
#include "kernel.h"

typedef uint32_t __attribute__((may_alias)) word;

/* Output dims, innermost first, and the step in the input that each one takes. */
typedef struct walk {
  int32_t rank;
  size_t dims[EL_RANK + 1];
  ptrdiff_t step[EL_RANK + 1];
} walk;

/* Dimensions of size 1 vanish, those that the input steps through as one become one. */
static void walk_add(walk *w, size_t dim, ptrdiff_t step) {
  if (dim == 1) return;
  if (w->rank > 0 && step == w->step[w->rank - 1] * (ptrdiff_t)w->dims[w->rank - 1]) {
    w->dims[w->rank - 1] *= dim;
  } else {
    w->dims[w->rank] = dim;
    w->step[w->rank++] = step;
  }
}

static ptrdiff_t walk_offset(const walk *w, size_t row) {
  ptrdiff_t at = 0;
  for (int32_t k = 1; k < w->rank; k++) {
    at += (ptrdiff_t)(row % w->dims[k]) * w->step[k];
    row /= w->dims[k];
  }
  return at;
}

static void copy_words(word *restrict y, const word *restrict x, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] = x[i];
}

#define TILE 16

/* y [rows, n] from x whose rows lie next to each other: x[r + i * step]. Read in bursts along r. */
static void transpose_rows(word *restrict y, const word *restrict x, size_t rows, size_t n,
                           ptrdiff_t step) {
  for (size_t i = 0; i < n; i += TILE) {
    size_t width = n - i < TILE ? n - i : TILE;
    if (rows == TILE && width == TILE) {
      word tile[TILE * TILE];
      for (size_t j = 0; j < TILE; j++) {
        const word *from = x + (ptrdiff_t)(i + j) * step;
        for (size_t r = 0; r < TILE; r++) tile[j * TILE + r] = from[r];
      }
      for (size_t r = 0; r < TILE; r++) {
        for (size_t j = 0; j < TILE; j++) y[r * n + i + j] = tile[j * TILE + r];
      }
    } else {
      for (size_t j = 0; j < width; j++) {
        const word *from = x + (ptrdiff_t)(i + j) * step;
        for (size_t r = 0; r < rows; r++) y[r * n + i + j] = from[r];
      }
    }
  }
}

static void gather_walk(const el_call *call, const walk *w, const word *x, word *y, size_t size) {
  size_t n = w->dims[0], row, end;
  ptrdiff_t step = w->step[0];
  int across = w->rank > 1 && step != 1 && w->step[1] == 1;
  el_range(call, size / n, across ? TILE : 1, &row, &end);
  while (row < end) {
    const word *from = x + walk_offset(w, row);
    word *to = y + row * n;
    size_t rows = 1;
    if (across) {
      rows = w->dims[1] - row % w->dims[1];
      if (rows > end - row) rows = end - row;
      if (rows > TILE) rows = TILE;
      transpose_rows(to, from, rows, n, step);
    } else if (step == 1) {
      copy_words(to, from, n);
    } else if (step == 0) {
      word value = from[0];
      for (size_t i = 0; i < n; i++) to[i] = value;
    } else {
      for (size_t i = 0; i < n; i++) to[i] = from[(ptrdiff_t)i * step];
    }
    row += rows;
  }
}

static void start(walk *w) {
  w->rank = 0;
  w->dims[0] = 1;
  w->step[0] = 1;
}

/* x may have any strides. */
EL_KERNEL(copy) {
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  walk w;
  start(&w);
  for (int32_t i = y->rank - 1; i >= 0; i--) walk_add(&w, (size_t)y->dims[i], x->strides[i]);
  gather_walk(call, &w, (const word *)x->data, (word *)y->data, el_size(y));
}

/* attr: perm */
EL_KERNEL(transpose) {
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  walk w;
  start(&w);
  for (int32_t i = y->rank - 1; i >= 0; i--)
    walk_add(&w, (size_t)y->dims[i], x->strides[call->attr[i].i]);
  gather_walk(call, &w, (const word *)x->data, (word *)y->data, el_size(y));
}

/* Aligned to the right. */
EL_KERNEL(broadcast_to) {
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  walk w;
  start(&w);
  for (int32_t i = y->rank - 1; i >= 0; i--) {
    int32_t k = i - (y->rank - x->rank);
    walk_add(&w, (size_t)y->dims[i], k < 0 || x->dims[k] == 1 ? 0 : x->strides[k]);
  }
  gather_walk(call, &w, (const word *)x->data, (word *)y->data, el_size(y));
}

/* attr: start of each axis, then step of each axis (negative: backwards) */
EL_KERNEL(slice) {
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  const el_word *first = call->attr, *by = call->attr + EL_RANK;
  const word *from = (const word *)x->data;
  walk w;
  start(&w);
  for (int32_t i = y->rank - 1; i >= 0; i--) {
    from += (ptrdiff_t)first[i].i * x->strides[i];
    walk_add(&w, (size_t)y->dims[i], (ptrdiff_t)by[i].i * x->strides[i]);
  }
  gather_walk(call, &w, from, (word *)y->data, el_size(y));
}

/* y = fill, then y[first::by] = x; one row of y at a time. by NULL: steps of 1. */
static void scatter(const el_call *call, const el_word *first, const el_word *by, word fill) {
  const el_tensor *tx = &call->t[0], *ty = &call->t[1];
  int32_t last = ty->rank - 1;
  size_t n = last < 0 ? 1 : (size_t)ty->dims[last];
  size_t row, end;
  el_range(call, el_size(ty) / n, 1, &row, &end);
  for (; row < end; row++) {
    word *y = (word *)ty->data + row * n;
    const word *x = (const word *)tx->data;
    size_t rest = row;
    int inside = 1;
    for (int32_t i = last - 1; i >= 0; i--) {
      int64_t at = (int64_t)(rest % (size_t)ty->dims[i]) - first[i].i;
      int64_t step = by == NULL ? 1 : by[i].i;
      rest /= (size_t)ty->dims[i];
      if (at % step != 0 || at / step < 0 || at / step >= tx->dims[i])
        inside = 0;
      else
        x += (ptrdiff_t)(at / step) * tx->strides[i];
    }
    for (size_t i = 0; i < n; i++) y[i] = fill;
    if (!inside) continue;
    if (last < 0) {
      y[0] = x[0];
    } else if (by == NULL || by[last].i == 1) {
      copy_words(y + first[last].i, x, (size_t)tx->dims[last]);
    } else {
      for (int32_t i = 0; i < tx->dims[last]; i++)
        y[first[last].i + (ptrdiff_t)i * by[last].i] = x[i];
    }
  }
}

/* attr: elements before each axis (6), elements after (6, not used here), value */
EL_KERNEL(pad) { scatter(call, call->attr, NULL, (word)call->attr[2 * EL_RANK].i); }

/* attr: start, step of each axis: the gradient of slice */
EL_KERNEL(slice_grad) { scatter(call, call->attr, call->attr + EL_RANK, 0); }

/* x0 .. xk -> y; attr: axis */
EL_KERNEL(concat) {
  const el_tensor *y = &call->t[call->n - 1];
  int32_t axis = call->attr[0].i;
  size_t outer = 1, inner = 1, row, end;
  for (int32_t i = 0; i < axis; i++) outer *= (size_t)y->dims[i];
  for (int32_t i = axis + 1; i < y->rank; i++) inner *= (size_t)y->dims[i];
  el_range(call, outer, 1, &row, &end);
  for (; row < end; row++) {
    word *to = (word *)y->data + row * (size_t)y->dims[axis] * inner;
    for (uint32_t k = 0; k + 1 < call->n; k++) {
      size_t n = (size_t)call->t[k].dims[axis] * inner;
      copy_words(to, (const word *)call->t[k].data + row * n, n);
      to += n;
    }
  }
}

/* An index below 0 counts from the end; what is still outside goes to the nearest end, so that no
 * data can lead out of bounds. */
static size_t clamp_index(int32_t index, int32_t dim) {
  int64_t at = index < 0 ? (int64_t)index + dim : index;
  return at < 0 ? 0u : (at >= dim ? (size_t)dim - 1 : (size_t)at);
}

typedef struct table {
  size_t outer, inner, count;
  int32_t dim;
} table;

/* t is the table: the input of gather, the output of gather_grad */
static table table_of(const el_tensor *t, const el_tensor *index, int32_t axis) {
  table g = {1, 1, el_size(index), t->dims[axis]};
  for (int32_t i = 0; i < axis; i++) g.outer *= (size_t)t->dims[i];
  for (int32_t i = axis + 1; i < t->rank; i++) g.inner *= (size_t)t->dims[i];
  return g;
}

/* x, index -> y; attr: axis */
EL_KERNEL(gather) {
  table g = table_of(&call->t[0], &call->t[1], call->attr[0].i);
  const word *x = (const word *)call->t[0].data;
  const int32_t *index = el_ci32(&call->t[1]);
  word *y = (word *)call->t[2].data;
  size_t row, end;
  el_range(call, g.outer * g.count, 1, &row, &end);
  for (; row < end; row++) {
    size_t at = row / g.count * (size_t)g.dim + clamp_index(index[row % g.count], g.dim);
    copy_words(y + row * g.inner, x + at * g.inner, g.inner);
  }
}

/* dy, index -> dx; attr: axis, dim. Rows that share an index add up in the index's order. */
EL_KERNEL(gather_grad) {
  table g = table_of(&call->t[2], &call->t[1], call->attr[0].i);
  const float *dy = el_cf32(&call->t[0]);
  const int32_t *index = el_ci32(&call->t[1]);
  size_t row, end, block = (size_t)g.dim * g.inner;
  el_range(call, g.outer, 1, &row, &end);
  for (; row < end; row++) {
    float *dx = el_f32(&call->t[2]) + row * block;
    for (size_t i = 0; i < block; i++) dx[i] = 0.0f;
    for (size_t k = 0; k < g.count; k++) {
      const float *from = dy + (row * g.count + k) * g.inner;
      float *to = dx + clamp_index(index[k], g.dim) * g.inner;
      EL_INDEPENDENT for (size_t i = 0; i < g.inner; i++) to[i] += from[i];
    }
  }
}

/* Towards zero; what does not fit goes to the nearest end, NaN to 0. */
static int32_t to_int(float x) {
  if (x != x) return 0;
  if (x >= 2147483648.0f) return INT32_MAX;
  return x < -2147483648.0f ? INT32_MIN : (int32_t)x;
}

EL_KERNEL(cast) {
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  size_t i, end;
  el_range(call, el_size(x), 16, &i, &end);
  for (; i < end; i++) {
    float f;
    switch (x->dtype) {
      case EL_I32:
        f = (float)el_ci32(x)[i];
        break;
      case EL_U8:
        f = (float)((const uint8_t *)x->data)[i];
        break;
      default:
        f = el_cf32(x)[i];
        break;
    }
    if (y->dtype == EL_F32)
      el_f32(y)[i] = f;
    else
      ((int32_t *)y->data)[i] = x->dtype == EL_I32 ? el_ci32(x)[i] : to_int(f);
  }
}
