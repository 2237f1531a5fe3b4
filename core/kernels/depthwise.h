/* Depthwise convolution of the vector variants over weights w [c, taps]. scratch: the weights as
 * [taps, c], and c zeros. */
#ifndef EL_DEPTHWISE_H
#define EL_DEPTHWISE_H

#include "conv.h"

void EL_K(depthwise)(const el_call *call, const el_conv *c, const float *weights, const float *bias,
                     const float *acc, void *scratch);
void EL_K(depthwise_dx)(const el_call *call, const el_conv *c, const float *weights,
                        const float *acc, void *scratch);
void EL_K(depthwise_dw)(const el_call *call, const el_conv *c, const float *acc);

#endif
