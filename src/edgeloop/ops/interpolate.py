"""interpolate: weighted picks along one axis, which is how images and signals are resized.

y[.., i, ..] = sum_t weight[i, t] * x[.., index[i, t], ..], taps t in order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder
from edgeloop.ops.common import normal
from edgeloop.ops.registry import NO_GRAD, Attr, Grads, OpDef, Sample, register
from edgeloop.ops.resize import ONNX


def _check(what: str, index: Type, weight: Type) -> None:
    if index.dtype != "i32" or index.rank != 2 or weight != Type(index.shape):
        raise ShapeError(f"{what}: index {index} and weight {weight} must be [out, taps]")


def _infer(x: Type, index: Type, weight: Type, axis: int) -> Type:
    _check("interpolate", index, weight)
    if x.dtype != "f32" or not 0 <= axis < x.rank:
        raise ShapeError(f"interpolate: axis {axis} is not one of f32 {x}")
    return Type((*x.shape[:axis], index.shape[0], *x.shape[axis + 1 :]))


def _inside(index: Array, dim: int) -> Array:
    """As the kernel does it: to the nearest end."""
    return np.clip(index, 0, dim - 1)


def _reference(x: Array, index: Array, weight: Array, axis: int) -> Array:
    at = _inside(index, x.shape[axis])
    shape = [-1 if i == axis else 1 for i in range(x.ndim)]
    return np.asarray(sum(
        np.take(x, at[:, t], axis) * weight[:, t].reshape(shape) for t in range(at.shape[1])
    ))


def _grad(g: Builder, node: Node, dy: Value) -> Grads:
    x, index, weight = node.inputs
    assert x is not None
    axis = node.attrs["axis"]
    dx = g.op("interpolate_grad", dy, index, weight, axis=axis, dim=x.type.shape[axis])
    return dx, None, None


_CASES: tuple[tuple[tuple[int, ...], int, int, int], ...] = (
    ((1,), 0, 1, 1), ((5,), 0, 9, 2), ((2, 7, 3), 1, 4, 4), ((3, 4, 5, 70), 2, 10, 2),
    ((2, 3, 6), 2, 3, 3),
)


def _picks(dim: int, out: int, taps: int) -> tuple[Array, Array]:
    index = np.random.default_rng(4).integers(-1, dim + 1, (out, taps)).astype(np.int32)
    return index, normal(out, taps, seed=5)


def _samples() -> Iterator[Sample]:
    for shape, axis, out, taps in _CASES:
        picks = _picks(shape[axis], out, taps)
        yield Sample((normal(*shape), *picks), {"axis": axis}, wrt=(0,))


register(OpDef(
    name="interpolate", kernel="interpolate", infer=_infer, reference=_reference, grad=_grad,
    samples=_samples, attrs=(Attr("axis"),), onnx=ONNX,
    flops=lambda n: 2 * n.output.type.size * n.inputs[1].type.shape[1],  # type: ignore[union-attr]
))


def _grad_infer(dy: Type, index: Type, weight: Type, axis: int, dim: int) -> Type:
    _check("interpolate_grad", index, weight)
    if not 0 <= axis < dy.rank or dy.shape[axis] != index.shape[0] or dim < 1:
        raise ShapeError(f"interpolate_grad: {dy} does not fit {index} along axis {axis}")
    return Type((*dy.shape[:axis], dim, *dy.shape[axis + 1 :]))


def _grad_reference(dy: Array, index: Array, weight: Array, axis: int, dim: int) -> Array:
    at = _inside(index, dim)
    lines = dy.reshape(math.prod(dy.shape[:axis]), dy.shape[axis], -1)
    dx = np.zeros((len(lines), dim, lines.shape[2]), dy.dtype)
    for i, t in np.ndindex(at.shape):
        dx[:, at[i, t]] += weight[i, t] * lines[:, i]
    return dx.reshape(*dy.shape[:axis], dim, *dy.shape[axis + 1 :])


def _grad_samples() -> Iterator[Sample]:
    for shape, axis, out, taps in _CASES:
        y = (*shape[:axis], out, *shape[axis + 1 :])
        attrs = {"axis": axis, "dim": shape[axis]}
        yield Sample((normal(*y), *_picks(shape[axis], out, taps)), attrs)


register(OpDef(
    name="interpolate_grad", kernel="interpolate_grad", infer=_grad_infer,
    reference=_grad_reference, grad=NO_GRAD, samples=_grad_samples,
    attrs=(Attr("axis"), Attr("dim")),
    flops=lambda n: 2 * n.inputs[0].type.size * n.inputs[1].type.shape[1],  # type: ignore[union-attr]
))
