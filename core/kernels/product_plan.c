/* Scratch of a product: none for the portable variant. */
#include "conv.h"
#include "linalg_plan.h"

uint64_t el_product_scratch(const el_product *p, el_isa isa) {
  (void)p;
  (void)isa;
  return 0;
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
