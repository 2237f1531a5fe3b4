/* What the example needs of a board; semihost.c gives it through QEMU or a debugger. */
#ifndef EL_BOARD_H
#define EL_BOARD_H

#include <stdint.h>

void board_puts(const char *text);
void board_hex(uint32_t word); /* eight digits */
__attribute__((noreturn)) void board_exit(int status);
uint32_t board_stack_used(void); /* bytes, high-water mark since reset */

#endif
