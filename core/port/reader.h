/* A thread that reads frozen weights from a file into the arena while steps compute (hosted builds
 * only). It stands in for the fetch kernel: the step of a fetch only asks for the read, and a step
 * that touches the bytes of a read that is under way waits for it. */
#ifndef EL_READER_H
#define EL_READER_H

#include "edgeloop.h"

typedef struct el_reader el_reader;

typedef struct el_reader_options {
  int fd;           /* of the program file; duplicated */
  uint64_t start;   /* the first byte of region weights in it */
  uint64_t hold_ns; /* for tests: each read takes that much longer */
  int unordered;    /* for tests: nobody waits */
} el_reader_options;

/* NULL when out of memory, or when the system refuses a descriptor or a thread. */
el_reader *el_reader_new(const el_reader_options *options);
void el_reader_free(el_reader *reader); /* may be NULL; waits for what is under way */

/* Ask for `bytes` at `offset` of region weights, into `to`. Reads are done in the order of asking.
 * In a child made by fork, where the thread does not exist, the caller reads. */
void el_reader_ask(el_reader *reader, uint64_t offset, void *to, size_t bytes);

/* Wait for every read whose bytes the step's operands or scratch (of `workers` workers) touch.
 * EL_E_IO when a read failed, also an earlier one. */
el_status el_reader_wait(el_reader *reader, const el_step *step, uint32_t workers);

/* Wait for all reads, and forget them and their failure: the state before the first one.
 * EL_E_IO when one failed; *error (may be NULL) is then its errno, 0 when the file was too short.
 */
el_status el_reader_finish(el_reader *reader, int *error);

#endif
