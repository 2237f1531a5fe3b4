"""Products over codes with both operands rounded to bfloat16: qlinear_bf16 and its gradient.

The operands are those of `qlinear` and `qlinear_dx`, with codes of any kind. x (or dy) and what
the codes mean are rounded by `to_bf16`; products of two bfloat16 are exact in f32, and sums are
f32. The order in which the portable kernel sums stands in core/kernels/quant_bf16.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.ir import Array
from edgeloop.ir.stored import from_bf16, to_bf16
from edgeloop.ops.linear import ALPHA
from edgeloop.ops.quant import GROUP, KINDS, SHAPES, random_codes, weights
from edgeloop.ops.registry import NO_GRAD, OPS, Attr, OpDef, Sample, register

_FORWARD, _BACK = OPS["qlinear"], OPS["qlinear_dx"]


def rounded(t: Array) -> Array:
    """Round to bfloat16 and return ``t``'s float type."""
    return from_bf16(to_bf16(t)).astype(t.dtype)


def _reference(
    x: Array, codes: Array, scale: Array | None = None, zero: Array | None = None,
    *rest: Array | None, group: int = 0, **attrs: Any,
) -> Array:
    w = rounded(weights(codes, scale, zero, x.shape[-1], group, np.float32)).astype(x.dtype)
    y: Array = OPS["linear"].reference(rounded(x), w, *rest, **attrs)
    return y


def _magnitude(
    x: Array, codes: Array, scale: Array | None = None, zero: Array | None = None,
    *rest: Array | None, group: int = 0, alpha: float = 1.0, **_: Any,
) -> tuple[Array, ...]:
    w = rounded(np.abs(weights(codes, scale, zero, x.shape[-1], group, np.float32)))
    more = [None if r is None else np.abs(r) for r in rest]
    return (OPS["linear"].reference(np.abs(rounded(x)), w, *more, alpha=abs(alpha)),)


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def _odd(rng: np.random.Generator, *shape: int) -> Array:
    """Numbers halfway between two bfloat16, below the smallest normal one, and zeros."""
    x = rounded(_normal(rng, *shape))
    flat = x.reshape(-1).view(np.uint32)
    flat[::2] |= 0x8000
    flat[::7] = 0x00012345
    flat[::11] = 0x80000000
    return x


# Rows, outputs, inputs beside those of qlinear: parts of rows and of columns, blocks of terms.
_LARGE = ((300, 70, 260), (130, 40, 2100), (8, 50, 700), (5, 33, 1100))


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(51)
    for i, (m, n, k) in enumerate(SHAPES + _LARGE):
        for kind in (KINDS[-1], KINDS[i % len(KINDS)]):
            b, acc = _normal(rng, n), _normal(rng, m, n)
            q = random_codes(rng, n, k, *kind)
            yield Sample((_normal(rng, m, k), *q, b if i % 2 else None, acc if i % 3 else None),
                         {"group": kind[1], "alpha": 0.5 if i % 2 else 1.0, "act": i % 3})
    q = random_codes(rng, 19, 45, "bf16", 0, False)
    yield Sample((_odd(rng, 2, 3, 45), *q))


register(OpDef(
    name="qlinear_bf16", kernel="qlinear_bf16", infer=_FORWARD.infer, reference=_reference,
    grad=NO_GRAD, samples=_samples, attrs=(ALPHA, Attr("act"), GROUP), inplace=(5,),
    flops=_FORWARD.flops, error=_magnitude,
))

# ---- the gradient to the input ------------------------------------------------------------------


def _dx_reference(
    dy: Array, codes: Array, scale: Array | None = None, zero: Array | None = None,
    *rest: Array | None, inner: int, group: int = 0, **attrs: Any,
) -> Array:
    w = rounded(weights(codes, scale, zero, inner, group, np.float32)).astype(dy.dtype)
    dx: Array = OPS["linear_dx"].reference(rounded(dy), w, *rest, **attrs)
    return dx


def _dx_magnitude(
    dy: Array, codes: Array, scale: Array | None = None, zero: Array | None = None,
    *rest: Array | None, inner: int, group: int = 0, alpha: float = 1.0,
) -> tuple[Array, ...]:
    w = rounded(np.abs(weights(codes, scale, zero, inner, group, np.float32)))
    more = [None if r is None else np.abs(r) for r in rest]
    return (OPS["linear_dx"].reference(np.abs(rounded(dy)), w, *more, alpha=abs(alpha)),)


def _dx_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(52)
    for i, (m, n, k) in enumerate(SHAPES + _LARGE):
        for kind in (KINDS[-1], KINDS[i % len(KINDS)]):
            acc = _normal(rng, m, n) if i % 2 else None
            yield Sample((_normal(rng, m, k), *random_codes(rng, k, n, *kind), acc),
                         {"group": kind[1], "inner": n, "alpha": 0.5 if i % 3 else 1.0})
    q = random_codes(rng, 19, 45, "bf16", 0, False)
    yield Sample((_odd(rng, 2, 3, 19), *q), {"inner": 45})


register(OpDef(
    name="qlinear_bf16_dx", kernel="qlinear_bf16_dx", infer=_BACK.infer, reference=_dx_reference,
    grad=NO_GRAD, samples=_dx_samples, attrs=(ALPHA, GROUP, Attr("inner")), inplace=(4,),
    flops=_BACK.flops, error=_dx_magnitude,
))
