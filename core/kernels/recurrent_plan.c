/* What LSTM and GRU need. */
#include "linalg_plan.h"

/* Sizes shared by the operands of a call, taken from the states [s, b, h]. */
typedef struct sizes {
  int32_t s, b, h;
} sizes;

static int shaped(const el_tensor *t, int32_t a, int32_t b, int32_t c) {
  return el_array(t, 3, 3) && t->dims[0] == a && t->dims[1] == b && t->dims[2] == c;
}

static int flat(const el_tensor *t, int32_t a, int32_t b) {
  return el_array(t, 2, 2) && t->dims[0] == a && t->dims[1] == b;
}

/* Reads the sizes; gates times h must still be a dimension. */
static int read(const el_tensor *states, int32_t gates, sizes *z) {
  if (!el_array(states, 3, 3) || states->dims[2] > INT32_MAX / gates) return 0;
  *z = (sizes){states->dims[0], states->dims[1], states->dims[2]};
  return 1;
}

static int flag(el_word w) { return w.i == 0 || w.i == 1; }

/* Scratch of c[rows, n] = a[rows, k] op(r), for the larger and the smaller chunk of rows. */
static uint64_t scratch_of(size_t rows, size_t n, size_t k, size_t a_row, size_t c_row, size_t h,
                           int transposed, el_isa isa) {
  el_product p = {.m = rows,
                  .n = n,
                  .k = k,
                  .a_row = a_row,
                  .a_col = 1,
                  .b_row = transposed ? 1 : h,
                  .b_col = transposed ? h : 1,
                  .c_row = c_row,
                  .c_col = 1};
  return el_product_scratch(&p, isa);
}

static el_status needs(const sizes *z, size_t gates, int backward, el_isa isa, el_need *need) {
  size_t h = (size_t)z->h, w = gates * h, b = (size_t)z->b;
  uint64_t work = (uint64_t)z->s * b * w * h;
  uint32_t chunks = el_cut_products(work);
  if (chunks > b) chunks = (uint32_t)b;
  uint64_t most = 0;
  for (size_t rows = b / chunks; rows <= (b + chunks - 1) / chunks; rows++) {
    /* Every product of a kernel: all gates, all but the last, the last alone. */
    for (size_t part = 1; part <= gates; part++) {
      size_t n = part * h;
      for (size_t wide = h; wide <= w; wide += w - h) {
        uint64_t s = backward ? scratch_of(rows, h, n, wide, h, h, 0, isa)
                              : scratch_of(rows, n, h, h, wide, h, 1, isa);
        if (s > most) most = s;
        if (w == h) break;
      }
    }
  }
  el_status status = el_needs(need, work, most);
  need->chunks = chunks;
  need->outputs = 3;
  return status;
}

el_plan el_plan_lstm, el_plan_lstm_grad, el_plan_gru, el_plan_gru_grad;

el_status el_plan_lstm(const el_call *call, el_isa isa, el_need *need) {
  const el_tensor *t = call->t;
  sizes z;
  if (call->n != 7 || call->n_attr != 1 || !flag(call->attr[0]) || !read(&t[5], 4, &z) ||
      !shaped(&t[0], z.s, z.b, 4 * z.h) || !flat(&t[1], 4 * z.h, z.h) || !flat(&t[2], z.b, z.h) ||
      !flat(&t[3], z.b, z.h) || !shaped(&t[4], z.s, z.b, 4 * z.h) ||
      !shaped(&t[6], z.s, z.b, z.h)) {
    return EL_E_MISMATCH;
  }
  return needs(&z, 4, 0, isa, need);
}

el_status el_plan_lstm_grad(const el_call *call, el_isa isa, el_need *need) {
  const el_tensor *t = call->t;
  sizes z;
  if (call->n != 9 || call->n_attr != 1 || !flag(call->attr[0]) || !read(&t[3], 4, &z) ||
      (el_has(&t[0]) && !shaped(&t[0], z.s, z.b, z.h)) ||
      (el_has(&t[1]) && !shaped(&t[1], z.s, z.b, z.h)) || !shaped(&t[2], z.s, z.b, 4 * z.h) ||
      !flat(&t[4], 4 * z.h, z.h) || !flat(&t[5], z.b, z.h) || !shaped(&t[6], z.s, z.b, 4 * z.h) ||
      !flat(&t[7], z.b, z.h) || !flat(&t[8], z.b, z.h)) {
    return EL_E_MISMATCH;
  }
  return needs(&z, 4, 1, isa, need);
}

static int gru_words(const el_call *call, uint32_t n) {
  return call->n == n && call->n_attr == 2 && flag(call->attr[0]) && flag(call->attr[1]);
}

el_status el_plan_gru(const el_call *call, el_isa isa, el_need *need) {
  const el_tensor *t = call->t;
  sizes z;
  if (!gru_words(call, 7) || !read(&t[5], 3, &z) || !shaped(&t[0], z.s, z.b, 3 * z.h) ||
      !flat(&t[1], 3 * z.h, z.h) || !el_optional(call, 2, NULL, 3 * z.h) ||
      !flat(&t[3], z.b, z.h) || !shaped(&t[4], z.s, z.b, 3 * z.h) ||
      !shaped(&t[6], z.s, z.b, z.h)) {
    return EL_E_MISMATCH;
  }
  return needs(&z, 3, 0, isa, need);
}

el_status el_plan_gru_grad(const el_call *call, el_isa isa, el_need *need) {
  const el_tensor *t = call->t;
  sizes z;
  if (!gru_words(call, 9) || !read(&t[2], 3, &z) || !shaped(&t[0], z.s, z.b, z.h) ||
      !shaped(&t[1], z.s, z.b, 3 * z.h) || !shaped(&t[3], z.s, z.b, z.h) ||
      !flat(&t[4], 3 * z.h, z.h) || !flat(&t[5], z.b, z.h) || !shaped(&t[6], z.s, z.b, 3 * z.h) ||
      !shaped(&t[7], z.s, z.b, z.h) || !flat(&t[8], z.b, z.h)) {
    return EL_E_MISMATCH;
  }
  return needs(&z, 3, 1, isa, need);
}
