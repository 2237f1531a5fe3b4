/* AdamW and Lion whose moments are codes of 8 bits: block-wise dynamic quantization (Dettmers et
 * al. 2022, "8-bit optimizers via block-wise quantization"). The state of n elements in blocks of
 * 256 is
 *
 *   AdamW   f32 largest |m| of each block, f32 largest v of each, u8 codes of m, u8 codes of v
 *   Lion    f32 largest |m| of each block, u8 codes of m
 *
 * and a code stands for an entry of a fixed map of [-1, 1] (m) or [0, 1] (v), times that largest.
 */
#include "lanes.h"
#include "kernel.h"

#define BLOCK 256
#define DECADES 7

/* What a moment needs of a worker's scratch: the sorted entries of its map, and one block of it. */
typedef struct map {
  float entry[256], block[BLOCK];
} map;

static float power(int decade) {
  static const float powers[DECADES] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
  return powers[decade];
}

/* Point k of `count` + 1 that part [0.1, 1] evenly, counted from the nearer end and rounded once.
 */
static float part(int k, int count) {
  double step = (double)((1.0f - 0.1f) / (float)count);
  return (float)(2 * k < count ? (double)0.1f + step * k : 1.0 - step * (count - k));
}

/* Each decade below 1 has twice the entries of the one below it: the middles of as many parts. */
static void make_map(map *t, int sign) {
  int n = sign ? 128 : 1;
  t->entry[n - 1] = 0.0f;
  for (int d = 0; d < DECADES; d++) {
    int count = sign ? 1 << d : 2 << d;
    for (int k = 0; k < count; k++) {
      t->entry[n] = power(d) * ((part(k, count) + part(k + 1, count)) / 2.0f);
      if (sign) t->entry[254 - n] = -t->entry[n];
      n++;
    }
  }
  t->entry[255] = 1.0f;
}

/* The code of the nearest entry; the upper one of two that are as near. */
static uint8_t code_of(const map *t, float x) {
  int at = 0;
  for (int step = 128; step > 0; step /= 2) {
    float middle = (t->entry[at + step - 1] + t->entry[at + step]) / 2.0f;
    at += x >= middle ? step : 0;
  }
  return (uint8_t)at;
}

static float share(float x, float largest) { return largest > 0.0f ? x / largest : 0.0f; }

/* w, state, g, powers, lr, wd, beta1, beta2, eps, ok -> w', state' (in place) */
EL_KERNEL(adamw8_update) {
  const float *w = el_cf32(&call->t[0]), *g = el_cf32(&call->t[2]);
  const float *powers = el_cf32(&call->t[3]);
  float *w_out = el_f32(&call->t[10]);
  size_t n = el_size(&call->t[0]), blocks = (n + BLOCK - 1) / BLOCK;
  const uint8_t *state = (const uint8_t *)call->t[1].data;
  uint8_t *state_out = (uint8_t *)call->t[11].data;
  const float *top = (const float *)(const void *)state;
  float *top_out = (float *)(void *)state_out;
  const uint8_t *code = state + 8 * blocks;
  uint8_t *code_out = state_out + 8 * blocks;
#define ONLY(i) el_cf32(&call->t[i])[0]
  float lr = ONLY(4), decay = 1.0f - lr * ONLY(5);
  float beta1 = ONLY(6), beta2 = ONLY(7), eps = ONLY(8);
  float rate = lr / (1.0f - powers[0]), root = el_sqrtf(1.0f - powers[1]);
  int ok = el_finite(ONLY(9));
#undef ONLY
  map *first = call->scratch, *second = first + 1;
  float *m = first->block, *v = second->block;
  make_map(first, 1);
  make_map(second, 0);
  size_t b, end;
  el_range(call, blocks, 1, &b, &end);
  for (; b < end; b++) {
    float m_top = 0.0f, v_top = 0.0f;
    size_t from = b * BLOCK, count = n - from < BLOCK ? n - from : BLOCK;
    float m_old = top[b], v_old = top[blocks + b];
    if (!ok) {
      top_out[b] = m_old;
      top_out[blocks + b] = v_old;
      for (size_t at = from; at < from + count; at++) {
        w_out[at] = w[at];
        code_out[at] = code[at];
        code_out[n + at] = code[n + at];
      }
      continue;
    }
    for (size_t i = 0; i < count; i++) {
      size_t at = from + i;
      float m_keep = first->entry[code[at]] * m_old, v_keep = second->entry[code[n + at]] * v_old;
      float m_next = beta1 * m_keep + (1.0f - beta1) * g[at];
      float v_next = beta2 * v_keep + (1.0f - beta2) * (g[at] * g[at]);
      float w_next = w[at] * decay - rate * (m_next / (el_sqrtf(v_next) / root + eps));
      int take = el_finite(m_next) & el_finite(v_next) & el_finite(w_next);
      m[i] = el_pick(take, m_next, m_keep);
      v[i] = el_pick(take, v_next, v_keep);
      w_out[at] = el_pick(take, w_next, w[at]);
      float size = m[i] < 0.0f ? -m[i] : m[i];
      m_top = size > m_top ? size : m_top;
      v_top = v[i] > v_top ? v[i] : v_top;
    }
    top_out[b] = m_top;
    top_out[blocks + b] = v_top;
    for (size_t i = 0; i < count; i++) {
      uint8_t second_code = code_of(second, share(v[i], v_top));
      code_out[from + i] = code_of(first, share(m[i], m_top));
      /* A second moment that is not zero does not become zero: m would be divided by eps alone. */
      code_out[n + from + i] = v[i] > 0.0f && second_code == 0 ? 1 : second_code;
    }
  }
}

/* w, state, g, lr, wd, beta1, beta2, ok -> w', state' (in place): Lion (Chen et al. 2023) */
EL_KERNEL(lion8_update) {
  const float *w = el_cf32(&call->t[0]), *g = el_cf32(&call->t[2]);
  float *w_out = el_f32(&call->t[8]);
  size_t n = el_size(&call->t[0]), blocks = (n + BLOCK - 1) / BLOCK;
  const float *top = (const float *)(const void *)call->t[1].data;
  float *top_out = (float *)call->t[9].data;
  const uint8_t *code = (const uint8_t *)call->t[1].data + 4 * blocks;
  uint8_t *code_out = (uint8_t *)call->t[9].data + 4 * blocks;
  float lr = el_cf32(&call->t[3])[0], decay = 1.0f - lr * el_cf32(&call->t[4])[0];
  float beta1 = el_cf32(&call->t[5])[0], beta2 = el_cf32(&call->t[6])[0];
  int ok = el_finite(el_cf32(&call->t[7])[0]);
  map *table = call->scratch;
  float *m = table->block;
  make_map(table, 1);
  size_t b, end;
  el_range(call, blocks, 1, &b, &end);
  for (; b < end; b++) {
    float m_top = 0.0f;
    size_t from = b * BLOCK, count = n - from < BLOCK ? n - from : BLOCK;
    float m_old = top[b];
    if (!ok) {
      top_out[b] = m_old;
      for (size_t at = from; at < from + count; at++) {
        w_out[at] = w[at];
        code_out[at] = code[at];
      }
      continue;
    }
    for (size_t i = 0; i < count; i++) {
      size_t at = from + i;
      float m_keep = table->entry[code[at]] * m_old;
      float mix = beta1 * m_keep + (1.0f - beta1) * g[at];
      float way = (float)((mix > 0.0f) - (mix < 0.0f));
      float w_next = w[at] * decay - lr * way;
      float m_next = beta2 * m_keep + (1.0f - beta2) * g[at];
      int take = el_finite(m_next) & el_finite(w_next);
      m[i] = el_pick(take, m_next, m_keep);
      w_out[at] = el_pick(take, w_next, w[at]);
      float size = m[i] < 0.0f ? -m[i] : m[i];
      m_top = size > m_top ? size : m_top;
    }
    top_out[b] = m_top;
    for (size_t i = 0; i < count; i++) code_out[from + i] = code_of(table, share(m[i], m_top));
  }
}
