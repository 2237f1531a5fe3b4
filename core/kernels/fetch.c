/* fetch: y = w, byte by byte, for a weight of any type. Where the weights are not in memory the
 * port reads them from the file in this kernel's stead (port/reader.h).
 *
 *   w[..] -> y[..]   both dense, of one type */
#include "kernel.h"

EL_KERNEL(fetch) {
  const uint8_t *w = call->t[0].data;
  uint8_t *y = call->t[1].data;
  size_t n = el_size(&call->t[0]) * el_item_bytes(call->t[0].dtype);
  for (size_t i = 0; i < n; i++) y[i] = w[i];
}
