"""dropout: y = x / (1 - p) where kept, else 0; and detach, which stops gradients.

Srivastava et al. 2014. Element i of step t is kept where a hash of (seed, t, i) says so: the mask
is computed again in backward, never stored, and is the same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder
from edgeloop.ops.common import elements, normal, same
from edgeloop.ops.registry import Attr, Grads, OpDef, Sample, register


def _infer(x: Type, step: Type, *, p: float, seed: int = 0) -> Type:
    del seed
    if step != Type((1,)) or not 0 <= p < 1:
        raise ShapeError(f"dropout takes x, a step f32[1] and 0 <= p < 1; got {x}, {step}, p={p}")
    return x


def mix(u: Array) -> Array:
    """Scatter 32-bit words: a bijection with good avalanche."""
    u = u ^ (u >> np.uint32(16))
    u = u * np.uint32(0x85EBCA6B)
    u = u ^ (u >> np.uint32(13))
    u = u * np.uint32(0xC2B2AE35)
    return np.asarray(u ^ (u >> np.uint32(16)))


def kept(size: int, step: float, p: float, seed: int) -> Array:
    """Return which of ``size`` elements are kept, as the kernel draws it: bool [size]."""
    counter = np.asarray([step], np.float32).view(np.uint32)
    key = mix(mix(np.asarray([seed & 0xFFFFFFFF], np.uint32)) + counter)
    u = mix(np.arange(size, dtype=np.uint32) * np.uint32(0x9E3779B9) + key)
    return np.asarray((u >> np.uint32(8)) >= np.uint32(np.float32(p) * np.float32(2**24)))


def _reference(x: Array, step: Array, *, p: float, seed: int = 0) -> Array:
    mask = kept(x.size, float(step[0]), p, seed).reshape(x.shape)
    scale = np.float32(1) / (np.float32(1) - np.float32(p))
    return np.asarray(np.where(mask, x * x.dtype.type(scale), x.dtype.type(0)))


def _grad(g: Builder, node: Node, dy: Value) -> Grads:
    return g.op("dropout", dy, node.inputs[1], **node.attrs), None


def _samples() -> Iterator[Sample]:
    one = np.ones(1, np.float32)
    yield Sample((normal(1), one), {"p": 0.0, "seed": 1}, wrt=(0,))
    yield Sample((normal(3, 50), one * 7), {"p": 0.1, "seed": -5}, wrt=(0,))
    yield Sample((normal(2, 7, 33), one * 0), {"p": 0.75, "seed": 2**31 - 1}, wrt=(0,))


register(OpDef(
    name="dropout", kernel="dropout", infer=_infer, reference=_reference, grad=_grad,
    samples=_samples, attrs=(Attr("p", "f32"), Attr("seed")), inplace=(0,), flops=elements,
))


def _nothing(_g: Builder, _node: Node, _dy: Value, **_: Any) -> Grads:
    return (None,)


register(OpDef(
    name="detach", infer=same, view=True, grad=_nothing, reference=lambda x: x,
    samples=lambda: [Sample((normal(2, 3),), wrt=())],
))
