/* Reset for Cortex-M: FPU on, memory set up, stack painted, main() called; its result ends QEMU. */
#include "board.h"

extern uint32_t el_stack_top[], el_stack_limit[], el_data_start[], el_data_end[], el_data_load[];
extern uint32_t el_bss_start[], el_bss_end[];

int main(void);
void Reset_Handler(void);

#define PAINT 0xC5C5C5C5u

/* Naked: when a fault comes the stack may be gone. */
__attribute__((naked)) static void fault(void) {
  __asm volatile(
      "ldr r0, =el_stack_top\n"
      "mov sp, r0\n"
      "movs r0, #70\n" /* exit status of a fault */
      "b board_exit\n"
      ".ltorg");
}

typedef void handler(void);
typedef union vector {
  uint32_t *stack;
  handler *run;
} vector;

__attribute__((section(".vectors"), used)) static const vector vectors[16] = {
    {.stack = el_stack_top},
    {.run = Reset_Handler},
    {.run = fault},
    {.run = fault},
    {.run = fault},
    {.run = fault},
    {.run = fault},
    {.run = fault},
    {.run = 0},
    {.run = 0},
    {.run = 0},
    {.run = fault},
    {.run = fault},
    {.run = 0},
    {.run = fault},
    {.run = fault},
};

__attribute__((noreturn, used)) static void start(void) {
  for (uint32_t *p = el_bss_start; p < el_bss_end; p++) *p = 0;
  const uint32_t *from = el_data_load;
  for (uint32_t *p = el_data_start; p < el_data_end; p++) *p = *from++;
  uint32_t *sp;
  __asm volatile("mov %0, sp" : "=r"(sp));
  for (volatile uint32_t *p = el_stack_limit; p < sp - 16; p++) *p = PAINT;
  board_exit(main());
}

__attribute__((naked, noreturn)) void Reset_Handler(void) {
  __asm volatile(
      "ldr r0, =0xE000ED88\n" /* CPACR: full access to the FPU */
      "ldr r1, [r0]\n"
      "orr r1, r1, #0x00F00000\n"
      "str r1, [r0]\n"
      "dsb\n"
      "isb\n"
      "b start\n"
      ".ltorg");
}

uint32_t board_stack_used(void) {
  const uint32_t *p = el_stack_limit;
  while (p < el_stack_top && *p == PAINT) p++;
  return (uint32_t)((const char *)el_stack_top - (const char *)p);
}
