"""Activations that wait for backward in fewer bits: one bit where that is all it asks, and f16.

pack_mask(v) -> u8 bits: where the gradient of a piecewise linear activation passes; kind 0: v > 0
(relu), 1: low <= v <= high (clip), 2: not v < 0 (leaky relu). mask_grad(dy, bits) is that gradient.
pack_f16(x) and unpack_f16(h): IEEE binary16, half to even; what is too large becomes +-65504.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Type
from edgeloop.ops.common import SHAPES, away, elements, normal
from edgeloop.ops.registry import NO_GRAD, Attr, OpDef, Sample, register

RELU, CLIP, LEAKY = range(3)
_KINDS = ({"kind": RELU}, {"kind": CLIP, "low": -0.5, "high": 1.5}, {"kind": LEAKY})


def bits_type(v: Type) -> Type:
    """The type of the mask of a value."""
    return Type((-(-v.size // 8),), "u8")


def _pack_mask(v: Array, *, kind: int = RELU, low: float = 0.0, high: float = 0.0) -> Array:
    kept = (v > 0, (v >= low) & (v <= high), ~(v < 0))[kind]
    return np.packbits(kept.reshape(-1), bitorder="little")


def _mask_samples() -> Iterator[Sample]:
    for shape in (*SHAPES, (3, 5, 100)):
        for attrs in _KINDS:
            yield Sample((away(normal(*shape), -0.5, 0, 1.5),), attrs)
    yield Sample((np.array([np.nan, -0.0, 0.0, np.inf], np.float32),), _KINDS[2])


register(OpDef(
    name="pack_mask", kernel="pack_mask", infer=lambda v, **_: bits_type(v), reference=_pack_mask,
    grad=NO_GRAD, samples=_mask_samples, flops=lambda node: 8 * node.output.type.size,
    attrs=(Attr("kind"), Attr("low", "f32"), Attr("high", "f32")),
))


def _grad_infer(dy: Type, bits: Type, *, slope: float = 0.0) -> Type:
    del slope
    if bits != bits_type(dy):
        raise ShapeError(f"mask_grad takes dy and bits {bits_type(dy)}, got {dy} and {bits}")
    return dy


def _mask_grad(dy: Array, bits: Array, *, slope: float = 0.0) -> Array:
    kept = np.unpackbits(bits, count=dy.size, bitorder="little").reshape(dy.shape)
    other = dy * dy.dtype.type(np.float32(slope)) if slope else np.zeros_like(dy)
    return np.where(kept == 1, dy, other)


def _grad_samples() -> Iterator[Sample]:
    for shape in (*SHAPES, (3, 5, 100)):
        for slope in (0.0, 0.25):
            dy = normal(*shape)
            bits = _pack_mask(normal(*shape, seed=2))
            yield Sample((dy, bits), {"slope": slope})


register(OpDef(
    name="mask_grad", kernel="mask_grad", infer=_grad_infer, reference=_mask_grad, grad=NO_GRAD,
    samples=_grad_samples, inplace=(0,), flops=elements, attrs=(Attr("slope", "f32"),),
))


def _pack_f16(x: Array) -> Array:
    return np.clip(x, -65504, 65504).astype(np.float16)


def _f16_samples() -> Iterator[Sample]:
    for shape in SHAPES:
        yield Sample((normal(*shape),))
    edges = [0.0, -0.0, 1e-9, 2.0**-25, 3 * 2.0**-26, 2.0**-24, 6.1e-5, 6.09e-5, 65503.9, 65504.0,
             65519.0, 65520.0, 1e30, -np.inf, np.inf, 1 + 2.0**-11, 1 + 3 * 2.0**-11, np.nan]
    yield Sample((np.array(edges, np.float32),))


register(OpDef(
    name="pack_f16", kernel="pack_f16", infer=lambda x: Type(x.shape, "f16"), reference=_pack_f16,
    grad=NO_GRAD, samples=_f16_samples, flops=elements,
))
register(OpDef(
    name="unpack_f16", kernel="unpack_f16", infer=lambda h: Type(h.shape), grad=NO_GRAD,
    reference=lambda h: h.astype(np.float32), flops=elements,
    samples=lambda: (Sample((_pack_f16(s.inputs[0]),)) for s in _f16_samples()
                     if s.inputs[0] is not None and s.wrt is None),
))
