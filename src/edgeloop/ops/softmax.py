"""Softmax and log-softmax over the last axis; converters transpose for any other axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import arg, axis_of, elements, need_rank, normal, same_as_all, uniform
from edgeloop.ops.registry import NO_GRAD, Grads, OpDef, Sample, register

SHAPES = ((1, 1), (3, 5), (2, 3, 33), (17,))


def _infer(x: Type, v: Type | None = None) -> Type:
    need_rank(x, 1, "softmax")
    return x if v is None else same_as_all(x, v)


def softmax(x: Array) -> Array:
    """Return exp(x) / sum(exp(x)) over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def log_softmax(x: Array) -> Array:
    """Return log(softmax(x)) over the last axis, without underflow."""
    t = x - x.max(axis=-1, keepdims=True)
    return np.asarray(t - np.log(np.exp(t).sum(axis=-1, keepdims=True)))


def _rule(name: str) -> Callable[[Builder, Node, Value], Grads]:
    return lambda g, node, dy: (g.op(name, dy, node.output),)


def _from_onnx(op: str) -> Callable[[Builder, OnnxNode], Value]:
    def convert(g: Builder, n: OnnxNode) -> Value:
        x = arg(g, n)
        shape = x.type.shape
        old = n.opset < 13
        axis = axis_of(n, int(n.attrs.get("axis", 1 if old else -1)), max(x.type.rank, 1))
        if old:  # until opset 12 all axes from `axis` on were one
            flat = g.op("reshape", x, shape=(math.prod(shape[:axis]), math.prod(shape[axis:])))
            return g.op("reshape", g.op(op, flat), shape=shape)
        if axis == x.type.rank - 1:
            return g.op(op, x)
        perm = [i for i in range(x.type.rank) if i != axis]
        perm.append(axis)
        y = g.op(op, g.op("transpose", x, perm=tuple(perm)))
        return g.op("transpose", y, perm=tuple(perm.index(i) for i in range(x.type.rank)))

    return convert


def _samples() -> Iterator[Sample]:
    for shape in SHAPES:
        yield Sample((normal(*shape),))


def _grad_samples() -> Iterator[Sample]:
    for shape in SHAPES:
        yield Sample((normal(*shape, seed=2), uniform(-2, 0, *shape)))


def _softmax_grad(dy: Array, y: Array) -> Array:
    return np.asarray(y * (dy - (dy * y).sum(axis=-1, keepdims=True)))


def _log_softmax_grad(dy: Array, y: Array) -> Array:
    return np.asarray(dy - np.exp(y) * dy.sum(axis=-1, keepdims=True))


register(OpDef(
    name="softmax", kernel="softmax", infer=_infer, reference=softmax, samples=_samples,
    grad=_rule("softmax_grad"), inplace=(0,), flops=elements,
    onnx={"Softmax": _from_onnx("softmax")},
))
register(OpDef(
    name="softmax_grad", kernel="softmax_grad", infer=_infer, reference=_softmax_grad,
    samples=_grad_samples, grad=NO_GRAD, inplace=(0, 1), flops=elements,
))
register(OpDef(
    name="log_softmax", kernel="log_softmax", infer=_infer, reference=log_softmax,
    samples=_samples, grad=_rule("log_softmax_grad"), flops=elements,
    onnx={"LogSoftmax": _from_onnx("log_softmax")},
))
register(OpDef(
    name="log_softmax_grad", kernel="log_softmax_grad", infer=_infer,
    reference=_log_softmax_grad, samples=_grad_samples, grad=NO_GRAD, inplace=(0, 1),
    flops=elements,
))
