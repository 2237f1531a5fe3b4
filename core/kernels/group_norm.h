/* Shared by group normalisation and its plan. */
#ifndef EL_GROUP_NORM_H
#define EL_GROUP_NORM_H

#include "kernel.h"

/* Vectors of c floats that a worker needs: means, factors and running sums. */
#define EL_GROUP_VECTORS 6u

#endif
