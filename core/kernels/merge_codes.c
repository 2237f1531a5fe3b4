/* A low-rank update merged into int8 codes, rounded anew: for each row
 *   w[l] = codes[l] * scale + sum_r (alpha * b[r]) * a[r, l]   (r in order)
 *   scale' = max |w| / 127, codes'[l] = w[l] / scale' to the nearest integer, ties to even.
 * A row whose largest magnitude is below 2^-100 is zeros with scale 1; one with an element that is
 * not finite has the scale NaN. The row is computed twice, so that no f32 row is kept. */
#include "lanes.h"
#include "kernel.h"

#define EL_ROUND 12582912.0f

enum { BLOCK = 64 };

typedef struct row {
  const int8_t *codes;
  const float *b, *a;
  float scale, alpha;
  size_t rank, k;
} row;

static void merged(const row *m, size_t at, size_t n, float *restrict w) {
  for (size_t l = 0; l < n; l++) w[l] = (float)m->codes[at + l] * m->scale;
  for (size_t r = 0; r < m->rank; r++) {
    float c = m->alpha * m->b[r];
    const float *a = m->a + r * m->k + at;
    for (size_t l = 0; l < n; l++) w[l] += c * a[l];
  }
}

/* codes i8 [n, k], scale [n, 1], b [n, r], a [r, k] -> codes i8 [n, k], scale [n, 1]; attr: alpha
 */
EL_KERNEL(merge_codes) {
  const el_tensor *t = call->t;
  size_t k = (size_t)t[0].dims[1], rank = (size_t)t[2].dims[1], i, end;
  el_range(call, (size_t)t[0].dims[0], 1, &i, &end);
  for (; i < end; i++) {
    row m = {(const int8_t *)t[0].data + i * k,
             el_cf32(&t[2]) + i * rank,
             el_cf32(&t[3]),
             el_cf32(&t[1])[i],
             call->attr[0].f,
             rank,
             k};
    int8_t *codes = (int8_t *)t[4].data + i * k;
    float w[BLOCK], top = 0.0f;
    for (size_t at = 0; at < k; at += BLOCK) {
      size_t n = k - at < BLOCK ? k - at : BLOCK;
      merged(&m, at, n, w);
      for (size_t l = 0; l < n; l++) top = el_max(el_absf(w[l]), top);
    }
    int fine = top < el_inf(), live = fine && top >= 0x1p-100f;
    float scale = live ? top / 127.0f : 1.0f;
    for (size_t at = 0; at < k; at += BLOCK) {
      size_t n = k - at < BLOCK ? k - at : BLOCK;
      if (live) merged(&m, at, n, w);
      for (size_t l = 0; l < n; l++) {
        float q = live ? (w[l] / scale + EL_ROUND) - EL_ROUND : 0.0f;
        codes[at + l] = (int8_t)(int32_t)el_min(el_max(q, -127.0f), 127.0f);
      }
    }
    el_f32(&t[5])[i] = fine ? scale : el_nan();
  }
}
