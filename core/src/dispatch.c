/* The table of operators and the choice of a variant. */
#include "edgeloop.h"

#if defined(EL_SIMD) && defined(__x86_64__)
#include <cpuid.h>
#elif defined(EL_SIMD) && defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

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

/* All variants that a name may have. */
#define EL_OP(opcode, name, plan, tolerance) \
  extern el_plan plan;                       \
  extern el_kernel el_k_##name##_ref, el_k_##name##_neon, el_k_##name##_avx2, el_k_##name##_avx512;
#define EL_OP_DOT(opcode, name, plan, tolerance)                                         \
  EL_OP(opcode, name, plan, tolerance)                                                   \
  extern el_kernel el_k_##name##_neondot, el_k_##name##_neoni8mm, el_k_##name##_avxvnni, \
      el_k_##name##_avx512vnni;
#define EL_OP_BF16(opcode, name, plan, tolerance) \
  EL_OP(opcode, name, plan, tolerance)            \
  extern el_kernel el_k_##name##_avx512bf16;
#include "kernels.def"

#define EL_FULL(name)                                                              \
  [EL_ISA_REF] = el_k_##name##_ref, [EL_ISA_NEON] = EL_IF_ARM(el_k_##name##_neon), \
  [EL_ISA_AVX2] = EL_IF_X86(el_k_##name##_avx2), [EL_ISA_AVX512] = EL_IF_X86(el_k_##name##_avx512)
#define EL_DOT(name)                                     \
  [EL_ISA_NEONDOT] = EL_IF_ARM(el_k_##name##_neondot),   \
  [EL_ISA_NEONI8MM] = EL_IF_ARM(el_k_##name##_neoni8mm), \
  [EL_ISA_AVXVNNI] = EL_IF_X86(el_k_##name##_avxvnni),   \
  [EL_ISA_AVX512VNNI] = EL_IF_X86(el_k_##name##_avx512vnni)

#define EL_OP(opcode, name, plan, tolerance) \
  {#name, opcode, plan, {EL_FULL(name)}, (float)(tolerance)},
#define EL_OP_DOT(opcode, name, plan, tolerance) \
  {#name, opcode, plan, {EL_FULL(name), EL_DOT(name)}, (float)(tolerance)},
#define EL_OP_BF16(opcode, name, plan, tolerance)                              \
  {#name,                                                                      \
   opcode,                                                                     \
   plan,                                                                       \
   {EL_FULL(name), [EL_ISA_AVX512BF16] = EL_IF_X86(el_k_##name##_avx512bf16)}, \
   (float)(tolerance)},
static const el_op ops[] = {
#include "kernels.def"
};

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

el_isa el_isa_below(el_isa isa) {
  static const uint8_t below[EL_ISA_COUNT] = {
      [EL_ISA_NEON] = EL_ISA_REF,
      [EL_ISA_NEONDOT] = EL_ISA_NEON,
      [EL_ISA_NEONI8MM] = EL_ISA_NEONDOT,
      [EL_ISA_AVX2] = EL_ISA_REF,
      [EL_ISA_AVXVNNI] = EL_ISA_AVX2,
      [EL_ISA_AVX512] = EL_ISA_AVX2, /* many have no AVX-VNNI */
      [EL_ISA_AVX512VNNI] = EL_ISA_AVX512,
      [EL_ISA_AVX512BF16] = EL_ISA_AVX512VNNI,
  };
  return (el_isa)below[isa];
}

#if defined(EL_SIMD) && defined(__x86_64__)

/* Leaf 7.1, EAX bit 4; not all compilers know a name for it. */
static int has_avxvnni(void) {
  unsigned a = 0, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

/* `isa` has been built, and this machine has what it adds to the one below. */
static int adds(el_isa isa) {
  switch (isa) {
    case EL_ISA_REF:
      return 1;
    case EL_ISA_AVX2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case EL_ISA_AVXVNNI:
      return has_avxvnni();
    case EL_ISA_AVX512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    case EL_ISA_AVX512VNNI:
      return __builtin_cpu_supports("avx512vnni") != 0;
    case EL_ISA_AVX512BF16:
      return __builtin_cpu_supports("avx512bf16") != 0;
    default:
      return 0;
  }
}

#elif defined(EL_SIMD) && defined(__aarch64__)

static int adds(el_isa isa) {
  switch (isa) {
    case EL_ISA_REF:
    case EL_ISA_NEON:
      return 1; /* part of the base architecture */
#if defined(__linux__)
    case EL_ISA_NEONDOT:
      return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
    case EL_ISA_NEONI8MM:
      return (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
#endif
    default:
      return 0;
  }
}

#else

static int adds(el_isa isa) { return isa == EL_ISA_REF; }

#endif

static int runs_here(el_isa isa) {
  for (; isa > EL_ISA_REF; isa = el_isa_below(isa)) {
    if (!adds(isa)) return 0;
  }
  return 1;
}

el_isa el_best_isa(el_isa limit) {
  int isa = (int)limit < EL_ISA_COUNT ? (int)limit : EL_ISA_COUNT - 1;
  while (!runs_here((el_isa)isa)) isa--;
  return (el_isa)isa;
}

el_kernel *el_variant(const el_op *op, el_isa isa) {
  while (op->kernel[isa] == NULL && isa > EL_ISA_REF) isa = el_isa_below(isa);
  return op->kernel[isa];
}
