/* Example: train on a board. app.h is the program (edgeloop.program.emit_c), samples.h the data:
 * SAMPLE_STEPS batches, each the bytes of the train entry's inputs, copied where the plan wants
 * them. Prints every loss and, at the end, the parameters, as bit patterns. */
#include <string.h>

#include "app.h"
#include "board.h"
#include "samples.h"

static uint8_t ram[APP_RAM_BYTES] __attribute__((aligned(EL_ALIGN)));

static int train(void) {
  el_program program;
  el_memory memory;
  if (el_parse(app_table, sizeof app_table, &program) != EL_OK) return 1;
  if (el_check(&program, EL_ISA_REF, 1, NULL) != EL_OK) return 2;
  app_memory(&memory, ram);
  uint8_t *io = memory.base[EL_IO];
  for (uint32_t step = 0; step < SAMPLE_STEPS; step++) {
    const uint8_t *from = (const uint8_t *)samples + (size_t)step * SAMPLE_BYTES;
    for (size_t i = 0; i < sizeof sample_parts / sizeof sample_parts[0]; i++) {
      memcpy(io + sample_parts[i].offset, from, sample_parts[i].bytes);
      from += sample_parts[i].bytes;
    }
    app_scalars(&memory);
    if (el_run(&program, &memory, EL_ISA_REF, APP_TRAIN, 0, UINT32_MAX) != EL_OK) return 3;
    uint32_t loss;
    memcpy(&loss, io + APP_TRAIN_OUT_LOSS, sizeof loss);
    board_puts("loss ");
    board_hex(loss);
    board_puts("\n");
  }
  const uint8_t *params = memory.base[EL_PARAMS];
  for (size_t i = 0; i < APP_PARAM_BYTES; i += 4) {
    uint32_t word;
    memcpy(&word, params + i, sizeof word);
    board_puts("param ");
    board_hex(word);
    board_puts("\n");
  }
  return 0;
}

int main(void) {
  int status = train();
  board_puts("stack ");
  board_hex(board_stack_used());
  board_puts("\n");
  return status;
}
