/* Products and convolutions over codes with vectors: a block of weights is dequantised into scratch
 * and the f32 product runs over it. Blocks are fixed by shapes, so the bits do not depend on
 * chunks.
 *
 *   qlinear     x[m,k] codes scale? zero? b?[n] acc?[m,n] -> y[m,n]  = act(alpha x w.T + b + acc)
 *   qlinear_dx  dy[m,n] codes scale? zero? acc?[m,k]      -> dx[m,k] = alpha dy w + acc
 *   qconv2d, qconv2d_dx  as conv2d and conv2d_dx, with codes [out, taps * channels]
 */
#include "conv_parts.h"
#include "depthwise.h"
#include "quant.h"
#include "vec.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

static const float *optional(const el_call *call, uint32_t i) {
  return i + 1 < call->n && el_has(&call->t[i]) ? el_cf32(&call->t[i]) : NULL;
}

static size_t last_dim(const el_tensor *t) { return (size_t)t->dims[t->rank - 1]; }

static void *after(float *block, uint64_t floats) {
  return (uint8_t *)block + el_unpacked_bytes(floats);
}

/* This call's share: some blocks, or some rows of every block. */
typedef struct share {
  size_t first, last;
  uint32_t chunk, chunks;
} share;

static share share_of(const el_call *call, const el_code_cut *cut) {
  share s = {.last = cut->blocks, .chunk = call->chunk, .chunks = call->chunks};
  if (cut->by_rows) return s;
  el_part(cut->blocks, 1, call->chunk, call->chunks, &s.first, &s.last);
  s.chunk = 0;
  s.chunks = 1;
  return s;
}

typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));

/* LANES numbers of 8 or 16 bits as 32-bit ones. GCC takes conversions of short vectors apart. */
INLINE ivec widen8(const int8_t *p) {
#if defined(__AVX512F__)
  return (ivec)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
#elif defined(__AVX2__)
  return (ivec)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
#else
  return (ivec){p[0], p[1], p[2], p[3]};
#endif
}

INLINE uvec widen16(const uint16_t *p) {
#if defined(__AVX512F__)
  return (uvec)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
#elif defined(__AVX2__)
  return (uvec)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
#else
  return (uvec){p[0], p[1], p[2], p[3]};
#endif
}

/* el_half for a vector. */
INLINE vec load_halves(const uint16_t *p) {
  uvec u = widen16(p), magnitude = (u & 0x7FFFu) << 13;
  uvec special = (uvec)(magnitude >= 0x0F800000u) & 0x7F800000u;
  uvec bits = (uvec)((vec)magnitude * splat(5.192296858534828e33f)) | special;
  return (vec)(bits | (u & 0x8000u) << 16);
}

INLINE vec load_bf16(const uint16_t *p) { return (vec)(widen16(p) << 16); }

INLINE vec load_codes(const int8_t *p, int32_t zero) {
  return __builtin_convertvector(widen8(p) - zero, vec);
}

INLINE vec load_weights(const int8_t *code, const uint16_t *half, size_t at, int32_t zero,
                        const int32_t kind) {
  if (kind == EL_F16) return load_halves(half + at);
  if (kind == EL_BF16) return load_bf16(half + at);
  return load_codes(code + at, zero);
}

INLINE float total(vec v) {
  float lane[LANES];
  store(lane, v);
  vec4 t = load4(lane);
  for (int i = 4; i < LANES; i += 4) t += load4(lane + i);
  return (t[0] + t[2]) + (t[1] + t[3]);
}

/* sum[r] = row r of x times row j of the codes. m, and u, the vectors of each row that are summed
 * apart so that they overlap, are constants wherever this is inlined; m * u is at most 8. */
INLINE void few(const el_codes *q, const int8_t *code, size_t j, const float *x, float *sum,
                const size_t m, const size_t u, const int32_t kind) {
  size_t k = q->width;
  const int plain = kind == EL_F16 || kind == EL_BF16;
  const uint16_t *half = plain ? (const uint16_t *)q->codes + j * k : NULL;
  vec all[EL_FEW_ROWS];
#pragma GCC unroll 8
  for (size_t r = 0; r < m; r++) {
    all[r] = (vec){0};
    sum[r] = 0.0f;
  }
  for (size_t g = 0, l = 0; g < q->groups; g++) {
    size_t end = k - l < q->group ? k : l + q->group;
    int32_t zero = plain ? 0 : el_zero(q, j, g);
    float scale = plain ? 1.0f : q->scale[j * q->groups + g];
    vec part[EL_FEW_ROWS];
#pragma GCC unroll 8
    for (size_t r = 0; r < m * u; r++) part[r] = (vec){0};
    for (; l + u * LANES <= end; l += u * LANES) {
#pragma GCC unroll 4
      for (size_t y = 0; y < u; y++) {
        size_t at = l + y * LANES;
        vec w = load_weights(code, half, at, zero, kind);
#pragma GCC unroll 8
        for (size_t r = 0; r < m; r++) part[r * u + y] += w * load(x + r * k + at);
      }
    }
    for (; u > 1 && l + LANES <= end; l += LANES) {
      vec w = load_weights(code, half, l, zero, kind);
#pragma GCC unroll 8
      for (size_t r = 0; r < m; r++) part[r * u] += w * load(x + r * k + l);
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < m; r++) {
#pragma GCC unroll 4
      for (size_t y = 1; y < u; y++) part[r * u] += part[r * u + y];
      all[r] += splat(scale) * part[r * u];
    }
    for (; l < end; l++) {
      float w = kind == EL_F16    ? el_half(half[l])
                : kind == EL_BF16 ? el_bf16(half[l])
                                  : (float)(code[l] - zero) * scale;
      for (size_t r = 0; r < m; r++) sum[r] += w * x[r * k + l];
    }
  }
#pragma GCC unroll 8
  for (size_t r = 0; r < m; r++) sum[r] += total(all[r]);
}

INLINE void few_of(const el_codes *q, const int8_t *code, size_t j, const float *x, float *sum,
                   const size_t m, const size_t u) {
  if (q->kind == EL_F16) {
    few(q, code, j, x, sum, m, u, EL_F16);
  } else if (q->kind == EL_BF16) {
    few(q, code, j, x, sum, m, u, EL_BF16);
  } else {
    few(q, code, j, x, sum, m, u, EL_I8);
  }
}

/* y[.., j] for a product of few rows. */
static void few_rows(const el_codes *q, const el_product *p, size_t j, int8_t *row) {
  const int8_t *code = q->kind == EL_I8 ? (const int8_t *)q->codes + j * q->width : NULL;
  if (q->kind == EL_U8) {
    const uint8_t *pair = (const uint8_t *)q->codes + j * ((q->width + 1) / 2);
    el_unpack4(pair, q->width, row);
    code = row;
  }
  float sum[EL_FEW_ROWS];
  size_t done = 0;
  for (; done + 8 <= p->m; done += 8) few_of(q, code, j, p->a + done * p->k, sum + done, 8, 1);
  for (; done + 4 <= p->m; done += 4) few_of(q, code, j, p->a + done * p->k, sum + done, 4, 2);
  for (; done + 2 <= p->m; done += 2) few_of(q, code, j, p->a + done * p->k, sum + done, 2, 4);
  if (done < p->m) few_of(q, code, j, p->a + done * p->k, sum + done, 1, 4);
  for (size_t r = 0; r < p->m; r++) {
    size_t at = r * p->c_row + j;
    p->c[at] = el_finish(sum[r], p, p->bias != NULL ? p->bias[j] : 0.0f,
                         p->acc != NULL ? p->acc[at] : 0.0f);
  }
}

EL_KERNEL(qlinear) {
  const el_tensor *x = &call->t[0], *y = &call->t[call->n - 1];
  size_t k = last_dim(x), n = last_dim(y), m = el_size(x) / k;
  el_code_cut cut = el_cut_codes(m, n, k, call->chunks);
  el_codes q = el_get_codes(call->t + 1, k, call->attr[2].i);
  const float *bias = optional(call, 4), *acc = optional(call, 5);
  float *w = call->scratch;
  share s = share_of(call, &cut);
  for (size_t i = s.first; i < s.last; i++) {
    size_t j = i * cut.block, rows = n - j < cut.block ? n - j : cut.block;
    el_product p = {
        .m = m,
        .n = rows,
        .k = k,
        .a = el_cf32(x),
        .a_row = k,
        .a_col = 1,
        .b = w,
        .b_row = 1,
        .b_col = k,
        .c = el_f32(y) + j,
        .c_row = n,
        .c_col = 1,
        .bias = bias != NULL ? bias + j : NULL,
        .acc = acc != NULL ? acc + j : NULL,
        .alpha = call->attr[0].f,
        .keep = 1.0f,
        .act = call->attr[1].i,
    };
    if (m <= EL_FEW_ROWS) {
      p.c -= j;
      p.bias = bias;
      p.acc = acc;
      for (size_t r = j; r < j + rows; r++) few_rows(&q, &p, r, call->scratch);
      continue;
    }
    EL_K(dequantize)(&q, j, rows, 0, k, w);
    EL_K(product)(&p, after(w, cut.block * k), s.chunk, s.chunks);
  }
}

EL_KERNEL(qlinear_dx) {
  const el_tensor *dy = &call->t[0], *dx = &call->t[call->n - 1];
  size_t n = last_dim(dy), k = last_dim(dx), m = el_size(dy) / n;
  el_code_cut cut = el_cut_codes(m, k, n, call->chunks);
  el_codes q = el_get_codes(call->t + 1, k, call->attr[1].i);
  const float *acc = optional(call, 4);
  float *w = call->scratch;
  share s = share_of(call, &cut);
  for (size_t i = s.first; i < s.last; i++) {
    size_t j = i * cut.block, columns = k - j < cut.block ? k - j : cut.block;
    EL_K(dequantize)(&q, 0, n, j, columns, w);
    el_product p = {
        .m = m,
        .n = columns,
        .k = n,
        .a = el_cf32(dy),
        .a_row = n,
        .a_col = 1,
        .b = w,
        .b_row = columns,
        .b_col = 1,
        .c = el_f32(dx) + j,
        .c_row = k,
        .c_col = 1,
        .acc = acc != NULL ? acc + j : NULL,
        .alpha = call->attr[0].f,
        .keep = 1.0f,
    };
    EL_K(product)(&p, after(w, cut.block * n), s.chunk, s.chunks);
  }
}

EL_KERNEL(qconv2d) {
  const el_tensor *x = &call->t[0], *y = &call->t[call->n - 1];
  el_conv c = el_get_qconv(call, x, y, 0);
  size_t k = el_taps_of(&c), og = (size_t)c.out_c / (size_t)c.groups;
  el_codes q = el_get_codes(call->t + 1, k, call->attr[EL_QC_ACT + 3].i);
  const float *bias = optional(call, 4), *acc = optional(call, 5);
  float *w = call->scratch;
  if (el_is_depthwise(&c)) {
    EL_K(dequantize)(&q, 0, q.rows, 0, k, w);
    EL_K(depthwise)(call, &c, w, bias, acc, after(w, q.rows * k));
    return;
  }
  size_t pixels = el_pixels(&c), rows = el_block(&c, pixels), begin, end;
  size_t block = el_channel_block(&c);
  el_range(call, pixels, rows, &begin, &end);
  for (size_t g = 0; g < (size_t)c.groups; g++) {
    for (size_t o = 0; o < og; o += block) {
      el_conv_part part = {
          .w = w, .group = g, .first = o, .count = og - o < block ? og - o : block};
      EL_K(dequantize)(&q, g * og + o, part.count, 0, k, w);
      for (size_t row = begin; row < end; row += rows) {
        EL_K(conv_part)
        (&c, &part, el_cf32(x), bias, acc, el_f32(y), row, end - row < rows ? end - row : rows,
         after(w, block * k));
      }
    }
  }
}

EL_KERNEL(qconv2d_dx) {
  const el_tensor *dy = &call->t[0], *dxt = &call->t[call->n - 1];
  el_conv c = el_get_qconv(call, dxt, dy, 1);
  size_t k = el_taps_of(&c), og = (size_t)c.out_c / (size_t)c.groups;
  el_codes q = el_get_codes(call->t + 1, k, call->attr[EL_QC_IN + 5].i);
  const float *acc = optional(call, 4);
  float *w = call->scratch, *dx = el_f32(dxt);
  if (el_is_depthwise(&c)) {
    EL_K(dequantize)(&q, 0, q.rows, 0, k, w);
    EL_K(depthwise_dx)(call, &c, w, acc, after(w, q.rows * k));
    return;
  }
  size_t pixels = el_pixels(&c) / (size_t)c.batch, image = el_size(dxt) / (size_t)c.batch;
  size_t rows = el_block(&c, pixels), block = el_channel_block(&c), begin, end;
  el_range(call, (size_t)c.batch, 1, &begin, &end);
  if (begin == end) return;
  EL_K(conv_dx_start)
  (dx + begin * image, acc != NULL ? acc + begin * image : NULL, (end - begin) * image);
  for (size_t g = 0; g < (size_t)c.groups; g++) {
    for (size_t o = 0; o < og; o += block) {
      el_conv_part part = {
          .w = w, .group = g, .first = o, .count = og - o < block ? og - o : block};
      EL_K(dequantize)(&q, g * og + o, part.count, 0, k, w);
      for (size_t b = begin; b < end; b++) {
        for (size_t row = 0; row < pixels; row += rows) {
          EL_K(conv_dx_part)
          (&c, &part, el_cf32(dy), dx, b * pixels + row, pixels - row < rows ? pixels - row : rows,
           after(w, block * k));
        }
      }
    }
  }
}
