/* Fuzz target: no bytes whatsoever, given as a step table, may make the checker or a program that
 * it accepts leave its memory. Built with clang -fsanitize=fuzzer -DEL_LIBFUZZER it is a libFuzzer
 * target; otherwise it brings its own mutator: fuzz_check SECONDS SEED table...
 */
#include <stdio.h>
#include <time.h>

#include "exercise.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static el_status last;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  el_isa isa = size ? el_best_isa((el_isa)(data[size - 1] % EL_ISA_COUNT)) : EL_ISA_REF;
  last = exercise(data, size, isa, size);
  return 0;
}

#ifndef EL_LIBFUZZER

static uint64_t state;

static uint32_t below(uint32_t n) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)((state >> 32) % n);
}

static void put32(uint8_t *b, uint32_t v) {
  for (int i = 0; i < 4; i++) b[i] = (uint8_t)(v >> (8 * i));
}

/* One change: a bit, a byte, an interesting or slightly different number, a copied or swapped
 * record. Lengths stay: the checker refuses every other length in its first lines. */
static void mutate(uint8_t *b, size_t size) {
  static const uint32_t numbers[] = {0,          1,          2,          3,         7,      63,
                                     64,         65,         128,        255,       0xFFFF, 0x10000,
                                     0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x40000000};
  uint32_t words = (uint32_t)(size / 4);
  uint32_t at = 4 * below(words), from = 4 * below(words);
  switch (below(7)) {
    case 0:
      b[below((uint32_t)size)] ^= (uint8_t)(1u << below(8));
      break;
    case 1:
      b[below((uint32_t)size)] = (uint8_t)below(256);
      break;
    case 2:
      put32(b + at, numbers[below(sizeof numbers / sizeof numbers[0])]);
      break;
    case 3:
      put32(b + at, el_u32(b + at) + below(9) - 4);
      break;
    case 4:
      memcpy(b + at, b + from, 4);
      break;
    case 5:
      put32(b + at, below(40));
      break;
    default: {
      uint32_t n = 64 * (1 + below(2));
      if (at + n <= size && from + n <= size) memmove(b + at, b + from, n);
    }
  }
}

static uint8_t *read_file(const char *path, size_t *size) {
  FILE *f = fopen(path, "rb");
  if (f == NULL) return NULL;
  fseek(f, 0, SEEK_END);
  *size = (size_t)ftell(f);
  rewind(f);
  uint8_t *data = malloc(*size + 1);
  if (data != NULL && fread(data, 1, *size, f) != *size) *size = 0;
  fclose(f);
  return data;
}

/* Every seed as it is must be accepted; every byte flipped must be refused or harmless. */
static int sweep(const uint8_t *seed, size_t size, const char *name) {
  for (int isa = 0; isa < EL_ISA_COUNT; isa++) {
    if ((int)el_best_isa((el_isa)isa) != isa) continue;
    el_status s = exercise(seed, size, (el_isa)isa, 1);
    if (s != EL_OK) {
      fprintf(stderr, "%s: refused with %d on instruction set %d\n", name, s, isa);
      return 1;
    }
  }
  uint8_t *b = malloc(size);
  if (b == NULL) return 1;
  for (size_t i = 0; i < size; i++) {
    memcpy(b, seed, size);
    b[i] ^= 0xFF;
    exercise(b, size, el_best_isa((el_isa)(i % EL_ISA_COUNT)), i);
  }
  for (size_t cut = 0; cut < size; cut += 13) exercise(seed, cut, EL_ISA_REF, cut);
  free(b);
  return 0;
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: fuzz_check SECONDS SEED table...\n");
    return 2;
  }
  double seconds = atof(argv[1]);
  state = strtoull(argv[2], NULL, 10) * 2654435761u + 88172645463325252u;
  int n = argc - 3;
  for (int i = 0; i < n; i++) {
    size_t size;
    uint8_t *seed = read_file(argv[3 + i], &size);
    if (seed == NULL || sweep(seed, size, argv[3 + i]) != 0) return 1;
    free(seed);
  }
  unsigned long runs = 0, accepted = 0;
  time_t end = time(NULL) + (time_t)seconds;
  while (time(NULL) < end) {
    size_t size;
    uint8_t *seed = read_file(argv[3 + below((uint32_t)n)], &size), *b = malloc(size);
    if (seed == NULL || b == NULL) return 1;
    for (int round = 0; round < 200; round++, runs++) {
      memcpy(b, seed, size);
      for (uint32_t k = 1 + below(4); k > 0; k--) mutate(b, size);
      LLVMFuzzerTestOneInput(b, size);
      accepted += last == EL_OK;
    }
    free(seed);
    free(b);
  }
  printf("%lu tables, %lu accepted and run, none left its memory\n", runs, accepted);
  return 0;
}

#endif
