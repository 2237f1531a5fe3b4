/* What one core of this machine can do at all (hosted builds only): the yardsticks of a profile.
 *
 * Arithmetic: multiply-adds whose operands never leave the registers, with the best instruction
 * that the machine has, whether or not a kernel uses it. Memory: the bytes of a buffer, read or
 * copied from one half to the other, with the widest loads that the machine has. */
#ifndef EL_PEAK_H
#define EL_PEAK_H

#include <stddef.h>
#include <stdint.h>

typedef enum el_peak_kind {
  EL_PEAK_F32 = 0,  /* multiply-adds of f32 */
  EL_PEAK_BF16 = 1, /* products of bf16 pairs, summed in f32 */
  EL_PEAK_INT8 = 2, /* products of bytes, summed in i32 */
  EL_PEAK_KINDS = 3
} el_peak_kind;

/* Runs `rounds` rounds of some dozen instructions. Returns the operations done, a multiply and an
 * add being two; 0 where the machine has no instruction of that kind. *name is what it used. */
uint64_t el_peak_run(el_peak_kind kind, uint64_t rounds, const char **name);

/* Reads `bytes` of data, `rounds` times. Returns the bytes moved. */
uint64_t el_peak_read(const void *data, size_t bytes, uint64_t rounds);

/* Copies the first half of `bytes` to the second, `rounds` times. Returns the bytes moved, read and
 * written ones together. */
uint64_t el_peak_copy(void *data, size_t bytes, uint64_t rounds);

#endif
