"""Int8 codes of W + s B A, made anew in every step: training sees the rounding of deployment.

The gradient passes straight through the rounding, which cuts nothing off, so that A and B get the
gradients of the factored form; `edgeloop.passes.merge_lora` builds both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type
from edgeloop.ops.linear import ALPHA
from edgeloop.ops.quant import random_codes
from edgeloop.ops.registry import NO_GRAD, OpDef, Sample, register

F32 = np.float32


def _infer(codes: Type, scale: Type, b: Type, a: Type, **_: object) -> tuple[Type, Type]:
    n, k = codes.shape if codes.rank == 2 else (0, 0)
    rank = b.shape[1] if b.rank == 2 else 0
    if codes.dtype != "i8" or (scale.shape, b.shape, a.shape) != ((n, 1), (n, rank), (rank, k)):
        raise ShapeError(f"merge_codes: codes {codes}, scale {scale}, b {b}, a {a}; the rule is "
                         "codes i8[n, k], scale[n, 1], b[n, r], a[r, k]")
    return codes, scale


def _reference(
    codes: Array, scale: Array, b: Array, a: Array, *, alpha: float = 1.0
) -> tuple[Array, Array]:
    """Every operation rounds to f32 in the kernel's order, whatever the operands' type."""
    with np.errstate(all="ignore"):
        w = codes.astype(F32) * scale.astype(F32)
        for r in range(b.shape[1]):
            w = w + (F32(alpha) * b[:, r:r + 1].astype(F32)) * a[r:r + 1].astype(F32)
        top = np.abs(w).max(axis=1, keepdims=True)
        fine = np.isfinite(top)
        live = fine & (top >= F32(2.0**-100))
        step = np.where(live, top / F32(127), F32(1))
        level = np.where(live, np.clip(np.rint(w / step), -127, 127), F32(0))
    return level.astype(np.int8), np.where(fine, step, F32(np.nan)).astype(F32)


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(51)
    for n, k, rank in ((1, 1, 1), (3, 7, 2), (19, 70, 4), (40, 130, 8)):
        codes, scale, _ = random_codes(rng, n, k, "int8", 0, False)
        b, a = (rng.standard_normal(s).astype(F32) for s in ((n, rank), (rank, k)))
        yield Sample((codes, scale, b * F32(0.3), a), {"alpha": 2.0})
    yield Sample((np.zeros((2, 5), np.int8), np.ones((2, 1), F32), np.zeros((2, 1), F32),
                  np.ones((1, 5), F32)))


def _flops(node: Node) -> int:
    codes, _, b, _ = node.inputs
    assert codes is not None
    assert b is not None
    return 4 * codes.type.size * b.type.shape[1]


MERGE_CODES = register(OpDef(
    name="merge_codes", kernel="merge_codes", infer=_infer, reference=_reference, grad=NO_GRAD,
    samples=_samples, attrs=(ALPHA,), flops=_flops,
))


def _from_infer(codes: Type, scale: Type, *, shape: tuple[int, ...]) -> Type:
    n = codes.shape[0] if codes.rank == 2 else 0
    if codes.dtype != "i8" or scale.shape != (n, 1) or math.prod(shape) != codes.size:
        raise ShapeError(f"from_codes: codes {codes} and scale {scale} for a weight {shape}; the "
                         "rule is codes i8[n, k], scale[n, 1]")
    return Type(tuple(shape))


def _from_reference(codes: Array, scale: Array, *, shape: tuple[int, ...]) -> Array:
    w: Array = codes.astype(scale.dtype) * scale
    return w.reshape(shape)


def _from_samples() -> Iterator[Sample]:
    codes, scale, _ = random_codes(np.random.default_rng(52), 4, 6, "int8", 0, False)
    yield Sample((codes, scale), {"shape": (4, 3, 2)})


# What a weight that is computed as codes stands for; `store_base` lets its readers read the codes.
FROM_CODES = register(OpDef(
    name="from_codes", infer=_from_infer, reference=_from_reference, grad=NO_GRAD,
    samples=_from_samples,
))
