/* fetch: y = w, or some rows of it, byte by byte, for a weight of any type. Where the weights are
 * not in memory the port reads them from the file in this kernel's stead (port/reader.h).
 *
 *   w[n,..] -> y[rows,..]   both dense, of one type. attr: first, rows; rows 0: all of w */
#include "fetch.h"

EL_KERNEL(fetch) {
  const uint8_t *w = (const uint8_t *)call->t[0].data + el_fetch_offset(call);
  uint8_t *y = call->t[1].data;
  size_t n = el_fetch_bytes(call);
  for (size_t i = 0; i < n; i++) y[i] = w[i];
}
