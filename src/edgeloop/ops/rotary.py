"""rotary: rotate pairs of features by an angle of the position (Su et al. 2021, RoFormer).

x [b, s, h, d], cos and sin [s, r / 2] (or [b, s, r / 2]): the first r features of each head turn,
the others pass. Pairs are (i, i + r / 2), or (2 i, 2 i + 1) where interleaved. The gradient is the
turn back, ``inverse``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.attention_onnx import from_rotary
from edgeloop.ops.builder import Builder
from edgeloop.ops.common import normal
from edgeloop.ops.registry import Attr, Grads, OpDef, Sample, register


def _infer(x: Type, cos: Type, sin: Type, interleaved: int = 0, inverse: int = 0) -> Type:
    del interleaved, inverse
    fits = x.rank == 4 and cos == sin and cos.rank in (2, 3)
    if fits and cos.rank == 3:
        fits = cos.shape[0] == x.shape[0]
    if not fits or cos.shape[-2] != x.shape[1] or 2 * cos.shape[-1] > x.shape[-1]:
        raise ShapeError(
            f"rotary takes x [b, s, h, d] and cos, sin [s, r / 2] or [b, s, r / 2] with r <= d; "
            f"got {x}, {cos}, {sin}"
        )
    return x


def _reference(
    x: Array, cos: Array, sin: Array, interleaved: int = 0, inverse: int = 0
) -> Array:
    half = cos.shape[-1]
    c, s = (v.reshape(-1, v.shape[-2], 1, half) for v in (cos, -sin if inverse else sin))
    first = slice(0, 2 * half, 2) if interleaved else slice(0, half)
    second = slice(1, 2 * half, 2) if interleaved else slice(half, 2 * half)
    y = x.copy()
    y[..., first] = x[..., first] * c - x[..., second] * s
    y[..., second] = x[..., first] * s + x[..., second] * c
    return y


def _grad(g: Builder, node: Node, dy: Value) -> Grads:
    attrs = dict(node.attrs) | {"inverse": 1 - int(node.attrs.get("inverse", 0))}
    return g.op("rotary", dy, *node.inputs[1:], **attrs), None, None


def _samples() -> Iterator[Sample]:
    for interleaved in (0, 1):
        for batch, inverse in (((), 0), ((2,), 1)):
            angle = normal(*batch, 5, 3, seed=2)
            yield Sample((normal(2, 5, 3, 8), np.cos(angle), np.sin(angle)),
                         {"interleaved": interleaved, "inverse": inverse}, wrt=(0,))
        angle = normal(7, 18, seed=2)
        yield Sample((normal(1, 7, 1, 36), np.cos(angle), np.sin(angle)),
                     {"interleaved": interleaved}, wrt=(0,))


register(OpDef(
    name="rotary", kernel="rotary", infer=_infer, reference=_reference, grad=_grad,
    samples=_samples, attrs=(Attr("interleaved"), Attr("inverse")), inplace=(0,),
    flops=lambda node: 3 * node.output.type.size,
    onnx={"RotaryEmbedding": from_rotary, "com.microsoft.RotaryEmbedding": from_rotary},
))
