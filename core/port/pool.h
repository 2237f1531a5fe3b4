/* A small pool of worker threads for one session (hosted builds only).
 *
 * Workers pull the chunks of one step at a time; chunks write disjoint outputs, so results never
 * depend on how many workers there are or which of them runs a chunk. */
#ifndef EL_POOL_H
#define EL_POOL_H

#include "reader.h"

typedef struct el_pool el_pool;

/* A pool of `threads` workers, the caller being one of them. NULL when out of memory; fewer
 * workers than asked for when the system refuses more threads. */
el_pool *el_pool_new(uint32_t threads);
void el_pool_free(el_pool *pool); /* may be NULL */

/* From now on fetches are read by `reader` (NULL: copied from the weights in memory). */
void el_pool_read_with(el_pool *pool, el_reader *reader);

/* el_run with the pool's workers. In a child made by fork, where the workers do not exist, the
 * caller does all chunks itself. One caller at a time. All reads are done on return; EL_E_IO: one
 * failed, and the run stopped at its reader at the latest. */
el_status el_pool_run(el_pool *pool, const el_program *program, const el_memory *memory, el_isa isa,
                      uint32_t entry, uint32_t first, uint32_t last);

/* When a chunk ran (nanoseconds of CLOCK_MONOTONIC), and on which worker; 0 is the caller. */
typedef struct el_span {
  uint64_t begin, end, worker;
} el_span;

/* el_pool_run of a whole entry, with clocks. steps[i] is step i as the caller saw it, waiting for
 * the other workers included; chunks holds the spans of each step's chunks, one step after the
 * other. The caller provides one element for every step and for every chunk of the entry. */
el_status el_pool_profile(el_pool *pool, const el_program *program, const el_memory *memory,
                          el_isa isa, uint32_t entry, el_span *steps, el_span *chunks);

#endif
