/* The program checker: nothing runs before it has accepted the table. Every number in the table
 * is hostile here. Sums are compared before they are formed, so that none can wrap around. */
#include "table.h"

/* Regions are below 2^40 bytes and fit size_t, so that sums of a few of them never wrap. */
static const uint64_t max_region = (SIZE_MAX >> 8) > 0xFFFFFFFFu ? (uint64_t)1 << 40
                                                                 : (uint64_t)1 << 31;

el_status el_parse(const void *table, size_t bytes, el_program *p) {
  if (table == NULL || p == NULL) return EL_E_ARG;
  const uint8_t *b = table;
  static const uint8_t magic[8] = {'e', 'd', 'g', 'e', 'l', 'o', 'o', 'p'};
  if (bytes < EL_HEADER_BYTES) return EL_E_FORMAT;
  for (int i = 0; i < 8; i++) {
    if (b[i] != magic[i]) return EL_E_FORMAT;
  }
  if (el_u16(b + 8) != EL_TABLE_MAJOR || el_u16(b + 10) > EL_TABLE_MINOR) return EL_E_FORMAT;
  if (el_u32(b + 12) != bytes) return EL_E_FORMAT;
  for (int r = 0; r < EL_REGIONS; r++) {
    p->size[r] = el_u64(b + 16 + 8 * r);
    if (p->size[r] > max_region || p->size[r] % EL_ALIGN != 0) return EL_E_FORMAT;
  }
  p->n_tensors = el_u32(b + 56);
  p->n_steps = el_u32(b + 60);
  p->n_entries = el_u32(b + 64);
  p->n_words = el_u32(b + 68);
  p->n_operands = el_u32(b + 72);
  p->threads = el_u32(b + 76);
  for (int i = 80; i < (int)EL_HEADER_BYTES; i++) {
    if (b[i] != 0) return EL_E_FORMAT;
  }
  if (p->n_tensors >= EL_NO_TENSOR || p->threads < 1 || p->threads > EL_MAX_THREADS) {
    return EL_E_FORMAT;
  }
  uint64_t end = EL_HEADER_BYTES + (uint64_t)p->n_tensors * EL_TENSOR_BYTES +
                 (uint64_t)p->n_steps * EL_STEP_BYTES + (uint64_t)p->n_entries * EL_ENTRY_BYTES +
                 (uint64_t)p->n_words * 4 + (uint64_t)p->n_operands * 2;
  if (end != bytes) return EL_E_FORMAT;
  p->tensors = b + EL_HEADER_BYTES;
  p->steps = p->tensors + (size_t)p->n_tensors * EL_TENSOR_BYTES;
  p->entries = p->steps + (size_t)p->n_steps * EL_STEP_BYTES;
  p->words = p->entries + (size_t)p->n_entries * EL_ENTRY_BYTES;
  p->operands = p->words + (size_t)p->n_words * 4;
  return EL_OK;
}

/* One tensor record: known type, positive dims whose product fits int32, and the farthest element
 * that its strides reach lies inside the region. */
static el_status check_tensor(const el_program *p, uint32_t index) {
  el_tensor t;
  el_place at;
  el_read_tensor(p, index, &t, &at);
  const uint8_t *b = p->tensors + (size_t)index * EL_TENSOR_BYTES;
  for (int i = 3; i < 8; i++) {
    if (b[i] != 0) return EL_E_FORMAT;
  }
  if (at.region >= EL_REGIONS || t.rank > EL_RANK) return EL_E_FORMAT;
  static const uint8_t bytes[] = {
      [EL_F32] = 4, [EL_I32] = 4, [EL_U8] = 1, [EL_I8] = 1, [EL_F16] = 2, [EL_BF16] = 2};
  if (t.dtype < 0 || t.dtype > EL_BF16) return EL_E_FORMAT;
  uint64_t item = bytes[t.dtype], size = p->size[at.region], count = 1;
  uint64_t align = at.region == EL_STATE ? EL_STATE_ALIGN : EL_ALIGN;
  if (at.offset % align != 0 || at.offset >= size) return EL_E_BOUNDS;
  uint64_t last = 0, room = (size - at.offset) / item; /* elements */
  for (int i = 0; i < EL_RANK; i++) {
    if (i >= t.rank) {
      if (t.dims[i] != 0 || t.strides[i] != 0) return EL_E_FORMAT;
      continue;
    }
    if (t.dims[i] < 1 || t.strides[i] < 0) return EL_E_BOUNDS;
    count *= (uint64_t)t.dims[i];
    if (count > INT32_MAX) return EL_E_BOUNDS;
    last += (uint64_t)(t.dims[i] - 1) * (uint64_t)t.strides[i]; /* < 2^40 + 2^62 */
    if (last >= room) return EL_E_BOUNDS;
  }
  return last < room ? EL_OK : EL_E_BOUNDS;
}

/* One step: its kernel exists and accepts the operands, and its scratch fits the arena. */
static el_status check_step(const el_program *p, uint32_t index, el_isa isa, uint32_t threads) {
  el_record r = el_read_step(p, index);
  if (r.n > EL_OPERANDS || r.n_words > EL_WORDS || r.chunks < 1 || r.chunks > EL_MAX_CHUNKS) {
    return EL_E_FORMAT;
  }
  if (r.operand > p->n_operands || r.n > p->n_operands - r.operand) return EL_E_BOUNDS;
  if (r.word > p->n_words || r.n_words > p->n_words - r.word) return EL_E_BOUNDS;
  const el_op *op = el_find_op(r.opcode);
  if (op == NULL || el_variant(op, isa) == NULL) return EL_E_KERNEL;

  /* Plan functions look at operands by position, so those beyond n are absent too. */
  el_tensor t[EL_OPERANDS] = {{0}};
  for (int i = 0; i < EL_OPERANDS; i++) t[i].dtype = EL_ABSENT;
  uint8_t region[EL_OPERANDS] = {0};
  el_word attr[EL_WORDS] = {{0}};
  static const uint8_t present = 0; /* an address for operands that are there; never read */
  for (uint32_t i = 0; i < r.n; i++) {
    uint32_t at = el_read_operand(p, r.operand + i);
    if (at == EL_NO_TENSOR) {
      region[i] = EL_REGIONS;
      continue;
    }
    if (at >= p->n_tensors) return EL_E_BOUNDS;
    el_place place;
    el_read_tensor(p, at, &t[i], &place);
    t[i].data = (void *)(uintptr_t)&present;
    region[i] = place.region;
  }
  for (uint32_t i = 0; i < r.n_words; i++) attr[i].i = el_i32(p->words + (size_t)(r.word + i) * 4);
  el_call call = {
      .t = t, .attr = attr, .n = r.n, .n_attr = r.n_words, .chunk = 0, .chunks = r.chunks};
  el_need need = {.chunks = 1, .scratch = 0, .outputs = 1};
  el_status s = op->plan(&call, isa, &need);
  if (s != EL_OK) return s;
  if (need.chunks != r.chunks || need.outputs > r.n) return EL_E_MISMATCH;
  for (uint32_t i = r.n - need.outputs; i < r.n; i++) {
    if (region[i] == EL_WEIGHTS || region[i] == EL_REGIONS) return EL_E_BOUNDS;
  }
  uint64_t arena = p->size[EL_ARENA];
  if (r.scratch_bytes < need.scratch || r.scratch_bytes > arena) return EL_E_BOUNDS;
  if (r.scratch_offset % EL_ALIGN != 0 || r.scratch_offset > arena) return EL_E_BOUNDS;
  if (el_align_up(r.scratch_bytes) * threads > arena - r.scratch_offset) return EL_E_BOUNDS;
  return EL_OK;
}

el_status el_check(const el_program *p, el_isa isa, uint32_t threads, uint32_t *bad) {
  uint32_t unused;
  if (bad == NULL) bad = &unused;
  *bad = EL_NO_STEP;
  if (p == NULL || (uint32_t)isa >= EL_ISA_COUNT || threads < 1 || threads > p->threads) {
    return EL_E_ARG;
  }
  for (uint32_t i = 0; i < p->n_tensors; i++) {
    el_status s = check_tensor(p, i);
    if (s != EL_OK) return s;
  }
  for (uint32_t i = 0; i < p->n_entries; i++) {
    el_entry e;
    el_status s = el_get_entry(p, i, &e);
    if (s != EL_OK) return s;
  }
  for (uint32_t i = 0; i < p->n_steps; i++) {
    el_status s = check_step(p, i, isa, threads);
    if (s != EL_OK) {
      *bad = i;
      return s;
    }
  }
  return EL_OK;
}

el_status el_get_entry(const el_program *p, uint32_t index, el_entry *e) {
  if (p == NULL || e == NULL || index >= p->n_entries) return EL_E_ARG;
  const uint8_t *b = p->entries + (size_t)index * EL_ENTRY_BYTES;
  e->first = el_u32(b);
  e->count = el_u32(b + 4);
  e->arena = el_u64(b + 8);
  if (e->first > p->n_steps || e->count > p->n_steps - e->first) return EL_E_BOUNDS;
  return e->arena <= p->size[EL_ARENA] ? EL_OK : EL_E_BOUNDS;
}
