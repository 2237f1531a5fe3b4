/* The portable product: plain sums in order; four columns at once so that they overlap. */
#include "product.h"

static void store(const el_product *p, size_t i, size_t j, float sum) {
  size_t at = i * p->c_row + j * p->c_col;
  float v =
      el_finish(sum, p, p->bias != NULL ? p->bias[j] : 0.0f, p->acc != NULL ? p->acc[at] : 0.0f);
  if (p->guard && v - v != 0.0f) return;
  p->c[at] = v;
}

static void rows(const el_product *p, size_t i0, size_t i1, size_t j0, size_t j1) {
  for (size_t i = i0; i < i1; i++) {
    const float *a = p->a + i * p->a_row;
    size_t j = j0;
    for (; j + 4 <= j1; j += 4) {
      const float *b = p->b + j * p->b_col;
      float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
      for (size_t l = 0; l < p->k; l++) {
        float v = a[l * p->a_col];
        const float *w = b + l * p->b_row;
        s0 += v * w[0];
        s1 += v * w[p->b_col];
        s2 += v * w[2 * p->b_col];
        s3 += v * w[3 * p->b_col];
      }
      store(p, i, j, s0);
      store(p, i, j + 1, s1);
      store(p, i, j + 2, s2);
      store(p, i, j + 3, s3);
    }
    for (; j < j1; j++) {
      const float *b = p->b + j * p->b_col;
      float s = 0.0f;
      for (size_t l = 0; l < p->k; l++) s += a[l * p->a_col] * b[l * p->b_row];
      store(p, i, j, s);
    }
  }
}

void EL_K(product)(const el_product *p, void *scratch, uint32_t chunk, uint32_t chunks) {
  (void)scratch;
  size_t begin, end;
  if (p->m >= p->n) {
    el_part(p->m, 1, chunk, chunks, &begin, &end);
    rows(p, begin, end, 0, p->n);
  } else {
    el_part(p->n, 4, chunk, chunks, &begin, &end);
    rows(p, 0, p->m, begin, end);
  }
}
