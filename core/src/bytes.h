/* Little-endian loads from bytes of any alignment; compilers turn them into one instruction. */
#ifndef EL_BYTES_H
#define EL_BYTES_H

#include <stdint.h>

static inline uint16_t el_u16(const uint8_t *p) { return (uint16_t)(p[0] | (p[1] << 8)); }

static inline uint32_t el_u32(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t el_u64(const uint8_t *p) {
  return (uint64_t)el_u32(p) | (uint64_t)el_u32(p + 4) << 32;
}

/* Two's complement without an implementation-defined conversion. */
static inline int32_t el_i32(const uint8_t *p) {
  uint32_t u = el_u32(p);
  return u <= INT32_MAX ? (int32_t)u : (int32_t)(u - 0x80000000u) + INT32_MIN;
}

#endif
