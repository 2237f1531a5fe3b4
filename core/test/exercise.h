/* What the tests do with a table: parse, check and, if it is accepted, run it over memory of
 * exactly the size that it declares, so that the address sanitizer sees every byte too far. */
#ifndef EL_EXERCISE_H
#define EL_EXERCISE_H

#include <stdlib.h>
#include <string.h>

#include "edgeloop.h"
#include "table.h"

/* Accepted programs with more memory or more elements in a tensor are not run: it takes long. */
#define EL_RUN_BYTES (4u << 20)
#define EL_RUN_ELEMENTS (1u << 14)

static int small_enough(const el_program *p) {
  uint64_t bytes = 0;
  for (int r = 0; r < EL_REGIONS; r++) bytes += p->size[r];
  if (bytes > EL_RUN_BYTES || p->n_steps > 64) return 0;
  for (uint32_t i = 0; i < p->n_tensors; i++) {
    el_tensor t;
    el_place at;
    el_read_tensor(p, i, &t, &at);
    uint64_t n = 1;
    for (int k = 0; k < t.rank; k++) n *= (uint64_t)t.dims[k];
    if (n > EL_RUN_ELEMENTS) return 0;
  }
  return 1;
}

/* Fills memory with every kind of word: small integers, ordinary floats, NaN, hostile indices. */
static void fill(uint8_t *b, uint64_t n, uint64_t seed) {
  uint64_t s = seed * 2 + 1;
  for (uint64_t i = 0; i + 4 <= n; i += 4) {
    s = s * 6364136223846793005u + 1442695040888963407u;
    uint32_t word = (uint32_t)(s >> 32);
    if ((word & 7u) < 3)
      word &= 3u; /* labels, indices */
    else if ((word & 7u) < 7)
      word = 0x3F800000u | (word & 0x807FFFFFu); /* +-1..2 */
    memcpy(b + i, &word, 4);
  }
}

/* Returns the status of the check. `seed` decides what the memory holds. */
static el_status exercise(const uint8_t *data, size_t size, el_isa isa, uint64_t seed) {
  /* A copy of exactly `size` bytes: reads behind its end are seen. */
  uint8_t *table = malloc(size ? size : 1);
  if (table == NULL) abort();
  if (size) memcpy(table, data, size);
  el_program p;
  el_status s = el_parse(table, size, &p);
#ifndef EL_UNCHECKED /* negative control: without the checker the sanitizers must find faults */
  if (s == EL_OK) s = el_check(&p, isa, p.threads, NULL);
#endif
  if (s == EL_OK && small_enough(&p)) {
    el_memory m;
    for (int r = 0; r < EL_REGIONS; r++) {
      m.base[r] = p.size[r] ? aligned_alloc(EL_ALIGN, (size_t)p.size[r]) : NULL;
      if (p.size[r] && m.base[r] == NULL) abort();
      if (p.size[r]) fill(m.base[r], p.size[r], seed + (uint64_t)r);
    }
    for (uint32_t e = 0; e < p.n_entries; e++) {
      if (el_run(&p, &m, isa, e, 0, UINT32_MAX) != EL_OK) abort();
    }
    for (int r = 0; r < EL_REGIONS; r++) free(m.base[r]);
  }
  free(table);
  return s;
}

#endif
