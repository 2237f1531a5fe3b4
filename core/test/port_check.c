/* Worker threads and the reader under the sanitizers: port_check TABLE PROGRAM START [unordered]
 *
 * Runs each entry of a program that reads weights from its file, with workers and a slow reader,
 * and again by the caller alone over weights in memory; params, state and outputs must be the same.
 * Then over a file that ends too early, which has to be said. `unordered`, the control: nobody
 * waits for what is read. */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pool.h"

#define RUNS 4u

static void need(int ok, const char *what) {
  if (ok) return;
  fprintf(stderr, "port_check: %s\n", what);
  exit(1);
}

static uint8_t *contents(const char *path, size_t *size) {
  FILE *f = fopen(path, "rb");
  need(f != NULL, path);
  need(fseek(f, 0, SEEK_END) == 0 && (*size = (size_t)ftell(f)) > 0, "an empty file");
  rewind(f);
  uint8_t *data = malloc(*size);
  need(data != NULL && fread(data, 1, *size, f) == *size, "a file that cannot be read");
  fclose(f);
  return data;
}

/* Small numbers, so that no run ends in NaN, which equals itself. */
static void fill(uint8_t *b, size_t n, uint64_t seed) {
  uint64_t s = seed * 2 + 1;
  for (size_t i = 0; i + 4 <= n; i += 4) {
    s = s * 6364136223846793005u + 1442695040888963407u;
    uint32_t word = 0x3C000000u | ((uint32_t)(s >> 32) & 0x807FFFFFu); /* +-1/128..1/64 */
    memcpy(b + i, &word, 4);
  }
}

static el_memory memory_of(const el_program *p, const uint8_t *weights) {
  el_memory m;
  for (int r = 0; r < EL_REGIONS; r++) {
    size_t n = (size_t)p->size[r];
    m.base[r] = n > 0 ? aligned_alloc(EL_ALIGN, (n + EL_ALIGN - 1) / EL_ALIGN * EL_ALIGN) : NULL;
    need(n == 0 || m.base[r] != NULL, "out of memory");
    if (n > 0) fill(m.base[r], n, 7u + (uint64_t)r);
  }
  if (p->size[EL_WEIGHTS] > 0) memcpy(m.base[EL_WEIGHTS], weights, (size_t)p->size[EL_WEIGHTS]);
  return m;
}

/* What is left in the arena is nobody's. */
static int equal(const el_program *p, const el_memory *a, const el_memory *b) {
  for (int r = 0; r < EL_REGIONS; r++) {
    size_t n = r == EL_ARENA ? 0 : (size_t)p->size[r];
    if (n > 0 && memcmp(a->base[r], b->base[r], n) != 0) return 0;
  }
  return 1;
}

/* Every entry several times, each beside a run of the caller over `alone`, if there is that. */
static el_status run(const el_program *p, const el_memory *m, const el_memory *alone,
                     const el_reader_options *options) {
  el_reader *reader = el_reader_new(options);
  el_pool *pool = el_pool_new(p->threads);
  need(reader != NULL && pool != NULL, "no threads");
  el_pool_read_with(pool, reader);
  el_status status = EL_OK;
  for (uint32_t i = 0; status == EL_OK && i < RUNS * p->n_entries; i++) {
    uint32_t entry = i % p->n_entries;
    status = el_pool_run(pool, p, m, EL_ISA_REF, entry, 0, UINT32_MAX);
    el_status read = el_reader_finish(reader, NULL);
    if (status == EL_OK) status = read;
    if (alone == NULL) continue;
    need(el_run(p, alone, EL_ISA_REF, entry, 0, UINT32_MAX) == EL_OK, "a run alone failed");
    need(equal(p, alone, m), "other bytes");
  }
  el_pool_free(pool);
  el_reader_free(reader);
  return status;
}

int main(int argc, char **argv) {
  int unordered = argc == 5 && strcmp(argv[4], "unordered") == 0;
  need(argc == 4 || unordered, "port_check TABLE PROGRAM START [unordered]");
  size_t table_size, file_size, start = (size_t)strtoull(argv[3], NULL, 10);
  uint8_t *table = contents(argv[1], &table_size), *file = contents(argv[2], &file_size);
  el_program p;
  need(el_parse(table, table_size, &p) == EL_OK, "the table is refused");
  need(p.threads > 1, "a program for one thread");
  need(el_check(&p, EL_ISA_REF, p.threads, NULL) == EL_OK, "the program is refused");
  need(start <= file_size && p.size[EL_WEIGHTS] <= file_size - start, "no weights there");
  int fd = open(argv[2], O_RDONLY);
  need(fd >= 0, argv[2]);

  el_memory alone = memory_of(&p, file + start), shared = memory_of(&p, file + start);
  el_reader_options options = {fd, start, unordered ? 2000000 : 20000, unordered};
  need(run(&p, &shared, &alone, &options) == EL_OK, "a run with workers failed");
  options.start = file_size - 1;
  need(run(&p, &shared, NULL, &options) == EL_E_IO, "a file too short is not noticed");
  close(fd);
  for (int r = 0; r < EL_REGIONS; r++) {
    free(alone.base[r]);
    free(shared.base[r]);
  }
  free(table);
  free(file);
  printf("%u runs are equal\n", RUNS * p.n_entries);
  return 0;
}
