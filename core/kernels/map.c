/* Elementwise maps of one tensor, y[i] = f(x[i]), and of two for gradients, dx[i] = f(dy[i], x[i]).
 * All operands dense with the same dims; the output may be any input's memory. */
#include "lanes.h"
#include "kernel.h"

#define MAP(name, expr)                                  \
  EL_KERNEL(name) {                                      \
    const float *in = el_cf32(&call->t[0]);              \
    float *out = el_f32(&call->t[1]);                    \
    float a = call->n_attr > 0 ? call->attr[0].f : 0.0f; \
    float b = call->n_attr > 1 ? call->attr[1].f : 0.0f; \
    (void)a;                                             \
    (void)b;                                             \
    size_t i, end;                                       \
    el_range(call, el_size(&call->t[0]), 16, &i, &end);  \
    EL_INDEPENDENT for (; i < end; i++) {                \
      float x = in[i];                                   \
      out[i] = (expr);                                   \
    }                                                    \
  }

/* v is x or y, whichever the operator's record hands over. */
#define MAP_GRAD(name, expr)                             \
  EL_KERNEL(name) {                                      \
    const float *dout = el_cf32(&call->t[0]);            \
    const float *in = el_cf32(&call->t[1]);              \
    float *out = el_f32(&call->t[2]);                    \
    float a = call->n_attr > 0 ? call->attr[0].f : 0.0f; \
    float b = call->n_attr > 1 ? call->attr[1].f : 0.0f; \
    (void)a;                                             \
    (void)b;                                             \
    size_t i, end;                                       \
    el_range(call, el_size(&call->t[0]), 16, &i, &end);  \
    EL_INDEPENDENT for (; i < end; i++) {                \
      float dy = dout[i], v = in[i];                     \
      out[i] = (expr);                                   \
    }                                                    \
  }

/* (1 + tanh(u)) / 2 is the sigmoid of 2 u; here 2 u = sqrt(8 / pi) (x + 0.044715 x^3). */
static inline float tanh_inner(float x) { return 1.59576912f * (x + 0.044715f * (x * x * x)); }

/* a and b are the attributes. NaN passes through relu and clip: a broken step shows in the loss. */
MAP(relu, x < 0.0f ? 0.0f : x)
MAP(leaky_relu, el_pick(x < 0.0f, x *a, x))
MAP(clip, el_pick(x != x, x, el_min(el_max(x, a), b)))
MAP(sigmoid, el_sigmoidf(x))
MAP(tanh, el_tanhf(x))
MAP(hard_swish, x *(el_min(el_max(x + 3.0f, 0.0f), 6.0f) * (1.0f / 6.0f)))
MAP(hard_sigmoid, el_min(el_max(x *a + b, 0.0f), 1.0f))
MAP(elu, el_pick(x < 0.0f, a *el_expm1f(x), x))
MAP(softplus, el_softplusf(x))
MAP(neg, -x)
MAP(erf, el_erff(x))
MAP(gelu, 0.5f * x * (1.0f + el_erff(x * 0.70710678f)))
MAP(silu, x *el_sigmoidf(x))
MAP(gelu_tanh, x *el_sigmoidf(tanh_inner(x)))
MAP(exp, el_expf(x))
MAP(log, el_logf(x))
MAP(sqrt, el_sqrtf(x))
MAP(abs, el_absf(x))
MAP(reciprocal, 1.0f / x)

MAP_GRAD(relu_grad, v > 0.0f ? dy : 0.0f)
MAP_GRAD(leaky_relu_grad, el_pick(v < 0.0f, dy *a, dy))
MAP_GRAD(clip_grad, ((v >= a) & (v <= b)) ? dy : 0.0f)
MAP_GRAD(sigmoid_grad, dy *(v *(1.0f - v)))
MAP_GRAD(tanh_grad, dy *(1.0f - v * v))
MAP_GRAD(hard_swish_grad,
         dy *el_pick(v <= -3.0f, 0.0f, el_pick(v >= 3.0f, 1.0f, v *(1.0f / 3.0f) + 0.5f)))
MAP_GRAD(hard_sigmoid_grad, el_pick((v > 0.0f) & (v < 1.0f), dy *a, 0.0f))
MAP_GRAD(elu_grad, el_pick(v < 0.0f, dy *(a *el_expf(v)), dy))
/* d/dv v Phi(v) = Phi(v) + v phi(v) */
MAP_GRAD(gelu_grad,
         dy *(0.5f * (1.0f + el_erff(v * 0.70710678f)) + v * 0.39894228f * el_expf(-0.5f * v * v)))
/* d/dv v s(v) = s + v s (1 - s), and for the inner function w(v) times w' */
MAP_GRAD(silu_grad, dy *(el_sigmoidf(v) * (1.0f + v * (1.0f - el_sigmoidf(v)))))
MAP_GRAD(gelu_tanh_grad, dy *(el_sigmoidf(tanh_inner(v)) *
                              (1.0f + v * (1.0f - el_sigmoidf(tanh_inner(v))) *
                                          (1.59576912f * (1.0f + 0.134145f * (v * v))))))
MAP_GRAD(abs_grad, v > 0.0f ? dy : (v < 0.0f ? -dy : 0.0f))
