/* y = f(a, b) with NumPy broadcasting. All operands dense; y may be the memory of an operand that
 * has its dims. */
#include "lanes.h"
#include "broadcast.h"

/* One row: n elements, where sa and sb are 1 or 0 (that operand does not move). */
#define BINARY(name, expr)                                                                       \
  static void row_##name(const float *pa, int sa, const float *pb, int sb, float *y, size_t n) { \
    if (sa && sb) {                                                                              \
      EL_INDEPENDENT for (size_t i = 0; i < n; i++) {                                            \
        float a = pa[i], b = pb[i];                                                              \
        y[i] = (expr);                                                                           \
      }                                                                                          \
    } else if (sa) {                                                                             \
      float b = pb[0];                                                                           \
      EL_INDEPENDENT for (size_t i = 0; i < n; i++) {                                            \
        float a = pa[i];                                                                         \
        y[i] = (expr);                                                                           \
      }                                                                                          \
    } else {                                                                                     \
      float a = pa[0];                                                                           \
      EL_INDEPENDENT for (size_t i = 0; i < n; i++) {                                            \
        float b = sb ? pb[i] : pb[0];                                                            \
        y[i] = (expr);                                                                           \
      }                                                                                          \
    }                                                                                            \
  }                                                                                              \
  EL_KERNEL(name) { el_broadcast(call, row_##name); }

BINARY(add, a + b)
BINARY(sub, a - b)
BINARY(mul, a *b)
BINARY(div, a / b)
BINARY(maximum, el_max(a, b))
BINARY(minimum, el_min(a, b))
BINARY(equal, a == b ? 1.0f : 0.0f)
BINARY(pow, el_powf(a, b))
