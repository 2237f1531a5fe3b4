/* What forward leaves for backward in fewer bits: masks of activations, and f16. */
#include "quant.h"
#include "kernel.h"

static int kept(int32_t kind, float v, float low, float high) {
  if (kind == 0) return v > 0.0f;
  if (kind == 1) return (v >= low) & (v <= high);
  return !(v < 0.0f);
}

/* v [n] -> bits u8 [n / 8 rounded up]: where the gradient passes. Attributes kind, low, high. */
EL_KERNEL(pack_mask) {
  const float *v = el_cf32(&call->t[0]);
  uint8_t *bits = (uint8_t *)call->t[1].data;
  int32_t kind = call->attr[0].i;
  float low = call->attr[1].f, high = call->attr[2].f;
  size_t i, end;
  el_range(call, el_size(&call->t[0]), 128, &i, &end);
  for (; i < end; i += 8) {
    unsigned byte = 0;
    size_t count = end - i < 8 ? end - i : 8;
    for (size_t j = 0; j < count; j++) byte |= (unsigned)kept(kind, v[i + j], low, high) << j;
    bits[i / 8] = (uint8_t)byte;
  }
}

/* dy, bits -> dx: dy where a bit stands, else dy * slope, or 0 where slope is 0 */
EL_KERNEL(mask_grad) {
  const float *dy = el_cf32(&call->t[0]);
  const uint8_t *bits = (const uint8_t *)call->t[1].data;
  float *dx = el_f32(&call->t[2]);
  float slope = call->attr[0].f;
  uint32_t scaled = slope == 0.0f ? 0 : ~UINT32_C(0);
  size_t i, end;
  el_range(call, el_size(&call->t[0]), 128, &i, &end);
  for (; i < end; i += 8) {
    unsigned byte = bits[i / 8];
    size_t count = end - i < 8 ? end - i : 8;
    EL_INDEPENDENT for (size_t j = 0; j < count; j++) {
      uint32_t pass = 0u - ((byte >> j) & 1u), other = el_bits(dy[i + j] * slope) & scaled;
      dx[i + j] = el_from_bits((el_bits(dy[i + j]) & pass) | (other & ~pass));
    }
  }
}

/* Round half to even; what is too large becomes +-65504, NaN stays NaN. */
static uint16_t to_half(float v) {
  uint32_t u = el_bits(v), sign = (u >> 16) & 0x8000u, x = u & 0x7FFFFFFFu;
  uint32_t normal = (x - 0x38000000u + 0xFFFu + ((x >> 13) & 1u)) >> 13;
  /* Adding 1/2 leaves the multiples of 2^-24 in the last bits: the codes of small numbers. */
  uint32_t small = el_bits(el_from_bits(x) + 0.5f) - 0x3F000000u;
  uint32_t h = x < 0x38800000u ? small : x >= 0x477FF000u ? 0x7BFFu : normal;
  return (uint16_t)(sign | (x > 0x7F800000u ? 0x7E00u : h));
}

/* x -> f16 of the same dims */
EL_KERNEL(pack_f16) {
  const float *x = el_cf32(&call->t[0]);
  uint16_t *out = (uint16_t *)call->t[1].data;
  size_t i, end;
  el_range(call, el_size(&call->t[0]), 16, &i, &end);
  EL_INDEPENDENT for (; i < end; i++) out[i] = to_half(x[i]);
}

/* f16 -> f32, exact */
EL_KERNEL(unpack_f16) {
  const uint16_t *x = (const uint16_t *)call->t[0].data;
  float *out = el_f32(&call->t[1]);
  size_t i, end;
  el_range(call, el_size(&call->t[0]), 16, &i, &end);
  EL_INDEPENDENT for (; i < end; i++) out[i] = el_half(x[i]);
}
