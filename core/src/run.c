/* Running a checked program on the calling thread. */
#include "table.h"

el_status el_check_memory(const el_program *p, const el_memory *m) {
  if (p == NULL || m == NULL) return EL_E_ARG;
  for (int r = 0; r < EL_REGIONS; r++) {
    if (p->size[r] > 0 && m->base[r] == NULL) return EL_E_ARG;
    if ((uintptr_t)m->base[r] % EL_ALIGN != 0) return EL_E_ARG;
  }
  return EL_OK;
}

el_status el_bind(const el_program *p, const el_memory *m, el_isa isa, uint32_t index, el_step *s) {
  if (index >= p->n_steps) return EL_E_ARG;
  el_record r = el_read_step(p, index);
  s->op = el_find_op(r.opcode);
  if (s->op == NULL) return EL_E_KERNEL;
  s->kernel = el_variant(s->op, isa);
  for (uint32_t i = 0; i < r.n; i++) {
    uint32_t at = el_read_operand(p, r.operand + i);
    if (at == EL_NO_TENSOR) {
      s->t[i] = (el_tensor){.dtype = EL_ABSENT};
      continue;
    }
    el_place place;
    el_read_tensor(p, at, &s->t[i], &place);
    s->t[i].data = (uint8_t *)m->base[place.region] + place.offset;
  }
  for (uint32_t i = 0; i < r.n_words; i++)
    s->attr[i].i = el_i32(p->words + (size_t)(r.word + i) * 4);
  s->scratch_step = (size_t)el_align_up(r.scratch_bytes);
  void *scratch = r.scratch_bytes > 0 ? (uint8_t *)m->base[EL_ARENA] + r.scratch_offset : NULL;
  s->call = (el_call){.t = s->t,
                      .attr = s->attr,
                      .scratch = scratch,
                      .n = r.n,
                      .n_attr = r.n_words,
                      .chunk = 0,
                      .chunks = r.chunks};
  return EL_OK;
}

el_status el_run(const el_program *p, const el_memory *m, el_isa isa, uint32_t entry,
                 uint32_t first, uint32_t last) {
  el_status status = el_check_memory(p, m);
  if (status != EL_OK) return status;
  el_entry e;
  status = el_get_entry(p, entry, &e);
  if (status != EL_OK) return status;
  if (last > e.count) last = e.count;
  for (uint32_t i = first; i < last; i++) {
    el_step s;
    status = el_bind(p, m, isa, e.first + i, &s);
    if (status != EL_OK) return status;
    for (; s.call.chunk < s.call.chunks; s.call.chunk++) s.kernel(&s.call);
  }
  return EL_OK;
}
