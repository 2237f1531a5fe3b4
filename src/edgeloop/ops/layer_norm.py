"""layer_norm: y = (x - mean) / sqrt(var + eps) * scale + bias over the last axis."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import arg, axis_of, normal, uniform
from edgeloop.ops.registry import NO_GRAD, Attr, Grads, OpDef, Sample, register

EPS = 1e-5
_ATTRS = (Attr("eps", "f32", EPS),)


def _infer(x: Type, scale: Type, bias: Type, **_: float) -> Type:
    if x.rank < 1 or not scale.shape == bias.shape == x.shape[-1:]:
        raise ShapeError(
            f"layer_norm takes x [.., n], scale [n] and bias [n]; got {x}, {scale}, {bias}"
        )
    return x


def _hat(x: Array, eps: float) -> Array:
    d = x - x.mean(axis=-1, keepdims=True)
    return np.asarray(d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + eps))


def _reference(x: Array, scale: Array, bias: Array, eps: float = EPS) -> Array:
    return _hat(x, eps) * scale + bias


def _grad(g: Builder, node: Node, dy: Value) -> Grads:
    x, scale, bias = node.inputs
    assert x is not None
    eps = node.attrs.get("eps", EPS)
    dx = dscale = dbias = None
    if g.wants(x):
        dx = g.op("layer_norm_grad", dy, x, scale, eps=eps)
    if scale is not None and g.wants(scale):
        n = x.type.shape[-1:]
        one, zero = g.constant(np.ones(n, np.float32)), g.constant(np.zeros(n, np.float32))
        hat = g.op("layer_norm", x, one, zero, eps=eps)
        dscale = g.op("sum_to", g.op("mul", dy, hat), shape=n)
    if bias is not None and g.wants(bias):
        dbias = g.op("sum_to", dy, shape=bias.type.shape)
    return dx, dscale, dbias


def _samples() -> Iterator[Sample]:
    for shape in ((2, 5), (2, 3, 33), (17,)):
        scale, bias = uniform(0.5, 1.5, shape[-1]), normal(shape[-1], seed=2)
        yield Sample((normal(*shape), scale, bias), {"eps": 1e-3})


def _flops(node: Node) -> int:
    return 8 * node.output.type.size


def _from_onnx(g: Builder, n: OnnxNode) -> Value:
    """Axes from ``axis`` on are normalised as one; only the first output is supported."""
    x = arg(g, n)
    axis = axis_of(n, int(n.attrs.get("axis", -1)), x.type.rank)
    inner = x.type.shape[axis:]

    def vector(i: int, fill: float) -> Value:
        if i >= len(n.inputs) or n.inputs[i] is None:
            return g.constant(np.full(math.prod(inner), fill, np.float32))
        v = arg(g, n, i)
        if v.type.shape != inner:
            v = g.op("broadcast_to", v, shape=inner)
        return v if v.type.rank == 1 else g.op("reshape", v, shape=(math.prod(inner),))

    flat = (*x.type.shape[:axis], math.prod(inner))
    rows = x if x.type.shape == flat else g.op("reshape", x, shape=flat)
    y = g.op("layer_norm", rows, vector(1, 1.0), vector(2, 0.0),
             eps=float(n.attrs.get("epsilon", EPS)))
    return y if y.type == x.type else g.op("reshape", y, shape=x.type.shape)


def from_skip(g: Builder, n: OnnxNode) -> tuple[Value | None, ...]:
    """Convert ONNX Runtime's sum and normalisation in one: input, skip, scale, shift?, bias?.

    Its root mean square form has no shift. The fourth output is the sum.
    """
    simple = n.op_type == "SkipSimplifiedLayerNormalization"
    rest = [*n.inputs[3:], None, None]
    shift, bias = (None, rest[0]) if simple else (rest[0], rest[1])
    total = g.op("add", arg(g, n, 0), arg(g, n, 1))
    total = total if bias is None else g.op("add", total, bias)
    eps = float(n.attrs.get("epsilon", 1e-12))
    if simple:
        return g.op("rms_norm", total, arg(g, n, 2), eps=eps), None, None, total
    zero = np.zeros(total.type.shape[-1:], np.float32)
    y = g.op("layer_norm", total, arg(g, n, 2), g.constant(zero) if shift is None else shift,
             eps=eps)
    return y, None, None, total


register(OpDef(
    name="layer_norm", kernel="layer_norm", infer=_infer, reference=_reference, grad=_grad,
    samples=_samples, attrs=_ATTRS, inplace=(0,), flops=_flops,
    onnx={"LayerNormalization": _from_onnx, "com.microsoft.SkipLayerNormalization": from_skip},
))


def _grad_infer(dy: Type, x: Type, scale: Type, **_: float) -> Type:
    if dy != x:
        raise ShapeError(f"the gradient {dy} has not the type of {x}")
    return _infer(x, scale, scale)


def _grad_reference(dy: Array, x: Array, scale: Array, eps: float = EPS) -> Array:
    h, g = _hat(x, eps), dy * scale
    var = x.var(axis=-1, keepdims=True)
    inner = g - g.mean(axis=-1, keepdims=True) - h * (g * h).mean(axis=-1, keepdims=True)
    return np.asarray(inner / np.sqrt(var + eps))


def _grad_samples() -> Iterator[Sample]:
    for s in _samples():
        x, scale, _ = s.inputs
        assert x is not None
        yield Sample((normal(*x.shape, seed=3), x, scale), s.attrs)


register(OpDef(
    name="layer_norm_grad", kernel="layer_norm_grad", infer=_grad_infer,
    reference=_grad_reference, grad=NO_GRAD, samples=_grad_samples, attrs=_ATTRS,
    inplace=(0, 1), flops=_flops,
))
