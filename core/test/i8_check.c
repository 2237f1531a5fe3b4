/* Int8 products of every instruction set of this machine against the portable ones, bit by bit,
 * over random shapes, on exactly the memory that the plan asks for:
 *
 *   i8_check [SEED]
 *   i8_check ISA M N K BACK    one call, whose instructions a bench counts; ISA is an el_isa
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgeloop.h"

static uint64_t state;

static uint32_t below(uint32_t n) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)((state >> 33) % n);
}

static void *get(size_t bytes) {
  void *p = aligned_alloc(EL_ALIGN, (bytes + EL_ALIGN) / EL_ALIGN * EL_ALIGN);
  if (p == NULL) exit(2);
  memset(p, 0x55, (bytes + EL_ALIGN) / EL_ALIGN * EL_ALIGN);
  return p;
}

static el_tensor floats(int32_t rows, int32_t cols, int wild) {
  size_t n = (size_t)rows * (size_t)cols;
  float *p = get(n * 4);
  for (size_t i = 0; i < n; i++) p[i] = ((float)below(20001) - 10000.0f) * 1e-3f;
  if (wild) {
    p[below((uint32_t)n)] = below(2) ? INFINITY : NAN;
    memset(p + (size_t)cols * below((uint32_t)rows), 0, (size_t)cols * 4);
  }
  return (el_tensor){p, EL_F32, 2, {rows, cols}, {cols, 1}};
}

static el_tensor codes(int32_t rows, int32_t cols) {
  size_t n = (size_t)rows * (size_t)cols;
  int8_t *p = get(n);
  uint32_t kind = below(4);
  for (size_t i = 0; i < n; i++)
    p[i] = (int8_t)(kind == 0 ? -128 : kind == 1 ? 127 : (int32_t)below(256) - 128);
  return (el_tensor){p, EL_I8, 2, {rows, cols}, {cols, 1}};
}

static void run(const el_op *op, el_call *call, el_isa isa) {
  el_need need = {.chunks = 1, .scratch = 0, .outputs = 1};
  if (op->plan(call, isa, &need) != EL_OK) exit(3);
  /* the block ends where the plan says, to the byte */
  size_t room = (need.scratch + EL_ALIGN - 1) / EL_ALIGN * EL_ALIGN;
  uint8_t *block = aligned_alloc(EL_ALIGN, room + EL_ALIGN);
  if (block == NULL) exit(2);
  memset(block, 0x55, room + EL_ALIGN);
  call->scratch = block;
  call->chunks = need.chunks;
  for (call->chunk = 0; call->chunk < need.chunks; call->chunk++) el_variant(op, isa)(call);
  for (size_t i = need.scratch; i < room + EL_ALIGN; i++) {
    if (block[i] != 0x55) {
      printf("%s on %d: writes beyond %zu bytes of scratch\n", op->name, (int)isa, need.scratch);
      exit(1);
    }
  }
  free(block);
}

static void check(int32_t m, int32_t n, int32_t k, int back, int only) {
  const el_op *op = el_find_op(back ? 46 : 45);
  int32_t in = back ? n : k, out = back ? k : n;
  int wild = below(4) == 0, acc = below(2) != 0, bias = below(2) != 0;
  el_tensor absent = {.dtype = EL_ABSENT};
  el_tensor b = floats(1, out, 0), a = floats(m, out, 0), y = floats(m, out, 0);
  b.rank = 1;
  b.dims[0] = out;
  b.strides[0] = 1;
  el_tensor t[6] = {floats(m, in, wild), codes(n, k), floats(n, 1, 0)};
  uint32_t c = 3;
  if (!back) t[c++] = bias ? b : absent;
  t[c++] = acc ? a : absent;
  t[c++] = y;
  el_word words[2] = {{.f = below(2) ? 1.0f : 0.3f}, {.i = back ? k : (int32_t)below(3)}};
  el_call call = {.t = t, .attr = words, .n = c, .n_attr = 2, .chunk = 0, .chunks = 1};
  size_t bytes = (size_t)m * (size_t)out * 4;
  uint8_t *expected = get(bytes);
  if (only < 0) {
    run(op, &call, EL_ISA_REF);
    memcpy(expected, y.data, bytes);
  }
  for (int isa = 1; isa < EL_ISA_COUNT; isa++) {
    if ((int)el_best_isa((el_isa)isa) != isa || (only >= 0 && isa != only)) continue;
    memset(y.data, 0x55, bytes);
    run(op, &call, (el_isa)isa);
    if (only < 0 && memcmp(expected, y.data, bytes) != 0) {
      printf("%s %d x %d x %d on %d: not the portable bits\n", op->name, m, n, k, isa);
      exit(1);
    }
  }
  free(expected);
  void *used[] = {b.data, a.data, y.data, t[0].data, t[1].data, t[2].data};
  for (size_t i = 0; i < sizeof used / sizeof used[0]; i++) free(used[i]);
}

int main(int argc, char **argv) {
  if (argc == 6) {
    check(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atoi(argv[5]), atoi(argv[1]));
    return 0;
  }
  state = argc > 1 ? (uint64_t)atoi(argv[1]) : 1;
  for (int i = 0; i < 400; i++) { /* around the sizes of tiles, panels and blocks */
    int32_t size[3];
    static const int32_t near[] = {1, 4, 6, 8, 16, 32, 48, 64, 132, 512, 1024};
    for (int d = 0; d < 3; d++) {
      int32_t v = near[below(sizeof near / sizeof near[0])] + (int32_t)below(5) - 2;
      size[d] = v < 1 ? 1 : v;
    }
    if ((int64_t)size[0] * size[1] * size[2] > 10000000) continue;
    check(size[0], size[1], size[2], i % 2, -1);
  }
  check(1, 3, 131072, 0, -1); /* the longest sum, largest products */
  check(2, 131072, 3, 1, -1);
  printf("int8 products agree on");
  for (int isa = 0; isa < EL_ISA_COUNT; isa++) {
    if ((int)el_best_isa((el_isa)isa) == isa) printf(" %d", isa);
  }
  printf("\n");
  return 0;
}
