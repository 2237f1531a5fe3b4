/* The instructions are written out, so that no compiler can drop, merge or spill them. Functions
 * carry their instruction set themselves: one table finds the best one at run time. */
#include "peak.h"

#include <string.h>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

/* Sums that are in flight at the same time: more than latency times issue width of any core. */
#define SUMS 12

/* Classes of vector registers, and one that no loop needs for its sums. */
#if defined(__x86_64__)
#define VEC_REG "v"
#define SSE_REG "x"
#define SPARE "xmm15"
#elif defined(__aarch64__)
#define VEC_REG "w"
#define SPARE "v31"
#endif

/* A loop over SUMS independent sums of `instruction`, each doing `ops` operations. */
#define LOOP(name, isa, bytes, reg, ops, instruction)                           \
  __attribute__((target(isa))) static uint64_t name(uint64_t rounds) {          \
    typedef float vec __attribute__((vector_size(bytes)));                      \
    vec s[SUMS], a = {0}, b = {0};                                              \
    _Pragma("GCC unroll 12") for (int i = 0; i < SUMS; i++) s[i] = a;           \
    for (uint64_t r = 0; r < rounds; r++) {                                     \
      _Pragma("GCC unroll 12") for (int i = 0; i < SUMS; i++) {                 \
        __asm__ volatile(instruction : "+" reg(s[i]) : reg(a), reg(b) : SPARE); \
      }                                                                         \
    }                                                                           \
    return rounds * SUMS * (ops);                                               \
  }

/* A loop that loads every vector of a buffer; bytes: a multiple of 8 vectors. */
#define READ(name, isa, bytes, reg)                                        \
  __attribute__((target(isa))) static void name(const char *p, size_t n) { \
    typedef float vec __attribute__((vector_size(bytes)));                 \
    for (size_t i = 0; i < n; i += 8 * (bytes)) {                          \
      _Pragma("GCC unroll 8") for (size_t k = 0; k < 8; k++) {             \
        vec v;                                                             \
        memcpy(&v, p + i + k * (bytes), bytes);                            \
        __asm__ volatile("" : : reg(v));                                   \
      }                                                                    \
    }                                                                      \
  }

typedef struct way {
  el_peak_kind kind;
  uint64_t (*run)(uint64_t rounds);
  int (*here)(void);
  const char *name;
} way;

#if defined(__x86_64__)

LOOP(fma512, "avx512f", 64, VEC_REG, 32, "vfmadd231ps %1, %2, %0")
LOOP(fma256, "avx2,fma", 32, SSE_REG, 16, "vfmadd231ps %1, %2, %0")
LOOP(add128, "sse2", 16, SSE_REG, 4, "addps %1, %0")
LOOP(bf512, "avx512f,avx512bf16", 64, VEC_REG, 64, "vdpbf16ps %1, %2, %0")
LOOP(dot512, "avx512f,avx512vnni", 64, VEC_REG, 128, "vpdpbusd %1, %2, %0")
LOOP(dot256, "avx2,avxvnni", 32, SSE_REG, 64, "%{vex%} vpdpbusd %1, %2, %0")
LOOP(madd512, "avx512f,avx512bw", 64, VEC_REG, 64,
     "vpmaddwd %1, %2, %%zmm15\n\tvpaddd %%zmm15, %0, %0")
LOOP(madd256, "avx2", 32, SSE_REG, 32, "vpmaddwd %1, %2, %%ymm15\n\tvpaddd %%ymm15, %0, %0")
READ(read512, "avx512f", 64, VEC_REG)
READ(read256, "avx2", 32, SSE_REG)
READ(read128, "sse2", 16, SSE_REG)

static int has_avx512(void) { return __builtin_cpu_supports("avx512f"); }
static int has_avx512bw(void) { return __builtin_cpu_supports("avx512bw"); }
static int has_avx2(void) { return __builtin_cpu_supports("avx2"); }
static int has_fma(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static int has_bf16(void) { return __builtin_cpu_supports("avx512bf16"); }
static int has_vnni(void) { return __builtin_cpu_supports("avx512vnni"); }
static int has_avxvnni(void) { return __builtin_cpu_supports("avxvnni"); }
static int always(void) { return 1; }

static const way ways[] = {
    {EL_PEAK_F32, fma512, has_avx512, "avx512 vfmadd231ps"},
    {EL_PEAK_F32, fma256, has_fma, "avx2 vfmadd231ps"},
    {EL_PEAK_F32, add128, always, "sse2 addps"},
    {EL_PEAK_BF16, bf512, has_bf16, "avx512 vdpbf16ps"},
    {EL_PEAK_INT8, dot512, has_vnni, "avx512 vpdpbusd"},
    {EL_PEAK_INT8, dot256, has_avxvnni, "avx2 vpdpbusd"},
    {EL_PEAK_INT8, madd512, has_avx512bw, "avx512 vpmaddwd + vpaddd"},
    {EL_PEAK_INT8, madd256, has_avx2, "avx2 vpmaddwd + vpaddd"},
};

static void read_all(const char *p, size_t n) {
  if (has_avx512()) {
    read512(p, n);
  } else if (has_avx2()) {
    read256(p, n);
  } else {
    read128(p, n);
  }
}

#elif defined(__aarch64__)

LOOP(fma128, "+simd", 16, VEC_REG, 8, "fmla %0.4s, %1.4s, %2.4s")
LOOP(bf128, "arch=armv8.2-a+bf16", 16, VEC_REG, 32, "bfmmla %0.4s, %1.8h, %2.8h")
LOOP(mm128, "arch=armv8.2-a+i8mm", 16, VEC_REG, 64, "smmla %0.4s, %1.16b, %2.16b")
LOOP(dot128, "arch=armv8.2-a+dotprod", 16, VEC_REG, 32, "sdot %0.4s, %1.16b, %2.16b")
LOOP(mla128, "+simd", 16, VEC_REG, 16, "smlal %0.8h, %1.8b, %2.8b")
READ(read128, "+simd", 16, VEC_REG)

static int has(unsigned long kind, unsigned long bit) {
#if defined(__linux__)
  return (getauxval(kind) & bit) != 0;
#else
  (void)kind, (void)bit;
  return 0;
#endif
}

/* Bits of AT_HWCAP (16) and AT_HWCAP2 (26), as the kernel numbers them. */
static int has_dot(void) { return has(16, 1ul << 20); }
static int has_i8mm(void) { return has(26, 1ul << 13); }
static int has_bf16(void) { return has(26, 1ul << 14); }
static int always(void) { return 1; }

static const way ways[] = {
    {EL_PEAK_F32, fma128, always, "neon fmla"},    {EL_PEAK_BF16, bf128, has_bf16, "neon bfmmla"},
    {EL_PEAK_INT8, mm128, has_i8mm, "neon smmla"}, {EL_PEAK_INT8, dot128, has_dot, "neon sdot"},
    {EL_PEAK_INT8, mla128, always, "neon smlal"},
};

static void read_all(const char *p, size_t n) { read128(p, n); }

#else
#error "edgeloop's Python extension runs on x86-64 and aarch64"
#endif

uint64_t el_peak_run(el_peak_kind kind, uint64_t rounds, const char **name) {
  for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
    if (ways[i].kind != kind || !ways[i].here()) continue;
    *name = ways[i].name;
    return ways[i].run(rounds);
  }
  *name = "";
  return 0;
}

uint64_t el_peak_read(const void *data, size_t bytes, uint64_t rounds) {
  bytes -= bytes % 512;
  for (uint64_t r = 0; r < rounds; r++) read_all(data, bytes);
  return bytes * rounds;
}

uint64_t el_peak_copy(void *data, size_t bytes, uint64_t rounds) {
  size_t half = bytes / 2;
  for (uint64_t r = 0; r < rounds; r++) {
    memcpy((char *)data + half, data, half);
    __asm__ volatile("" : : "r"(data) : "memory");
  }
  return (uint64_t)half * 2 * rounds;
}
