/* Scratch of products and convolutions: none for the portable variants. */
#include "conv_blocks.h"
#include "linalg_plan.h"
#include "tiles.h"

uint64_t el_product_scratch(const el_product *p, el_isa isa) {
  if (isa == EL_ISA_REF) return 0;
  el_tiles t = el_tiles_of(isa);
  el_way way = el_choose(p, isa);
  el_product q = way == EL_TURNED || way == EL_TURNED_DOTS ? el_turn(p) : *p;
  if (way == EL_DOTS || way == EL_TURNED_DOTS) {
    return q.b_row == 1 ? 0 : (uint64_t)q.n * q.k * sizeof(float);
  }
  el_grid g = el_grid_of(&q, &t, way == EL_TURNED ? t.turned_rows : t.rows);
  if (!el_packs(&q, t.lanes, g.rows)) return 0;
  return (g.vecs + g.panels - 1) / g.panels * t.lanes * (uint64_t)q.k * sizeof(float);
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* Depthwise: the weights, taps first, and one pixel of zeros. */
static uint64_t depthwise_scratch(const el_conv *c) {
  return ((uint64_t)el_taps_of(c) + 1) * (uint64_t)c->out_c * sizeof(float);
}

uint64_t el_conv_scratch(const el_conv *c, el_isa isa) {
  if (isa == EL_ISA_REF) return 0;
  size_t pixels = el_pixels(c), block = el_block(c, pixels);
  if (el_is_depthwise(c)) return depthwise_scratch(c);
  el_product whole = el_forward_product(c, pixels), full = el_forward_product(c, block);
  if (el_is_pointwise(c)) return el_product_scratch(&whole, isa);
  el_product rest = el_forward_product(c, pixels % block > 0 ? pixels % block : block);
  return el_gather_bytes(c, pixels) +
         larger(el_product_scratch(&full, isa), el_product_scratch(&rest, isa));
}

uint64_t el_conv_dx_scratch(const el_conv *c, el_isa isa) {
  if (isa == EL_ISA_REF) return 0;
  size_t all = el_pixels(c), pixels = all / (size_t)c->batch, block = el_block(c, pixels);
  if (el_is_depthwise(c)) return depthwise_scratch(c);
  el_product whole = el_back_product(c, all), full = el_back_product(c, block);
  if (el_is_pointwise(c)) return el_product_scratch(&whole, isa);
  el_product rest = el_back_product(c, pixels % block > 0 ? pixels % block : block);
  return el_gather_bytes(c, pixels) +
         larger(el_product_scratch(&full, isa), el_product_scratch(&rest, isa));
}

uint64_t el_conv_dw_scratch(const el_conv *c, uint32_t chunks, el_isa isa) {
  if (isa == EL_ISA_REF || el_is_depthwise(c)) return 0;
  size_t pixels = el_pixels(c), block = el_block(c, pixels);
  el_product whole = el_weight_product(c, pixels, el_taps_of(c));
  if (el_is_pointwise(c)) return el_product_scratch(&whole, isa);
  size_t rest = pixels % block > 0 ? pixels % block : block;
  uint64_t most = 0;
  for (uint32_t i = 0; i < chunks; i++) {
    size_t begin, end;
    el_positions(c, i, chunks, &begin, &end);
    if (begin == end) continue;
    size_t columns = (end - begin) * (size_t)(c->in_c / c->groups);
    el_product full = el_weight_product(c, block, columns),
               last = el_weight_product(c, rest, columns);
    most = larger(most, larger(el_product_scratch(&full, isa), el_product_scratch(&last, isa)));
  }
  return el_gather_bytes(c, pixels) + most;
}
