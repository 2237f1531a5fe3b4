"""group_norm: normalise each group of channels over all positions (Wu & He 2018), channels last.

y = (x - mean) / sqrt(var + eps) * scale + bias for x [b, .., c], statistics over the positions and
the c / groups channels of a group. One channel a group is instance normalisation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeloop.errors import ModelError, ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import arg, normal, uniform
from edgeloop.ops.onnx_helpers import transposed
from edgeloop.ops.registry import NO_GRAD, Attr, Grads, OpDef, Sample, register

EPS = 1e-5
_ATTRS = (Attr("groups", "i32", 1), Attr("eps", "f32", EPS))


def _infer(
    x: Type, scale: Type | None = None, bias: Type | None = None, groups: int = 1,
    eps: float = EPS,
) -> Type:
    del eps
    vectors = [t for t in (scale, bias) if t is not None]
    if x.rank < 2 or any(t.shape != x.shape[-1:] for t in vectors):
        raise ShapeError(f"group_norm takes x [b, .., c], scale [c] and bias [c]; got {x}, "
                         f"{scale}, {bias}")
    if groups < 1 or x.shape[-1] % groups:
        raise ShapeError(f"group_norm: {x.shape[-1]} channels of {x} do not divide into {groups} "
                         "groups")
    return x


def _grouped(x: Array, groups: int) -> Array:
    """View x [b, .., c] as [b, positions, groups, c / groups]."""
    return x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)


def _hat(x: Array, groups: int, eps: float) -> Array:
    v = _grouped(x, groups)
    d = v - v.mean(axis=(1, 3), keepdims=True)
    h = d / np.sqrt((d * d).mean(axis=(1, 3), keepdims=True) + eps)
    return np.asarray(h.reshape(x.shape))


def _reference(
    x: Array, scale: Array | None = None, bias: Array | None = None, groups: int = 1,
    eps: float = EPS,
) -> Array:
    y = _hat(x, groups, eps)
    y = y if scale is None else y * scale
    return np.asarray(y if bias is None else y + bias)


def _grad(g: Builder, node: Node, dy: Value) -> Grads:
    x, scale, bias = (*node.inputs, None, None)[:3]
    assert x is not None
    dx = dscale = dbias = None
    if g.wants(x):
        dx = g.op("group_norm_grad", dy, x, *(() if scale is None else (scale,)), **node.attrs)
    if scale is not None and g.wants(scale):
        hat = g.op("group_norm", x, **node.attrs)
        dscale = g.op("sum_to", g.op("mul", dy, hat), shape=scale.type.shape)
    if bias is not None and g.wants(bias):
        dbias = g.op("sum_to", dy, shape=bias.type.shape)
    return (dx, dscale, dbias)[:len(node.inputs)]


def _samples() -> Iterator[Sample]:
    for shape, groups in (((2, 3, 5, 6), 2), ((1, 7, 20), 20), ((3, 8), 4), ((2, 70, 18), 1)):
        scale, bias = uniform(0.5, 1.5, shape[-1]), normal(shape[-1], seed=2)
        if len(shape) == 2:  # two values a group: keep them apart, or the slope is all there is
            x = normal(*shape) + np.float32(4) * (np.arange(8, dtype=np.float32) % 2)
        else:
            x = normal(*shape)
        yield Sample((x, scale, bias), {"groups": groups, "eps": 1e-3})
    yield Sample((normal(2, 9, 6),), {"groups": 3, "eps": 1e-3})
    yield Sample((normal(2, 9, 6), None, normal(6, seed=2)), {"groups": 6, "eps": 1e-3})


def _flops(node: Node) -> int:
    return 8 * node.output.type.size


def _last(g: Builder, n: OnnxNode, scale: Value, bias: Value, groups: int) -> Value:
    """Normalise ONNX's [b, c, ..] with the channels last."""
    x = arg(g, n)
    rank = x.type.rank
    if rank < 3:
        raise ModelError(f"{n.op_type} node '{n.name}': input {x.type} has no positions")
    y = g.op("group_norm", transposed(g, x, (0, *range(2, rank), 1)), scale, bias, groups=groups,
             eps=float(n.attrs.get("epsilon", EPS)))
    return transposed(g, y, (0, rank - 1, *range(1, rank - 1)))


def _from_instance(g: Builder, n: OnnxNode) -> Value:
    return _last(g, n, arg(g, n, 1), arg(g, n, 2), arg(g, n).type.shape[1])


def _from_group(g: Builder, n: OnnxNode) -> Value:
    """Opset 18 has scale and bias per group, opset 21 per channel."""
    channels = arg(g, n).type.shape[1]
    groups = int(n.attrs["num_groups"])

    def vector(i: int) -> Value:
        v = arg(g, n, i)
        if n.opset >= 21 or groups == channels or v.type.size != groups:
            return v
        array = g.const(v)
        if array is not None:
            return g.constant(np.repeat(array, channels // groups), v.name)
        each = g.op("reshape", v, shape=(groups, 1))
        each = g.op("broadcast_to", each, shape=(groups, channels // groups))
        return g.op("reshape", each, shape=(channels,))

    return _last(g, n, vector(1), vector(2), groups)


register(OpDef(
    name="group_norm", kernel="group_norm", infer=_infer, reference=_reference, grad=_grad,
    samples=_samples, attrs=_ATTRS, inplace=(0,), flops=_flops,
    onnx={
        "InstanceNormalization": _from_instance, "GroupNormalization": _from_group,
        "com.microsoft.GroupNormalization": _from_group,  # opset 18 to 20: see importer/load.py
    },
))


def _grad_infer(
    dy: Type, x: Type, scale: Type | None = None, groups: int = 1, eps: float = EPS
) -> Type:
    if dy != x:
        raise ShapeError(f"the gradient {dy} has not the type of {x}")
    return _infer(x, scale, None, groups, eps)


def _grad_reference(
    dy: Array, x: Array, scale: Array | None = None, groups: int = 1, eps: float = EPS
) -> Array:
    h = _grouped(_hat(x, groups, eps), groups)
    g = _grouped(dy if scale is None else dy * scale, groups)
    var = _grouped(x, groups).var(axis=(1, 3), keepdims=True)
    mean_g, mean_gh = (v.mean(axis=(1, 3), keepdims=True) for v in (g, g * h))
    return np.asarray(((g - mean_g - h * mean_gh) / np.sqrt(var + eps)).reshape(x.shape))


def _grad_samples() -> Iterator[Sample]:
    for s in _samples():
        x, *rest = s.inputs
        assert x is not None
        yield Sample((normal(*x.shape, seed=3), x, *rest[:1]), s.attrs)


register(OpDef(
    name="group_norm_grad", kernel="group_norm_grad", infer=_grad_infer,
    reference=_grad_reference, grad=NO_GRAD, samples=_grad_samples, attrs=_ATTRS,
    inplace=(0, 1), flops=_flops,
))
