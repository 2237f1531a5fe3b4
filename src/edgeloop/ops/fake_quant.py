"""Rounding to a quantization grid and back, with the straight-through gradient.

y = (clamp(round(x / scale) + zero, lo, hi) - zero) * scale, rounding half to even: ONNX's
QuantizeLinear followed by DequantizeLinear. Backward passes the gradient where x was not cut off
(Bengio et al. 2013, arXiv 1308.3432; Jacob et al. 2018, arXiv 1712.05877).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder
from edgeloop.ops.common import elements, normal
from edgeloop.ops.registry import NO_GRAD, Attr, Grads, OpDef, Sample, register

_RANGE = (Attr("lo", default=0), Attr("hi", default=255))


def check_grid(x: Type, scale: Type, zero: Type, axis: int) -> None:
    """Raise ShapeError unless scale and zero have one element or one per index of the axis."""
    fits = scale.shape == (1,) or (axis < x.rank and scale.shape == (x.shape[axis],))
    if not fits or scale.shape != zero.shape:
        raise ShapeError(
            f"fake_quant: scale {scale} and zero {zero} do not fit x {x}; the rule is [1], or one "
            f"element per index of axis {axis}, the same for both"
        )


def _infer(x: Type, scale: Type, zero: Type, *, axis: int = 0, **_: Any) -> Type:
    check_grid(x, scale, zero, axis)
    return x


def _along(a: Array, x: Array, axis: int) -> Array:
    """Shape a vector for broadcasting along ``axis`` of x."""
    return a.reshape((1,) * x.ndim if a.size == 1 else
                     [-1 if i == axis else 1 for i in range(x.ndim)])


def _level(x: Array, scale: Array, zero: Array, axis: int) -> Array:
    level: Array = np.rint(x / _along(scale, x, axis)) + _along(zero, x, axis)
    return level


def _reference(
    x: Array, scale: Array, zero: Array, *, lo: int = 0, hi: int = 255, axis: int = 0
) -> Array:
    level = np.clip(_level(x, scale, zero, axis), lo, hi)
    y: Array = (level - _along(zero, x, axis)) * _along(scale, x, axis)
    return y


def _grad(g: Builder, node: Node, dy: Value) -> Grads:
    return (g.op("fake_quant_grad", dy, *node.inputs, **node.attrs), None, None)


def _grids() -> Iterator[tuple[tuple[Array | None, ...], dict[str, int]]]:
    """Operands after dy: x, scale, zero. Powers of two, so that ties really occur."""
    f = np.float32
    one = (np.array([0.25], f), np.array([3.0], f))
    for shape in ((1,), (3, 5), (2, 7, 33)):
        yield (normal(*shape) * f(2), *one), {"lo": 0, "hi": 15}
    ties = (np.arange(-20, 20, dtype=f) * f(0.125)).reshape(4, 10)
    yield (ties, np.array([0.25], f), np.array([0.0], f)), {"lo": -8, "hi": 7}
    for axis, n in enumerate((2, 7, 33)):
        scale = np.exp2(np.arange(n) % 5 - 4).astype(f)
        yield (normal(2, 7, 33), scale, (np.arange(n) % 3).astype(f)), {
            "lo": -128, "hi": 127, "axis": axis}


def _samples() -> Iterator[Sample]:
    for arrays, attrs in _grids():
        yield Sample(arrays, attrs, wrt=())


FAKE_QUANT = register(OpDef(
    name="fake_quant", kernel="fake_quant", infer=_infer, reference=_reference, grad=_grad,
    samples=_samples, attrs=(*_RANGE, Attr("axis")), inplace=(0,), flops=elements,
))


def _grad_infer(dy: Type, x: Type, scale: Type, zero: Type, *, axis: int = 0, **_: Any) -> Type:
    check_grid(x, scale, zero, axis)
    if dy != x:
        raise ShapeError(f"fake_quant_grad: dy {dy} and x {x} differ; they must be the same")
    return dy


def _grad_reference(
    dy: Array, x: Array, scale: Array, zero: Array, *, lo: int = 0, hi: int = 255, axis: int = 0
) -> Array:
    level = _level(x, scale, zero, axis)
    return np.where((level >= lo) & (level <= hi), dy, np.zeros_like(dy))


def _grad_samples() -> Iterator[Sample]:
    for arrays, attrs in _grids():
        x = arrays[0]
        assert x is not None
        yield Sample((normal(*x.shape, seed=2), *arrays), attrs)


FAKE_QUANT_GRAD = register(OpDef(
    name="fake_quant_grad", kernel="fake_quant_grad", infer=_grad_infer,
    reference=_grad_reference, grad=NO_GRAD, samples=_grad_samples,
    attrs=(*_RANGE, Attr("axis")), inplace=(0, 1), flops=elements,
))


def _range_reference(x: Array, *, lo: int = 0, hi: int = 255) -> tuple[Array, Array]:
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    kind = x.dtype.type
    scale = kind(1) if high == low else (kind(high) - kind(low)) / kind(hi - lo)
    zero = np.rint(np.clip(kind(lo) - kind(low) / scale, lo, hi))
    return np.full(1, scale, kind), np.full(1, zero, kind)


def _range_samples() -> Iterator[Sample]:
    """Ranges whose zero is not near a tie, and one-sided ones."""
    for low, high in ((-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)):
        x = np.linspace(low, high, 37, dtype=np.float32)
        yield Sample((x.reshape(1, 37),))
        yield Sample((x[:5],), {"lo": -127, "hi": 127})


QUANT_RANGE = register(OpDef(
    name="quant_range", kernel="quant_range", infer=lambda *_, **__: (Type((1,)), Type((1,))),
    reference=_range_reference, grad=NO_GRAD, samples=_range_samples, attrs=_RANGE,
    flops=lambda n: n.inputs[0].type.size,  # type: ignore[union-attr]
))
