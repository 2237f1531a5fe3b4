"""Products over frozen weights kept as codes: qlinear, its gradient to the input, embedding rows.

A weight is three operands: codes (i8 [out, in]; u8 [out, ceil(in / 2)] for int4, stored as
code + 8, the first element in the low half; f16 or bf16 [out, in]), scale f32 [out, groups] and
zero i8 [out, groups], both absent for f16 and bf16, zero absent where code 0 means 0. It stands for
(code - zero) * scale in f32 (`edgeloop.ir.stored`); the product is that of `linear` over these
values. ``store_base`` puts these operators in after differentiation, so that they have no gradient
rules of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type
from edgeloop.ir.stored import (
    FLOATS,
    dequantize,
    from_bf16,
    groups_of,
    pack4,
    to_bf16,
    unpack4,
)
from edgeloop.ops.linear import ALPHA, activate, check_optional
from edgeloop.ops.registry import NO_GRAD, Attr, OpDef, Sample, register

GROUP = Attr("group")


def check_codes(
    what: str, codes: Type, scale: Type | None, zero: Type | None, rows: int, width: int, group: int
) -> None:
    """Raise ShapeError unless the operands are the codes of a matrix [rows, width]."""
    if codes.dtype not in ("i8", "u8", *FLOATS):
        raise ShapeError(f"{what}: codes {codes} are not i8, u8 (int4), f16 or bf16")
    columns = -(-width // 2) if codes.dtype == "u8" else width
    if codes.shape != (rows, columns):
        raise ShapeError(f"{what}: codes {codes} are not those of a matrix [{rows}, {width}]")
    if codes.dtype in FLOATS:
        if scale is not None or zero is not None or group:
            raise ShapeError(f"{what}: {codes.dtype} has no scale, zero or groups")
        return
    want = (rows, groups_of(width, group))
    if scale is None or scale.dtype != "f32" or scale.shape != want:
        raise ShapeError(f"{what}: scale {scale} is not f32{list(want)}")
    if zero is not None and (zero.dtype != "i8" or zero.shape != want):
        raise ShapeError(f"{what}: zero {zero} is not i8{list(want)}")


def weights(
    codes: Array, scale: Array | None, zero: Array | None, width: int, group: int, dtype: Any
) -> Array:
    """Return the matrix [rows, width] that the operands stand for, in float type ``dtype``."""
    if scale is None:
        return (from_bf16(codes) if codes.dtype == np.uint16 else codes).astype(dtype)
    flat = unpack4(codes, width) if codes.dtype == np.uint8 else codes
    return dequantize(flat, scale, zero, group).astype(dtype)


# ---- qlinear: y = act(alpha * x @ w.T + b + acc) ------------------------------------------------


def _infer(
    x: Type, codes: Type, scale: Type | None = None, zero: Type | None = None,
    b: Type | None = None, acc: Type | None = None, *, group: int = 0, **_: Any,
) -> Type:
    if x.rank < 1 or codes.rank != 2:
        raise ShapeError(f"qlinear: x {x} and codes {codes}; the rule is x[.., k], codes [n, k]")
    n = codes.shape[0]
    check_codes("qlinear", codes, scale, zero, n, x.shape[-1], group)
    y = Type((*x.shape[:-1], n))
    check_optional("qlinear: bias", b, (n,))
    check_optional("qlinear: acc", acc, y.shape)
    return y


def _reference(
    x: Array, codes: Array, scale: Array | None = None, zero: Array | None = None,
    b: Array | None = None, acc: Array | None = None, *, alpha: float = 1.0, act: int = 0,
    group: int = 0,
) -> Array:
    w = weights(codes, scale, zero, x.shape[-1], group, x.dtype)
    y: Array = x.dtype.type(alpha) * (x @ w.T)
    if b is not None:
        y = y + b
    if acc is not None:
        y = y + acc
    return activate(y, act)


def _magnitude(
    x: Array, codes: Array, scale: Array | None = None, zero: Array | None = None,
    b: Array | None = None, acc: Array | None = None, *, alpha: float = 1.0, group: int = 0,
    **_: Any,
) -> tuple[Array, ...]:
    w = np.abs(weights(codes, scale, zero, x.shape[-1], group, np.float64))
    y: Array = abs(alpha) * (np.abs(x) @ w.T)
    for more in (b, acc):
        y = y if more is None else y + np.abs(more)
    return (y,)


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


# Kind, group, with a zero point.
KINDS: tuple[tuple[str, int, bool], ...] = (
    ("int8", 0, False), ("int8", 0, True), ("int4", 32, False), ("int4", 64, True),
    ("int4", 0, True), ("int4", 5, True), ("int8", 16, False), ("f16", 0, False),
    ("bf16", 0, False),
)


def random_codes(
    rng: np.random.Generator, rows: int, width: int, kind: str, group: int, zero: bool
) -> tuple[Array, Array | None, Array | None]:
    """Return codes, scale and zero of a random matrix of standard deviation about 1."""
    if kind in FLOATS:
        w = _normal(rng, rows, width)
        return (to_bf16(w) if kind == "bf16" else w.astype(np.float16)), None, None
    groups = groups_of(width, group)
    high = 127 if kind == "int8" else 7
    codes = rng.integers(-high, high, (rows, width), np.int8, endpoint=True)
    scale = (rng.uniform(1, 2, (rows, groups)) / high).astype(np.float32)
    offset = rng.integers(-high // 4, high // 4, (rows, groups), np.int8) if zero else None
    return (pack4(codes) if kind == "int4" else codes), scale, offset


# Rows, outputs, inputs: one, odd, few rows with a long sum, few outputs, several blocks.
SHAPES = ((1, 1, 1), (3, 5, 7), (37, 19, 33), (16, 40, 130), (1, 67, 640), (100, 50, 72))


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(21)
    for i, (m, n, k) in enumerate(SHAPES):
        for kind in KINDS[i % 2 :: 2]:
            yield Sample((_normal(rng, m, k), *random_codes(rng, n, k, *kind)), {"group": kind[1]})
    q = random_codes(rng, 19, 45, "int8", 0, False)
    yield Sample((_normal(rng, 2, 3, 45), *q, _normal(rng, 19), _normal(rng, 2, 3, 19)),
                 {"alpha": 0.5, "act": 1})
    yield Sample((_normal(rng, 45), *q, None, _normal(rng, 19)), {"act": 2})
    q = random_codes(rng, 120, 700, "int4", 32, True)
    yield Sample((_normal(rng, 20, 700), *q, _normal(rng, 120)), {"group": 32})
    yield Sample((_normal(rng, 1, 700), *q, _normal(rng, 120)), {"group": 32})


def _flops(node: Node) -> int:
    x, y = node.inputs[0], node.output
    assert x is not None
    return 2 * y.type.size * x.type.shape[-1]


register(OpDef(
    name="qlinear", kernel="qlinear", infer=_infer, reference=_reference, grad=NO_GRAD,
    samples=_samples, attrs=(ALPHA, Attr("act"), GROUP), inplace=(5,), flops=_flops,
    error=_magnitude,
))

# ---- qlinear_dx: dx = alpha * dy @ w + acc ------------------------------------------------------


def _dx_infer(
    dy: Type, codes: Type, scale: Type | None = None, zero: Type | None = None,
    acc: Type | None = None, *, inner: int, group: int = 0, **_: Any,
) -> Type:
    if dy.rank < 1:
        raise ShapeError(f"qlinear_dx: dy {dy}; the rule is dy[.., n], codes [n, k]")
    check_codes("qlinear_dx", codes, scale, zero, dy.shape[-1], inner, group)
    dx = Type((*dy.shape[:-1], inner))
    check_optional("qlinear_dx: acc", acc, dx.shape)
    return dx


def _dx_reference(
    dy: Array, codes: Array, scale: Array | None = None, zero: Array | None = None,
    acc: Array | None = None, *, inner: int, alpha: float = 1.0, group: int = 0,
) -> Array:
    dx: Array = dy.dtype.type(alpha) * (dy @ weights(codes, scale, zero, inner, group, dy.dtype))
    return dx if acc is None else dx + acc


def _dx_magnitude(
    dy: Array, codes: Array, scale: Array | None = None, zero: Array | None = None,
    acc: Array | None = None, *, inner: int, alpha: float = 1.0, group: int = 0,
) -> tuple[Array, ...]:
    w = np.abs(weights(codes, scale, zero, inner, group, np.float64))
    dx: Array = abs(alpha) * (np.abs(dy) @ w)
    return (dx if acc is None else dx + np.abs(acc),)


def _dx_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(22)
    for i, (m, n, k) in enumerate(SHAPES):
        for kind in KINDS[i % 2 :: 2]:
            q = random_codes(rng, n, k, *kind)
            yield Sample((_normal(rng, m, n), *q), {"group": kind[1], "inner": k})
    q = random_codes(rng, 19, 45, "int8", 0, False)
    yield Sample((_normal(rng, 2, 3, 19), *q, _normal(rng, 2, 3, 45)), {"alpha": 0.5, "inner": 45})
    q = random_codes(rng, 700, 120, "int4", 32, True)
    yield Sample((_normal(rng, 20, 700), *q), {"group": 32, "inner": 120})


register(OpDef(
    name="qlinear_dx", kernel="qlinear_dx", infer=_dx_infer, reference=_dx_reference,
    grad=NO_GRAD, samples=_dx_samples, attrs=(ALPHA, GROUP, Attr("inner")), inplace=(4,),
    flops=_flops, error=_dx_magnitude,
))

# ---- qgather: rows of an embedding -------------------------------------------------------------


def _gather_infer(
    codes: Type, scale: Type | None, zero: Type | None, index: Type, *, inner: int, group: int = 0,
) -> Type:
    if codes.rank != 2 or index.dtype != "i32":
        raise ShapeError(f"qgather: codes {codes} and index {index}; indices are i32")
    check_codes("qgather", codes, scale, zero, codes.shape[0], inner, group)
    return Type((*index.shape, inner))


def _gather_reference(
    codes: Array, scale: Array | None, zero: Array | None, index: Array, *, inner: int,
    group: int = 0,
) -> Array:
    """Indices below 0 count from the end, others go to the nearest end, as in gather."""
    n = codes.shape[0]
    wide = np.asarray(index).astype(np.int64)
    at = np.clip(np.where(wide < 0, wide + n, wide), 0, n - 1)
    dtype = np.float32 if scale is None else scale.dtype
    return np.asarray(weights(codes, scale, zero, inner, group, dtype)[at])


def _gather_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(23)
    for i, kind in enumerate(KINDS):
        width = 7 + 13 * i
        index = rng.integers(0, 9, (2, 3)[: i % 3], np.int32)
        yield Sample((*random_codes(rng, 9, width, *kind), np.asarray(index, np.int32)),
                     {"inner": width, "group": kind[1]})
    far = np.array([99, -1, -99, 2**31 - 1, -(2**31)], np.int32)
    yield Sample((*random_codes(rng, 4, 5, "int8", 0, False), far), {"inner": 5})


register(OpDef(
    name="qgather", kernel="qgather", infer=_gather_infer, reference=_gather_reference,
    grad=NO_GRAD, samples=_gather_samples, attrs=(GROUP, Attr("inner")),
    flops=lambda n: n.output.type.size,
))
