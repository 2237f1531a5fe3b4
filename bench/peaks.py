"""What one core can do at all: products and sums in registers, no memory, by kind of number."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from gemm import peak

from edgeloop.ops.kernels import isas

# What one instruction does to an accumulator, for the first of them that the compiler's host has.
DOT_C = r"""
#include <immintrin.h>
#include <stdio.h>
#include <time.h>
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
#if defined(INT8) && defined(__AVX512VNNI__)
typedef __m512i acc, arg;
#define SET _mm512_set1_epi8(1)
#define DOT(s, a, b) _mm512_dpbusd_epi32(s, a, b)
#define OPS 128
#elif defined(INT8) && defined(__AVXVNNI__)
typedef __m256i acc, arg;
#define SET _mm256_set1_epi8(1)
#define DOT(s, a, b) _mm256_dpbusd_avx_epi32(s, a, b)
#define OPS 64
#elif defined(BF16) && defined(__AVX512BF16__)
typedef __m512 acc;
typedef __m512bh arg;
#define SET ((__m512bh)_mm512_set1_epi16(0x3f80))
#define DOT(s, a, b) _mm512_dpbf16_ps(s, a, b)
#define OPS 64
#else
#define OPS 0
#endif
#if OPS
#define N 400000
int main(void) {
  acc s[12] = {0};
  arg a = SET, b = SET;
  double best = 1e9;
  for (int r = 0; r < 50; r++) {
    double t = now();
    for (int n = 0; n < N; n++) {
      __asm__ volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 12
      for (int i = 0; i < 12; i++) s[i] = DOT(s[i], a, b);
    }
    t = now() - t;
    if (t < best) best = t;
  }
  volatile acc keep;
  for (int i = 0; i < 12; i++) keep = s[i];
  (void)keep;
  printf("%.2f\n", (double)N * 12 * OPS / best * 1e-9);
}
#else
int main(void) { printf("nan\n"); }
#endif
"""


def dot_peak(kind: str) -> float:
    """Products and sums of "INT8" or "BF16" numbers, 1e9 a second; NaN where there is no
    instruction for them (x86-64 only)."""
    with tempfile.TemporaryDirectory() as d:
        source, program = Path(d, "dot.c"), Path(d, "dot")
        source.write_text(DOT_C)
        made = subprocess.run(["cc", "-O2", "-march=native", f"-D{kind}", str(source), "-o",
                               str(program)], capture_output=True, check=False)
        if made.returncode:
            return float("nan")
        return float(subprocess.run([str(program)], check=True, capture_output=True,
                                    text=True).stdout)


def peaks() -> dict[str, float]:
    """1e9 operations a second of one core for each mode; int4 is computed in f32."""
    f32 = peak(isas()[-1])
    return {"f32": f32, "int4": f32, "int8": dot_peak("INT8"), "bf16": dot_peak("BF16")}
