"""Sums, means and maxima over axes, and sum_to: the inverse of broadcasting.

Sums run in one fixed order on every machine (core/kernels/reduce.c).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import arg, axis_of, integers, normal, uniform
from edgeloop.ops.registry import Attr, Grads, OpDef, Sample, register

Axes = tuple[int, ...]


def _infer(x: Type, axes: Axes = (), keepdims: int = 1) -> Type:
    if any(not 0 <= a < x.rank for a in axes) or len(set(axes)) != len(axes):
        raise ShapeError(f"axes {list(axes)} do not fit {x}: different numbers from 0 to rank - 1")
    if keepdims:
        return Type(tuple(1 if i in axes else d for i, d in enumerate(x.shape)))
    return Type(tuple(d for i, d in enumerate(x.shape) if i not in axes))


def _kept(node: Node) -> tuple[int, ...]:
    """Return the output's shape with the reduced axes as 1."""
    assert node.inputs[0] is not None
    axes = node.attrs.get("axes", ())
    return tuple(1 if i in axes else d for i, d in enumerate(node.inputs[0].type.shape))


def _like(g: Builder, v: Value, shape: tuple[int, ...]) -> Value:
    return v if v.type.shape == shape else g.op("reshape", v, shape=shape)


def _sum_grad(g: Builder, node: Node, dy: Value) -> Grads:
    x = node.inputs[0]
    assert x is not None
    return (g.op("broadcast_to", _like(g, dy, _kept(node)), shape=x.type.shape),)


def _mean_grad(g: Builder, node: Node, dy: Value) -> Grads:
    x = node.inputs[0]
    assert x is not None
    share = g.op("mul", dy, g.constant(dy.type.size / x.type.size))
    return (g.op("broadcast_to", _like(g, share, _kept(node)), shape=x.type.shape),)


def _max_grad(g: Builder, node: Node, dy: Value) -> Grads:
    """Share the gradient evenly between elements that tie for the maximum."""
    x = node.inputs[0]
    assert x is not None
    shape = _kept(node)
    won = g.op("equal", x, _like(g, node.output, shape))
    share = g.op("div", _like(g, dy, shape), g.op("sum_to", won, shape=shape))
    return (g.op("mul", won, share),)


def _flops(node: Node) -> int:
    assert node.inputs[0] is not None
    return node.inputs[0].type.size


def _from_onnx(
    op: str, *, square: bool = False, before: str = "", after: str = ""
) -> Callable[[Builder, OnnxNode], Value]:
    """Convert a reduction: axes are an attribute, or since opset 13 (sum) and 18 an input.

    ``before`` and ``after`` name maps around it; ``square`` squares first. Integers are reduced
    as floats, which is exact up to 2**24.
    """

    def convert(g: Builder, n: OnnxNode) -> Value:
        x = arg(g, n)
        rank = x.type.rank
        whole = x.type.dtype == "i32"
        if whole:
            x = g.op("cast", x, dtype="f32")
        if square:
            x = g.op("mul", x, x)
        if before:
            x = g.op(before, x)
        given = integers(n, 1, "axes") or ()
        if given or not n.attrs.get("noop_with_empty_axes", 0):
            axes = tuple(sorted({axis_of(n, a, rank) for a in given or range(rank)}))
            x = g.op(op, x, axes=axes, keepdims=int(n.attrs.get("keepdims", 1)))
        x = g.op(after, x) if after else x
        return g.op("cast", x, dtype="i32") if whole else x

    return convert


def _samples() -> Iterator[Sample]:
    shapes: tuple[tuple[tuple[int, ...], Axes], ...] = (
        ((1,), (0,)), ((9, 40), (0,)), ((3, 77), (1,)), ((2, 5, 6, 4), (1, 2)),
        ((2, 3, 4, 5), (0, 2)), ((3, 4, 5, 6), (1, 3)), ((4, 6), (0, 1)), ((3, 5), ()),
        ((2, 1, 19), (1,)),
    )
    for i, (shape, axes) in enumerate(shapes):
        yield Sample((uniform(0.2, 2, *shape),), {"axes": axes, "keepdims": i % 2})


def _register(
    name: str, reduce: Callable[..., Any], grad: Any,
    onnx: dict[str, Callable[[Builder, OnnxNode], Value]],
) -> None:
    def reference(x: Array, axes: Axes = (), keepdims: int = 1) -> Array:
        return np.asarray(reduce(x, axis=tuple(axes), keepdims=bool(keepdims)))

    register(OpDef(
        name=name, kernel=name, infer=_infer, reference=reference, grad=grad, samples=_samples,
        attrs=(Attr("axes", "i32[..6]", -1), Attr("keepdims", "i32", 1)), flops=_flops, onnx=onnx,
    ))


_register("reduce_sum", np.sum, _sum_grad, {
    "ReduceSum": _from_onnx("reduce_sum"), "ReduceSumSquare": _from_onnx("reduce_sum", square=True),
    "ReduceL1": _from_onnx("reduce_sum", before="abs"),
    "ReduceL2": _from_onnx("reduce_sum", square=True, after="sqrt"),
})
_register("reduce_mean", np.mean, _mean_grad, {"ReduceMean": _from_onnx("reduce_mean")})
_register("reduce_max", np.max, _max_grad, {
    "ReduceMax": _from_onnx("reduce_max"),
    "ReduceMin": _from_onnx("reduce_max", before="neg", after="neg"),
})


def _sum_to_infer(x: Type, shape: tuple[int, ...]) -> Type:
    if len(shape) > x.rank or any(
        d not in (1, e) for d, e in zip(shape[::-1], x.shape[::-1], strict=False)
    ):
        raise ShapeError(f"{x} is not what {list(shape)} broadcasts to")
    return Type(tuple(shape))


def _sum_to_reference(x: Array, shape: tuple[int, ...]) -> Array:
    lead = x.ndim - len(shape)
    axes = tuple(i for i in range(x.ndim) if i < lead or shape[i - lead] == 1)
    return np.asarray(x.sum(axis=axes)).reshape(shape)


def _sum_to_samples() -> Iterator[Sample]:
    cases: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((9, 4, 33), (33,)), ((3, 5), ()), ((2, 5, 7), (5, 1)), ((2, 5, 3), (1, 5, 1)),
        ((2, 3, 4), (2, 3, 4)),
    )
    for a, b in cases:
        yield Sample((uniform(0.2, 2, *a),), {"shape": b})


def _sum_to_grad(g: Builder, node: Node, dy: Value) -> Grads:
    x = node.inputs[0]
    assert x is not None
    return (g.op("broadcast_to", dy, shape=x.type.shape),)


register(OpDef(
    name="sum_to", kernel="sum_to", infer=_sum_to_infer, reference=_sum_to_reference,
    grad=_sum_to_grad, samples=_sum_to_samples, flops=_flops,
))


def _broadcast_infer(x: Type, shape: tuple[int, ...]) -> Type:
    if len(shape) < x.rank or any(
        d not in (1, e) for d, e in zip(x.shape[::-1], shape[::-1], strict=False)
    ):
        raise ShapeError(f"{x} does not broadcast to {list(shape)}")
    return Type(tuple(shape), x.dtype)


def _broadcast_grad(g: Builder, node: Node, dy: Value) -> Grads:
    x = node.inputs[0]
    assert x is not None
    return (g.op("sum_to", dy, shape=x.type.shape),)


def _broadcast_samples() -> Iterator[Sample]:
    for sample in _sum_to_samples():
        shape: tuple[int, ...] = sample.attrs["shape"]
        whole = sample.inputs[0]
        assert whole is not None
        yield Sample((normal(*shape),), {"shape": whole.shape})


def _from_expand(g: Builder, n: OnnxNode) -> Value:
    x, target = arg(g, n), integers(n, 1, "shape") or ()
    try:
        shape = np.broadcast_shapes(x.type.shape, target)
    except ValueError:
        raise ShapeError(f"{x.type} does not expand to {list(target)}") from None
    if math.prod(shape) == 0:
        raise ShapeError(f"{x.type} would expand to the empty shape {list(shape)}")
    return x if shape == x.type.shape else g.op("broadcast_to", x, shape=tuple(shape))


register(OpDef(
    name="broadcast_to", kernel="broadcast_to", infer=_broadcast_infer,
    reference=lambda x, shape: np.ascontiguousarray(np.broadcast_to(x, shape)).reshape(shape),
    grad=_broadcast_grad, samples=_broadcast_samples, onnx={"Expand": _from_expand},
))
