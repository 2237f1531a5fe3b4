"""rms_norm: y = x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich 2019)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import arg, axis_of, normal, uniform
from edgeloop.ops.layer_norm import from_skip
from edgeloop.ops.onnx_helpers import bare
from edgeloop.ops.registry import NO_GRAD, Attr, Grads, OpDef, Sample, register

EPS = 1e-5
_ATTRS = (Attr("eps", "f32", EPS),)


def _infer(x: Type, weight: Type | None = None, **_: float) -> Type:
    if x.rank < 1 or (weight is not None and weight.shape != x.shape[-1:]):
        raise ShapeError(f"rms_norm takes x [.., n] and weight [n]; got {x}, {weight}")
    return x


def _hat(x: Array, eps: float) -> Array:
    return np.asarray(x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps))


def _reference(x: Array, weight: Array | None = None, eps: float = EPS) -> Array:
    h = _hat(x, eps)
    return h if weight is None else np.asarray(h * weight)


def _grad(g: Builder, node: Node, dy: Value) -> Grads:
    x, weight = (*node.inputs, None)[:2]
    assert x is not None
    eps = node.attrs.get("eps", EPS)
    dx = dweight = None
    if g.wants(x):
        dx = g.op("rms_norm_grad", dy, *(v for v in (x, weight) if v is not None), eps=eps)
    if weight is not None and g.wants(weight):
        hat = g.op("rms_norm", x, eps=eps)
        dweight = g.op("sum_to", g.op("mul", dy, hat), shape=weight.type.shape)
    return (dx, dweight)[:len(node.inputs)]


def _samples() -> Iterator[Sample]:
    for shape in ((2, 5), (2, 3, 33), (17,)):
        yield Sample((normal(*shape), uniform(0.5, 1.5, shape[-1])), {"eps": 1e-3})
    yield Sample((normal(3, 19),), {"eps": 1e-3})


def _flops(node: Node) -> int:
    return 5 * node.output.type.size


def _from_onnx(g: Builder, n: OnnxNode) -> Value:
    """Axes from ``axis`` on are normalised as one; only the first output is supported."""
    x = arg(g, n)
    axis = axis_of(n, int(n.attrs.get("axis", -1)), x.type.rank)
    inner = x.type.shape[axis:]
    size = math.prod(inner)
    weight = n.inputs[1] if len(n.inputs) > 1 else None
    if weight is not None:
        if weight.type.shape != inner:
            weight = g.op("broadcast_to", weight, shape=inner)
        weight = bare(g, weight, (size,))
    rows = bare(g, x, (*x.type.shape[:axis], size))
    y = g.op("rms_norm", *(v for v in (rows, weight) if v is not None),
             eps=float(n.attrs.get("epsilon", EPS)))
    return bare(g, y, x.type.shape)


register(OpDef(
    name="rms_norm", kernel="rms_norm", infer=_infer, reference=_reference, grad=_grad,
    samples=_samples, attrs=_ATTRS, inplace=(0,), flops=_flops,
    onnx={
        "RMSNormalization": _from_onnx,
        "com.microsoft.SimplifiedLayerNormalization": _from_onnx,
        "com.microsoft.SkipSimplifiedLayerNormalization": from_skip,
    },
))


def _grad_infer(dy: Type, x: Type, weight: Type | None = None, **_: float) -> Type:
    if dy != x:
        raise ShapeError(f"the gradient {dy} has not the type of {x}")
    return _infer(x, weight)


def _grad_reference(dy: Array, x: Array, weight: Array | None = None, eps: float = EPS) -> Array:
    h, g = _hat(x, eps), dy if weight is None else dy * weight
    inner = g - h * (g * h).mean(axis=-1, keepdims=True)
    return np.asarray(inner / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps))


def _grad_samples() -> Iterator[Sample]:
    for s in _samples():
        x = s.inputs[0]
        assert x is not None
        yield Sample((normal(*x.shape, seed=3), *s.inputs), s.attrs)


register(OpDef(
    name="rms_norm_grad", kernel="rms_norm_grad", infer=_grad_infer, reference=_grad_reference,
    grad=NO_GRAD, samples=_grad_samples, attrs=_ATTRS, inplace=(0, 1), flops=_flops,
))
