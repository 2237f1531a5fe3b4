/* How the vector variants cut a convolution: blocks of output pixels whose taps are gathered into
 * scratch. Used by the plan functions and the kernels alike. */
#ifndef EL_CONV_BLOCKS_H
#define EL_CONV_BLOCKS_H

#include "conv.h"

/* Floats of gathered taps in one block: 64 KiB, which stays in the second-level cache. */
#define EL_GATHER 16384u

static inline size_t el_pixels(const el_conv *c) {
  return (size_t)c->batch * (size_t)c->w.out[0] * (size_t)c->w.out[1];
}

/* Elements of one weight row: taps times channels of a group. */
static inline size_t el_taps_of(const el_conv *c) {
  return (size_t)c->w.taps[0] * (size_t)c->w.taps[1] * (size_t)(c->in_c / c->groups);
}

static inline int el_is_depthwise(const el_conv *c) {
  return c->groups == c->in_c && c->groups == c->out_c && c->groups > 1;
}

/* The taps of an output pixel are the input pixel itself. */
static inline int el_is_pointwise(const el_conv *c) {
  const el_window *w = &c->w;
  return c->groups == 1 && w->taps[0] == 1 && w->taps[1] == 1 && w->in[0] == w->out[0] &&
         w->in[1] == w->out[1] && w->stride[0] == 1 && w->stride[1] == 1;
}

/* Pixels of one block out of `pixels`: a function of shapes only. */
static inline size_t el_block(const el_conv *c, size_t pixels) {
  size_t block = EL_GATHER / el_taps_of(c), eighth = (pixels + 7) / 8;
  if (block < 16) block = 16;
  if (block > eighth) block = eighth > 64 ? eighth : 64;
  size_t cap = EL_GATHER / el_taps_of(c);
  if (block > cap) block = cap < 16 ? 16 : cap;
  return block < pixels ? block : pixels;
}

/* The products of a block of `rows` pixels and one group; pointers are filled in by the kernel.
 * forward: y = taps w.T; back: dtaps = dy w; weight: dw[:, columns] += dy.T taps. */
static inline el_product el_forward_product(const el_conv *c, size_t rows) {
  size_t k = el_taps_of(c), o = (size_t)c->out_c;
  return (el_product){.m = rows,
                      .n = o / (size_t)c->groups,
                      .k = k,
                      .a_row = k,
                      .a_col = 1,
                      .b_row = 1,
                      .b_col = k,
                      .c_row = o,
                      .c_col = 1,
                      .alpha = c->alpha,
                      .keep = 1.0f};
}

static inline el_product el_back_product(const el_conv *c, size_t rows) {
  size_t k = el_taps_of(c), o = (size_t)c->out_c;
  return (el_product){.m = rows,
                      .n = k,
                      .k = o / (size_t)c->groups,
                      .a_row = o,
                      .a_col = 1,
                      .b_row = k,
                      .b_col = 1,
                      .c_row = k,
                      .c_col = 1,
                      .alpha = c->alpha,
                      .keep = 1.0f};
}

static inline el_product el_weight_product(const el_conv *c, size_t rows, size_t columns) {
  size_t k = el_taps_of(c), o = (size_t)c->out_c;
  return (el_product){.m = o / (size_t)c->groups,
                      .n = columns,
                      .k = rows,
                      .a_row = 1,
                      .a_col = o,
                      .b_row = columns,
                      .b_col = 1,
                      .c_row = k,
                      .c_col = 1,
                      .alpha = c->alpha,
                      .keep = 1.0f};
}

/* Window positions [*begin, *end) whose weight gradients chunk `chunk` computes: at least 48
 * columns of the product, so that it stays efficient. */
static inline void el_positions(const el_conv *c, uint32_t chunk, uint32_t chunks, size_t *begin,
                                size_t *end) {
  size_t columns = (size_t)(c->in_c / c->groups), grain = (47 + columns) / columns;
  el_part((size_t)c->w.taps[0] * (size_t)c->w.taps[1], grain, chunk, chunks, begin, end);
}

/* Bytes of the gathered block, a multiple of EL_ALIGN; the product's scratch follows it. */
static inline uint64_t el_gather_bytes(const el_conv *c, size_t pixels) {
  uint64_t bytes = (uint64_t)el_block(c, pixels) * el_taps_of(c) * sizeof(float);
  return (bytes + EL_ALIGN - 1) / EL_ALIGN * EL_ALIGN;
}

#endif
