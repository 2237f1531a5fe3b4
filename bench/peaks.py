"""What one core can do at all: products and sums in registers, no memory, by kind of number."""

from __future__ import annotations

from gemm import BF16_FLAGS, DOT_FLAGS, peak

from edgeloop.ops.kernels import isas


def peaks() -> dict[str, float]:
    """1e9 operations a second of one core for each mode; int4 is computed in f32.

    NaN where the machine has no instruction for a kind of number.
    """
    best = isas()[-1]
    f32 = peak(best)
    return {"f32": f32, "int4": f32, "int8": peak(best, DOT_FLAGS), "bf16": peak(best, BF16_FLAGS)}
