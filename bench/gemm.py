"""GFLOP/s of the product kernels beside what the core can do at all.

    python bench/gemm.py [--isa avx2] [--seconds 0.3] [--json]

Times each kernel through the C core by the thread's own clock; pin it (taskset -c 1) and read
differences under about 20 % as noise on a shared machine. The peak is a loop of fused
multiply-adds in registers, or of dot products of int8 or bf16 for products in these, compiled
here with the C compiler for the same instruction set. Their times include rounding activations and
packing weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from edgeloop import _core
from edgeloop.ir import NUMPY_NAME, Node, Type, Value
from edgeloop.ops import OPS
from edgeloop.ops.kernels import BELOW, DTYPE_CODE, OPCODES, dense_strides, isas
from edgeloop.ops.quant import random_codes

DTYPE = {numpy: ours for ours, numpy in NUMPY_NAME.items()}
PEAK_C = r"""
#include <stdio.h>
#include <time.h>
typedef float vec __attribute__((vector_size(4 * LANES)));
#ifdef DOT /* of small numbers: OPS operations in each 32-bit lane */
#define STEP(s, a, b) __asm__(DOT : "+" REG(s) : REG(a), REG(b))
#else
#define STEP(s, a, b) s += a * b
#define OPS 2
#endif
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
int main(void) {
  vec s[12], a, b;
#pragma GCC unroll 12
  for (int i = 0; i < 12; i++) {
    s[i] = (vec){0};
    __asm__ volatile("" : "+" REG(s[i])); /* not one sum that is computed once */
  }
  a = (vec){0} + 1.0f;
  b = (vec){0} + 1e-9f;
  double best = 1e9;
  for (int r = 0; r < 50; r++) {
    double t = now();
    for (int n = 0; n < 400000; n++) {
      __asm__ volatile("" : "+" REG(a), "+" REG(b));
#pragma GCC unroll 12
      for (int i = 0; i < 12; i++) STEP(s[i], a, b);
    }
    t = now() - t;
    if (t < best) best = t;
  }
  vec sum = (vec){0};
#pragma GCC unroll 12
  for (int i = 0; i < 12; i++) sum += s[i];
  printf("%.2f %g\n", 400000.0 * 12 * LANES * OPS / best * 1e-9, (double)sum[0]);
}
"""
FLAGS = {
    "avx512": ["-mavx512f", "-mprefer-vector-width=512", "-DLANES=16", '-DREG(x)="v"(x)'],
    "avx2": ["-mavx2", "-mfma", "-DLANES=8", '-DREG(x)="x"(x)'],
    "neon": ["-DLANES=4", '-DREG(x)="w"(x)'],
}
DOT_FLAGS = {
    "avx512vnni": [*FLAGS["avx512"], '-DDOT="vpdpbusd %2, %1, %0"', "-DOPS=8"],
    "avxvnni": [*FLAGS["avx2"], '-DDOT="%{vex%} vpdpbusd %2, %1, %0"', "-DOPS=8"],
    "neoni8mm": [*FLAGS["neon"], "-march=armv8.2-a+i8mm",
                 '-DDOT="smmla %0.4s, %1.16b, %2.16b"', "-DOPS=16"],
    "neondot": [*FLAGS["neon"], "-march=armv8.2-a+dotprod",
                '-DDOT="sdot %0.4s, %1.16b, %2.16b"', "-DOPS=8"],
}
# Pairs of bf16, two products and two sums in each 32-bit lane.
BF16_FLAGS = {"avx512bf16": [*FLAGS["avx512"], '-DDOT="vdpbf16ps %2, %1, %0"', "-DOPS=4"]}


def peak(isa: str, flags: dict[str, list[str]] = FLAGS) -> float:
    """What one core does with registers only, 1e9 operations a second; NaN where there is none.

    Fused multiply-adds of f32, or dot products of int8 (``DOT_FLAGS``) or bf16 (``BF16_FLAGS``),
    of the best instruction set up to ``isa``.
    """
    while isa not in flags and isa != BELOW[isa]:
        isa = BELOW[isa]
    if isa not in flags:
        return float("nan")
    with tempfile.TemporaryDirectory() as d:
        source, program = Path(d, "peak.c"), Path(d, "peak")
        source.write_text(PEAK_C)
        subprocess.run(["cc", "-O2", "-ffp-contract=fast", *flags[isa], str(source), "-o",
                        str(program)], check=True)
        return float(subprocess.run([str(program)], check=True, capture_output=True,
                                    text=True).stdout.split()[0])


def dense(m, n, k):
    """The three products of one dense layer, rows m, k inputs, n outputs."""
    return [
        ("linear", ((m, k), (n, k)), {}), ("linear_dx", ((m, n), (n, k)), {}),
        ("linear_dw", ((m, n), (m, k)), {}),
    ]


def conv(x, w, groups=1, strides=(1, 1), pads=(0, 0, 0, 0)):
    """The three products of one convolution."""
    attrs = {"groups": groups, "strides": strides, "pads": pads}
    y = OPS["conv2d"].infer(Type(x), Type(w), **attrs).shape
    return [
        ("conv2d", (x, w), attrs), ("conv2d_dx", (y, w), attrs | {"in_hw": x[1:3]}),
        ("conv2d_dw", (y, x), attrs | {"kernel": w[1:3]}),
    ]


CASES = {
    "256 cubed": dense(256, 256, 256),
    "DS-CNN pointwise": dense(1000, 64, 64),
    "autoencoder in": dense(16, 128, 640),
    "autoencoder out": dense(16, 640, 128),
    "autoencoder mid": dense(16, 128, 128),
    "LoRA down r=4": dense(1000, 4, 64),
    "LoRA up r=4": dense(1000, 64, 4),
    "LoRA down 640": dense(16, 4, 640),
    "LoRA up 640": dense(16, 640, 4),
    "predict one row": dense(1, 128, 640),
    "KWS stem 10x4": conv((8, 49, 10, 1), (64, 10, 4, 1), strides=(2, 2), pads=(5, 1, 5, 1)),
    "KWS depthwise 3x3": conv((8, 25, 5, 64), (64, 3, 3, 1), groups=64, pads=(1, 1, 1, 1)),
    "HAR conv 1": conv((16, 1, 128, 6), (32, 1, 5, 6), strides=(1, 2), pads=(0, 2, 0, 2)),
    "HAR conv 2": conv((16, 1, 64, 32), (64, 1, 5, 32), strides=(1, 2), pads=(0, 2, 0, 2)),
    "ResNet 3x3": conv((8, 16, 16, 32), (32, 3, 3, 32), pads=(1, 1, 1, 1)),
    "MobileNet dw stride 2": conv((1, 48, 48, 32), (32, 3, 3, 1), groups=32, strides=(2, 2),
                                  pads=(0, 0, 1, 1)),
}


def over_codes(m, n, k):
    """One dense layer in f32 and over codes, forward and back: same work, so times compare."""
    rng = np.random.default_rng(0)
    calls = dense(m, n, k)[:2]
    for kind, group in (("int8", 0), ("int4", 32), ("f16", 0)):
        codes = random_codes(rng, n, k, kind, group, False)
        calls.append((f"qlinear {kind}", ((m, k), *codes), {"group": group}))
        calls.append((f"qlinear_dx {kind}", ((m, n), *codes), {"group": group, "inner": k}))
    codes = random_codes(rng, n, k, "int8", 0, False)[:2]
    return [*calls, ("qlinear_i8", ((m, k), *codes), {}),
            ("qlinear_i8_dx", ((m, n), *codes), {"inner": k})]


for m, n, k in ((256, 256, 256), (1, 768, 768), (16, 192, 192), (16, 768, 768), (64, 192, 768),
                (197, 192, 192), (197, 768, 192), (197, 768, 768)):
    CASES[f"codes {m}x{n}x{k}"] = over_codes(m, n, k)


def on_integers(m, n, k):
    """One dense layer on int8, forward and back."""
    return [c for c in over_codes(m, n, k) if c[0].startswith("qlinear_i8")]


# Layers of a small vision transformer, a convolution as one, a sentence encoder and a Llama block.
for m, n, k in ((788, 192, 768), (788, 768, 192), (788, 768, 768), (1024, 384, 1536),
                (1024, 1536, 384), (512, 256, 1024), (512, 1024, 256), (512, 256, 8192),
                (512, 8192, 256), (128, 2048, 2048), (128, 256, 2048), (128, 5632, 2048),
                (128, 2048, 5632), (128, 32000, 2048)):
    CASES[f"int8 {m}x{n}x{k}"] = on_integers(m, n, k)


def rounded(m, n, k):
    """One dense layer with operands rounded to bfloat16, forward and back."""
    rng = np.random.default_rng(0)
    calls = []
    for kind, group in (("bf16", 0), ("int4", 32)):
        codes = random_codes(rng, n, k, kind, group, False)
        calls.append((f"qlinear_bf16 {kind}", ((m, k), *codes), {"group": group}))
        calls.append((f"qlinear_bf16_dx {kind}", ((m, n), *codes), {"group": group, "inner": k}))
    return calls


for m, n, k in ((1, 768, 768), (512, 512, 512), (788, 192, 192), (788, 768, 192), (788, 192, 768),
                (1024, 384, 384), (1024, 1536, 384), (1024, 384, 1536), (512, 256, 1024),
                (512, 8192, 256), (128, 2048, 2048), (128, 256, 2048), (128, 5632, 2048),
                (128, 2048, 5632)):
    CASES[f"bf16 {m}x{n}x{k}"] = rounded(m, n, k)


def measure(label, inputs, attrs, isa, seconds):
    """Best GFLOP/s of one kernel call, its chunks and its scratch. Inputs: shapes or arrays."""
    name = label.split()[0]
    op = OPS[name]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(a).astype(np.float32) if isinstance(a, tuple) else a
              for a in inputs]
    types = [None if a is None else Type(a.shape, DTYPE[a.dtype.name]) for a in arrays]
    out = op.infer(*types, **attrs)
    operands = [
        None if a is None else
        (a.reshape(-1).view(np.uint8).data, DTYPE_CODE[DTYPE[a.dtype.name]], a.shape,
         dense_strides(a.shape)) for a in [*arrays, np.zeros(out.shape, np.float32)]
    ]
    args = (OPCODES[op.kernel], isa, operands, op.words(attrs), True)
    values = tuple(None if t is None else Value("", t) for t in types)
    node = Node(name, values, (Value("", out),), attrs)
    flops = op.flops(node)
    overhead = min(_overhead(isa) for _ in range(3))
    best, spent = 1e9, 0.0
    while spent < seconds:
        t = time.thread_time()
        chunks, scratch, *_ = _core.call(*args)
        t = time.thread_time() - t
        best, spent = min(best, t), spent + t
    return flops / max(best - overhead, 1e-9) * 1e-9, best - overhead, chunks, scratch


def _overhead(isa):
    """Seconds of a call that does nothing: argument parsing, allocation."""
    a = np.zeros((1, 1), np.float32)
    one = (a.data.cast("B"), DTYPE_CODE["f32"], (1, 1), (1, 1))
    op = OPS["linear"]
    args = (OPCODES[op.kernel], isa, [one, one, one], op.words({}), True)
    best = 1e9
    for _ in range(200):
        t = time.thread_time()
        _core.call(*args)
        best = min(best, time.thread_time() - t)
    return best


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--isa", default=isas()[-1])
    p.add_argument("--seconds", type=float, default=0.2)
    p.add_argument("--only", default="")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    top, dot_top, bf16_top = (peak(a.isa, f) for f in (FLAGS, DOT_FLAGS, BF16_FLAGS))
    rows = []
    for case, calls in CASES.items():
        if a.only not in case:
            continue
        for name, shapes, attrs in calls:
            rate, seconds, chunks, scratch = measure(name, shapes, attrs, a.isa, a.seconds)
            best = dot_top if "_i8" in name else bf16_top if "_bf16" in name else top
            rows.append({"case": case, "kernel": name, "gflops": rate,
                         "share": rate / (best if best > 0 else top), "us": seconds * 1e6,
                         "chunks": chunks, "scratch": scratch})
    if a.json:
        print(json.dumps({"isa": a.isa, "peak_gflops": top, "peak_int8_gops": dot_top,
                          "peak_bf16_gflops": bf16_top, "rows": rows}))
        return
    print(f"{a.isa}: peak {top:.1f} GFLOP/s, int8 dot products {dot_top:.1f} GOP/s, bf16 "
          f"{bf16_top:.1f} GFLOP/s (registers only, one core)")
    for r in rows:
        print(f"{r['case']:22} {r['kernel']:21} {r['gflops']:7.1f} GFLOP/s {r['share']:5.0%} "
              f"{r['us']:9.1f} us  {r['chunks']} chunks  {r['scratch']:7} B scratch")


if __name__ == "__main__":
    main()
