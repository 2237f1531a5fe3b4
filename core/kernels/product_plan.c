/* Scratch of products and convolutions: none for the portable variants. */
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
  if (q.b_col == 1 && q.n % t.lanes == 0) return 0;
  uint64_t vecs = (q.n + t.lanes - 1) / t.lanes;
  return (vecs < t.vecs ? vecs : t.vecs) * t.lanes * q.k * sizeof(float);
}

uint64_t el_conv_scratch(const el_conv *c, el_isa isa) {
  (void)c;
  (void)isa;
  return 0;
}

uint64_t el_conv_dx_scratch(const el_conv *c, el_isa isa) {
  (void)c;
  (void)isa;
  return 0;
}

uint64_t el_conv_dw_scratch(const el_conv *c, el_isa isa) {
  (void)c;
  (void)isa;
  return 0;
}
