/* Group normalisation, channels last: x [b, .., c], statistics of each sample and group over all
 * positions and the group's channels.
 *
 * Sums run down the positions of each channel (in blocks, then over the blocks), then over the
 * channels of a group in order. Chunks are of groups; each works on its channels side by side.
 * Scratch: EL_GROUP_VECTORS vectors of c floats. */
#include "group_norm.h"
#include "math.h"

typedef struct norm {
  size_t positions, c, width; /* width: channels of a group */
  float eps;
  const float *x, *dy, *scale, *bias; /* of one sample; dy, scale, bias may be NULL */
  float *y;
  float *mean, *rstd, *mean_g, *mean_gh, *total, *part; /* [c] */
} norm;

enum { BLOCK = 64 };

/* total[j] = sum over the positions of `term` for channels j0 <= j < j1, then their group's mean.
 */
#define GROUP_MEAN(v, out, term)                                             \
  do {                                                                       \
    for (size_t j = j0; j < j1; j++) (v)->total[j] = 0.0f;                   \
    for (size_t p0 = 0; p0 < (v)->positions; p0 += BLOCK) {                  \
      size_t p1 = p0 + BLOCK < (v)->positions ? p0 + BLOCK : (v)->positions; \
      for (size_t j = j0; j < j1; j++) (v)->part[j] = 0.0f;                  \
      for (size_t p = p0; p < p1; p++) {                                     \
        const float *x = (v)->x + p * (v)->c;                                \
        (void)x;                                                             \
        for (size_t j = j0; j < j1; j++) (v)->part[j] += (term);             \
      }                                                                      \
      for (size_t j = j0; j < j1; j++) (v)->total[j] += (v)->part[j];        \
    }                                                                        \
    float count = (float)((v)->positions * (v)->width);                      \
    for (size_t g = j0; g < j1; g += (v)->width) {                           \
      float sum = 0.0f;                                                      \
      for (size_t j = g; j < g + (v)->width; j++) sum += (v)->total[j];      \
      for (size_t j = g; j < g + (v)->width; j++) (out)[j] = sum / count;    \
    }                                                                        \
  } while (0)

static void statistics(const norm *v, size_t j0, size_t j1) {
  GROUP_MEAN(v, v->mean, x[j]);
  GROUP_MEAN(v, v->rstd, (x[j] - v->mean[j]) * (x[j] - v->mean[j]));
  for (size_t j = j0; j < j1; j++) v->rstd[j] = 1.0f / el_sqrtf(v->rstd[j] + v->eps);
}

static void forward(const norm *v, size_t j0, size_t j1) {
  statistics(v, j0, j1);
  for (size_t p = 0; p < v->positions; p++) {
    const float *x = v->x + p * v->c;
    float *y = v->y + p * v->c;
    EL_INDEPENDENT for (size_t j = j0; j < j1; j++) {
      float h = (x[j] - v->mean[j]) * v->rstd[j];
      if (v->scale != NULL) h = h * v->scale[j];
      if (v->bias != NULL) h = h + v->bias[j];
      y[j] = h;
    }
  }
}

/* dx = rstd * (g - mean(g) - h * mean(g * h)), where g = dy * scale and h = (x - mean) * rstd */
static void backward(const norm *v, size_t j0, size_t j1) {
  statistics(v, j0, j1);
  const float *s = v->scale;
#define DY(p, j) (v->dy[(p)*v->c + (j)] * (s != NULL ? s[j] : 1.0f))
  GROUP_MEAN(v, v->mean_g, DY(p, j));
  GROUP_MEAN(v, v->mean_gh, DY(p, j) * ((x[j] - v->mean[j]) * v->rstd[j]));
  for (size_t p = 0; p < v->positions; p++) {
    const float *x = v->x + p * v->c;
    float *dx = v->y + p * v->c;
    EL_INDEPENDENT for (size_t j = j0; j < j1; j++) {
      float h = (x[j] - v->mean[j]) * v->rstd[j];
      dx[j] = v->rstd[j] * (DY(p, j) - v->mean_g[j] - h * v->mean_gh[j]);
    }
  }
#undef DY
}

static const float *optional(const el_call *call, uint32_t i) {
  return i + 1 < call->n && call->t[i].rank > 0 ? el_cf32(&call->t[i]) : NULL;
}

/* The groups of this chunk, sample by sample. */
static void run(const el_call *call, norm *v, const float *x, const float *dy,
                void (*work)(const norm *, size_t, size_t)) {
  const el_tensor *t = &call->t[0];
  size_t groups = (size_t)call->attr[0].i, batch = (size_t)t->dims[0], at, end;
  v->c = (size_t)t->dims[t->rank - 1];
  v->width = v->c / groups;
  v->positions = el_size(t) / batch / v->c;
  v->eps = call->attr[1].f;
  float *s = call->scratch;
  v->mean = s;
  v->rstd = s + v->c;
  v->total = s + 2 * v->c;
  v->part = s + 3 * v->c;
  v->mean_g = s + 4 * v->c;
  v->mean_gh = s + 5 * v->c;
  el_range(call, batch * groups, 1, &at, &end);
  while (at < end) {
    size_t b = at / groups, g0 = at % groups;
    size_t g1 = end - b * groups < groups ? end - b * groups : groups;
    size_t offset = b * v->positions * v->c;
    v->x = x + offset;
    v->dy = dy != NULL ? dy + offset : NULL;
    v->y = el_f32(&call->t[call->n - 1]) + offset;
    work(v, g0 * v->width, g1 * v->width);
    at += g1 - g0;
  }
}

/* x, scale?, bias? -> y; attr: groups, eps */
EL_KERNEL(group_norm) {
  norm v = {.scale = optional(call, 1), .bias = optional(call, 2)};
  run(call, &v, el_cf32(&call->t[0]), NULL, forward);
}

/* dy, x, scale? -> dx; attr: groups, eps */
EL_KERNEL(group_norm_grad) {
  norm v = {.scale = optional(call, 2)};
  run(call, &v, el_cf32(&call->t[1]), el_cf32(&call->t[0]), backward);
}
