/* The table of operators and the choice of a variant. */
#include "edgeloop.h"

#if defined(EL_SIMD) && defined(__x86_64__)
#define EL_IF_X86(kernel) kernel
#else
#define EL_IF_X86(kernel) NULL
#endif
#if defined(EL_SIMD) && defined(__aarch64__)
#define EL_IF_ARM(kernel) kernel
#else
#define EL_IF_ARM(kernel) NULL
#endif

#define EL_OP(opcode, name, plan, tolerance) \
  extern el_plan plan;                       \
  extern el_kernel el_k_##name##_ref, el_k_##name##_neon, el_k_##name##_avx2, el_k_##name##_avx512;
#include "kernels.def"
#undef EL_OP

#define EL_OP(opcode, name, plan, tolerance)                                         \
  {#name,                                                                            \
   opcode,                                                                           \
   plan,                                                                             \
   {el_k_##name##_ref, EL_IF_ARM(el_k_##name##_neon), EL_IF_X86(el_k_##name##_avx2), \
    EL_IF_X86(el_k_##name##_avx512)},                                                \
   (float)(tolerance)},
static const el_op ops[] = {
#include "kernels.def"
};
#undef EL_OP

const el_op *el_ops(uint32_t *count) {
  *count = (uint32_t)(sizeof ops / sizeof ops[0]);
  return ops;
}

const el_op *el_find_op(uint16_t opcode) {
  for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
    if (ops[i].opcode == opcode) return &ops[i];
  }
  return NULL;
}

static int runs_here(el_isa isa) {
  switch (isa) {
    case EL_ISA_REF:
      return 1;
#if defined(EL_SIMD) && defined(__aarch64__)
    case EL_ISA_NEON:
      return 1; /* part of the base architecture */
#endif
#if defined(EL_SIMD) && defined(__x86_64__)
    case EL_ISA_AVX2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case EL_ISA_AVX512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
    default:
      return 0;
  }
}

el_isa el_best_isa(el_isa limit) {
  int isa = (int)limit < EL_ISA_COUNT ? (int)limit : EL_ISA_COUNT - 1;
  while (isa > EL_ISA_REF && !runs_here((el_isa)isa)) isa--;
  return (el_isa)isa;
}

el_kernel *el_variant(const el_op *op, el_isa isa) {
  int i = (int)isa;
  while (i > EL_ISA_REF && op->kernel[i] == NULL) i--;
  return op->kernel[i];
}
