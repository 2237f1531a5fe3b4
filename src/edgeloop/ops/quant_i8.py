"""Products of int8 codes computed on integers: qlinear_i8 and its gradient to the input.

The half of int8 training that is safe with a frozen base (SwitchBack, Wortsman et al. 2023, arXiv
2304.13013): x, and dy times the channels' scales, are rounded row by row to -127..127, sums run in
int32. The exact definition stands in core/kernels/quant_i8.h; every variant gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type
from edgeloop.ops.linear import ALPHA, activate, check_optional
from edgeloop.ops.quant import check_codes, random_codes
from edgeloop.ops.registry import NO_GRAD, Attr, OpDef, Sample, register

F32 = np.float32
LONGEST = 131072  # terms of a sum, so that int32 holds it


def scale_rows(t: Array) -> tuple[Array, Array, Array]:
    """Scale f32 rows [m, k] so that the largest magnitude of each is 127.

    Returns the scaled rows, the rows' scales [m, 1] and their largest magnitudes [m, 1]. A row
    whose largest magnitude is below 2^-100 is zero; one with an element that is not finite is zero
    and has the scale NaN.
    """
    t = t.astype(F32)
    top = np.max(np.abs(t), axis=1, keepdims=True)
    fine = np.isfinite(top)
    live = fine & (top >= F32(2.0**-100))
    most = np.where(live, top, F32(1))
    with np.errstate(all="ignore"):
        level = np.where(live, np.where(live, t, F32(0)) * (F32(127) / most), F32(0))
    r = np.where(live, most / F32(127), F32(0))
    return level, np.where(fine, r, F32(np.nan)).astype(F32), top


def round_rows(t: Array) -> tuple[Array, Array]:
    """Round rows of f32 [m, k] to int32 levels; return them and the rows' scales [m, 1]."""
    level, scale, _ = scale_rows(t)
    return np.rint(level).astype(np.int32), scale


def _sum_ok(what: str, terms: int) -> None:
    if terms > LONGEST:
        raise ShapeError(f"{what}: a sum of {terms} terms; int32 holds up to {LONGEST}")


def _infer(
    x: Type, codes: Type, scale: Type, b: Type | None = None, acc: Type | None = None, **_: Any
) -> Type:
    if x.rank < 1 or codes.rank != 2 or codes.dtype != "i8":
        raise ShapeError(f"qlinear_i8: x {x} and codes {codes}; x[.., k], codes i8[n, k]")
    n = codes.shape[0]
    check_codes("qlinear_i8", codes, scale, None, n, x.shape[-1], 0)
    _sum_ok("qlinear_i8", x.shape[-1])
    y = Type((*x.shape[:-1], n))
    check_optional("qlinear_i8: bias", b, (n,))
    check_optional("qlinear_i8: acc", acc, y.shape)
    return y


def _reference(
    x: Array, codes: Array, scale: Array, b: Array | None = None, acc: Array | None = None, *,
    alpha: float = 1.0, act: int = 0,
) -> Array:
    q, r = round_rows(x.reshape(-1, x.shape[-1]))
    total = (q @ codes.astype(np.int32).T).astype(F32)
    with np.errstate(all="ignore"):
        y: Array = F32(alpha) * (total * (r * scale.astype(F32).reshape(1, -1)))
        y = y.reshape(*x.shape[:-1], -1)
        if b is not None:
            y = y + b.astype(F32)
        if acc is not None:
            y = y + acc.astype(F32)
    return activate(y, act)


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(F32)


def _codes(rng: np.random.Generator, n: int, k: int) -> tuple[Array, Array]:
    codes, scale, _ = random_codes(rng, n, k, "int8", 0, False)
    assert scale is not None
    return codes, scale


# Rows, outputs, inputs: one, odd, one panel, several, chunks of rows and of columns, rounding to
# even (the last row of each x below), long sums.
SHAPES = (
    (1, 1, 1), (3, 5, 7), (7, 16, 32), (37, 19, 33), (16, 40, 130), (1, 67, 640), (100, 50, 72),
    (150, 33, 64), (8, 200, 200),
)


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(41)
    for i, (m, n, k) in enumerate(SHAPES):
        x, b = _normal(rng, m, k), _normal(rng, n)
        x[-1] = np.resize(np.array([127, 0.5, 1.5, -2.5, -127], F32), k)
        yield Sample((x, *_codes(rng, n, k), b if i % 2 else None))
    q = _codes(rng, 19, 45)
    yield Sample((_normal(rng, 2, 3, 45), *q, _normal(rng, 19), _normal(rng, 2, 3, 19)),
                 {"alpha": 0.5, "act": 1})
    yield Sample((_normal(rng, 45), *q, None, _normal(rng, 19)), {"act": 2})
    odd = _normal(rng, 5, 45)
    odd[0], odd[1, 3], odd[2, 44], odd[3] = 0, np.nan, -np.inf, 1e-38
    yield Sample((odd, *q), {"act": 1})
    full = (np.full((2, 3000), 127, F32), np.full((3, 3000), -128, np.int8), np.ones((3, 1), F32))
    yield Sample(full)


def _flops(node: Node) -> int:
    x, y = node.inputs[0], node.output
    assert x is not None
    return 2 * y.type.size * x.type.shape[-1]


register(OpDef(
    name="qlinear_i8", kernel="qlinear_i8", infer=_infer, reference=_reference, grad=NO_GRAD,
    samples=_samples, attrs=(ALPHA, Attr("act")), inplace=(4,), flops=_flops,
))

# ---- the gradient to the input ------------------------------------------------------------------


def _dx_infer(
    dy: Type, codes: Type, scale: Type, acc: Type | None = None, *, inner: int, **_: Any
) -> Type:
    if dy.rank < 1 or codes.dtype != "i8":
        raise ShapeError(f"qlinear_i8_dx: dy {dy} and codes {codes}; dy[.., n], codes i8[n, k]")
    check_codes("qlinear_i8_dx", codes, scale, None, dy.shape[-1], inner, 0)
    _sum_ok("qlinear_i8_dx", dy.shape[-1])
    dx = Type((*dy.shape[:-1], inner))
    check_optional("qlinear_i8_dx: acc", acc, dx.shape)
    return dx


def _dx_reference(
    dy: Array, codes: Array, scale: Array, acc: Array | None = None, *, inner: int,
    alpha: float = 1.0,
) -> Array:
    with np.errstate(all="ignore"):
        folded = dy.reshape(-1, dy.shape[-1]).astype(F32) * scale.astype(F32).reshape(1, -1)
        q, r = round_rows(folded)
        dx: Array = F32(alpha) * ((q @ codes.astype(np.int32)).astype(F32) * r)
    dx = dx.reshape(*dy.shape[:-1], inner)
    return dx if acc is None else dx + acc.astype(F32)


def _dx_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(42)
    for i, (m, n, k) in enumerate(SHAPES):
        acc = _normal(rng, m, k) if i % 2 else None
        yield Sample((_normal(rng, m, n), *_codes(rng, n, k), acc),
                     {"inner": k, "alpha": 0.5 if i % 3 else 1.0})
    yield Sample((_normal(rng, 2, 3, 19), *_codes(rng, 19, 45)), {"inner": 45})
    odd = _normal(rng, 4, 19)
    odd[0], odd[1, 3], odd[2, 18] = 0, np.nan, np.inf
    yield Sample((odd, *_codes(rng, 19, 45)), {"inner": 45})


register(OpDef(
    name="qlinear_i8_dx", kernel="qlinear_i8_dx", infer=_dx_infer, reference=_dx_reference,
    grad=NO_GRAD, samples=_dx_samples, attrs=(ALPHA, Attr("inner")), inplace=(3,), flops=_flops,
))
