/* Arm semihosting: text goes to QEMU's stderr, the exit status is QEMU's. */
#include "board.h"

#define SYS_WRITE0 0x04
#define SYS_EXIT_EXTENDED 0x20
#define ADP_STOPPED_APPLICATION_EXIT 0x20026u

static void semihost(uint32_t operation, const void *argument) {
  register uint32_t r0 __asm("r0") = operation;
  register const void *r1 __asm("r1") = argument;
  __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

void board_puts(const char *text) { semihost(SYS_WRITE0, text); }

void board_hex(uint32_t word) {
  char text[9];
  for (int i = 7; i >= 0; i--, word >>= 4) text[i] = "0123456789abcdef"[word & 15u];
  text[8] = 0;
  board_puts(text);
}

void board_exit(int status) {
  uint32_t block[2] = {ADP_STOPPED_APPLICATION_EXIT, (uint32_t)status};
  semihost(SYS_EXIT_EXTENDED, block);
  for (;;) {
  }
}
