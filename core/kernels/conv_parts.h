/* Pieces of the vector convolution that weights in f32 and weights as codes share. */
#ifndef EL_CONV_PARTS_H
#define EL_CONV_PARTS_H

#include "conv_blocks.h"

/* Some output channels of one group: `count` from `first` on (counted in the group), and their
 * weight rows. */
typedef struct el_conv_part {
  const float *w;
  size_t group, first, count;
} el_conv_part;

/* y of a block of output pixels [row, row + rows) of all images. col: el_gather_bytes; scratch
 * of the product after it. bias, acc and y are those of the whole convolution. */
void EL_K(conv_part)(const el_conv *c, const el_conv_part *part, const float *x, const float *bias,
                     const float *acc, float *y, size_t row, size_t rows, void *col);

/* dx += what the output pixels [first, first + rows) of one image add. */
void EL_K(conv_dx_part)(const el_conv *c, const el_conv_part *part, const float *dy, float *dx,
                        size_t first, size_t rows, void *col);

/* The first value of dx of n elements: acc or zeros. */
void EL_K(conv_dx_start)(float *dx, const float *acc, size_t n);

#endif
