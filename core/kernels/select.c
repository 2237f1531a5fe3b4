/* Comparisons, whole-number arithmetic and where, with NumPy broadcasting. A boolean is an i32 of
 * 0 or 1. All operands dense; y may be the memory of an operand that has its type and dims. */
#include "broadcast.h"

typedef uint32_t __attribute__((may_alias)) word;

/* Elements before row `row` of the output in an operand that is aligned to the right. */
static size_t row_offset(const el_tensor *t, const el_tensor *y, size_t row) {
  size_t at = 0;
  for (int32_t i = y->rank - 2; i >= 0; i--) {
    size_t d = (size_t)y->dims[i];
    at += row % d * el_aligned_stride(t, y, i);
    row /= d;
  }
  return at;
}

/* 1, or 0 where the operand's last dim repeats. */
static size_t last_step(const el_tensor *t, const el_tensor *y) {
  return y->rank == 0 ? 0 : el_aligned_stride(t, y, y->rank - 1);
}

static size_t row_length(const el_tensor *y) {
  return y->rank == 0 ? 1 : (size_t)y->dims[y->rank - 1];
}

#define ROW(name, type, expr)                                                                 \
  static void name(const type *pa, size_t sa, const type *pb, size_t sb, int32_t *restrict y, \
                   size_t n) {                                                                \
    EL_INDEPENDENT for (size_t i = 0; i < n; i++) {                                           \
      type a = pa[i * sa], b = pb[i * sb];                                                    \
      y[i] = (expr);                                                                          \
    }                                                                                         \
  }

ROW(equal_f, float, a == b)
ROW(not_equal_f, float, a != b)
ROW(less_f, float, a < b)
ROW(less_equal_f, float, a <= b)
ROW(equal_i, int32_t, a == b)
ROW(not_equal_i, int32_t, a != b)
ROW(less_i, int32_t, a < b)
ROW(less_equal_i, int32_t, a <= b)

/* a op b, equal modulo 2^32 */
#define WRAP(op) (int32_t)((uint32_t)a op(uint32_t) b)

/* Towards zero; 0 where the divisor is 0; the one quotient that does not fit wraps. */
static int32_t divide(int32_t a, int32_t b) {
  if (b == 0) return 0;
  return b == -1 ? (int32_t)(0u - (uint32_t)a) : a / b;
}

#undef ROW
#define ROW(name, expr)                                                                    \
  static void name(const int32_t *pa, size_t sa, const int32_t *pb, size_t sb, int32_t *y, \
                   size_t n) {                                                             \
    EL_INDEPENDENT for (size_t i = 0; i < n; i++) {                                        \
      int32_t a = pa[i * sa], b = pb[i * sb];                                              \
      y[i] = (expr);                                                                       \
    }                                                                                      \
  }

ROW(add_i, WRAP(+))
ROW(sub_i, WRAP(-))
ROW(mul_i, WRAP(*))
ROW(max_i, a > b ? a : b)
ROW(min_i, a < b ? a : b)
ROW(and_i, WRAP(&))
ROW(or_i, WRAP(|))
ROW(xor_i, WRAP(^))
ROW(div_i, divide(a, b))

typedef void float_row(const float *, size_t, const float *, size_t, int32_t *, size_t);
typedef void int_row(const int32_t *, size_t, const int32_t *, size_t, int32_t *, size_t);

static void each_row(const el_call *call, float_row *of_floats, int_row *of_ints) {
  const el_tensor *a = &call->t[0], *b = &call->t[1], *y = &call->t[2];
  size_t n = row_length(y), row, end;
  el_range(call, el_size(y) / n, 1, &row, &end);
  for (; row < end; row++) {
    size_t pa = row_offset(a, y, row), pb = row_offset(b, y, row);
    int32_t *to = (int32_t *)y->data + row * n;
    if (a->dtype == EL_F32)
      of_floats(el_cf32(a) + pa, last_step(a, y), el_cf32(b) + pb, last_step(b, y), to, n);
    else
      of_ints(el_ci32(a) + pa, last_step(a, y), el_ci32(b) + pb, last_step(b, y), to, n);
  }
}

/* a, b (both f32 or both i32) -> y i32; attr: kind */
EL_KERNEL(compare) {
  static float_row *const floats[] = {equal_f, not_equal_f, less_f, less_equal_f};
  static int_row *const ints[] = {equal_i, not_equal_i, less_i, less_equal_i};
  int32_t kind = call->attr[0].i;
  each_row(call, floats[kind], ints[kind]);
}

/* a, b i32 -> y i32; attr: kind */
EL_KERNEL(integer) {
  static int_row *const ints[] = {add_i, sub_i, mul_i, max_i, min_i, and_i, or_i, xor_i, div_i};
  each_row(call, equal_f, ints[call->attr[0].i]);
}

/* c i32, a, b -> y = c != 0 ? a : b */
EL_KERNEL(where) {
  const el_tensor *c = &call->t[0], *a = &call->t[1], *b = &call->t[2], *y = &call->t[3];
  size_t n = row_length(y), row, end;
  size_t sc = last_step(c, y), sa = last_step(a, y), sb = last_step(b, y);
  el_range(call, el_size(y) / n, 1, &row, &end);
  for (; row < end; row++) {
    const int32_t *pc = el_ci32(c) + row_offset(c, y, row);
    const word *pa = (const word *)a->data + row_offset(a, y, row);
    const word *pb = (const word *)b->data + row_offset(b, y, row);
    word *to = (word *)y->data + row * n;
    EL_INDEPENDENT for (size_t i = 0; i < n; i++) {
      word from_a = pa[i * sa], from_b = pb[i * sb];
      to[i] = pc[i * sc] != 0 ? from_a : from_b;
    }
  }
}

typedef struct lines {
  size_t outer, dim, inner;
} lines;

static lines along(const el_tensor *t, int32_t axis) {
  lines x = {1, (size_t)t->dims[axis], 1};
  for (int32_t i = 0; i < axis; i++) x.outer *= (size_t)t->dims[i];
  for (int32_t i = axis + 1; i < t->rank; i++) x.inner *= (size_t)t->dims[i];
  return x;
}

/* x -> y, sums from the first (or last) element on; attr: axis, exclusive, reverse */
EL_KERNEL(cumsum) {
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  lines d = along(x, call->attr[0].i);
  int exclusive = call->attr[1].i, reverse = call->attr[2].i;
  size_t line, end;
  el_range(call, d.outer * d.inner, 1, &line, &end);
  for (; line < end; line++) {
    size_t first = line / d.inner * d.dim * d.inner + line % d.inner;
    float sum = 0.0f;
    uint32_t count = 0;
    for (size_t k = 0; k < d.dim; k++) {
      size_t at = first + (reverse ? d.dim - 1 - k : k) * d.inner;
      if (x->dtype == EL_F32) {
        float before = sum;
        sum += el_cf32(x)[at];
        el_f32(y)[at] = exclusive ? before : sum;
      } else {
        uint32_t before = count;
        count += (uint32_t)el_ci32(x)[at];
        ((int32_t *)y->data)[at] = (int32_t)(exclusive ? before : count);
      }
    }
  }
}

/* x -> y i32, the position of the largest element, the first or the last one of several; NaN is
 * never above another. attr: axis, last */
EL_KERNEL(argmax) {
  const el_tensor *x = &call->t[0], *y = &call->t[1];
  lines d = along(x, call->attr[0].i);
  int last = call->attr[1].i;
  size_t line, end;
  el_range(call, d.outer * d.inner, 1, &line, &end);
  for (; line < end; line++) {
    size_t first = line / d.inner * d.dim * d.inner + line % d.inner, best = 0;
    for (size_t k = 1; k < d.dim; k++) {
      size_t at = first + k * d.inner, top = first + best * d.inner;
      int more =
          x->dtype == EL_F32 ? el_cf32(x)[at] > el_cf32(x)[top] : el_ci32(x)[at] > el_ci32(x)[top];
      int same = x->dtype == EL_F32 ? el_cf32(x)[at] == el_cf32(x)[top]
                                    : el_ci32(x)[at] == el_ci32(x)[top];
      if (more || (same && last)) best = k;
    }
    ((int32_t *)y->data)[line] = (int32_t)best;
  }
}
