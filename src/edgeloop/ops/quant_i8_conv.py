"""Convolutions of int8 codes computed on integers: qconv2d_i8 and qconv2d_i8_dx.

As `ops.quant_i8`, with one scale for each sample in place of each row: x, and dy times the
channels' scales, are rounded to -127..127 image by image. One group only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Type
from edgeloop.ops.conv import CASES, COMMON, CONV2D, CONV2D_DX
from edgeloop.ops.linear import activate
from edgeloop.ops.quant import check_codes, random_codes
from edgeloop.ops.quant_conv import KERNEL, conv_flops
from edgeloop.ops.quant_i8 import F32, LONGEST, round_rows
from edgeloop.ops.registry import NO_GRAD, Attr, OpDef, Sample, register

Ints = tuple[int, int]


def _weight_type(
    what: str, codes: Type, scale: Type, channels: int, kernel: Ints, groups: int
) -> Type:
    if codes.rank != 2 or codes.dtype != "i8" or groups != 1:
        raise ShapeError(f"{what}: codes {codes}, groups={groups}; codes are i8 [o, taps * c]")
    w = Type((codes.shape[0], *kernel, channels))
    check_codes(what, codes, scale, None, w.shape[0], w.size // w.shape[0], 0)
    taps = kernel[0] * kernel[1]
    if max(w.shape[0], channels) * taps > LONGEST:
        raise ShapeError(f"{what}: sums of more than {LONGEST} terms; int32 does not hold them")
    return w


def _rounded(images: Array) -> tuple[Array, Array]:
    """Return levels as float64 and one scale [b, 1, 1, 1] for each sample."""
    q, r = round_rows(images.reshape(images.shape[0], -1))
    return q.reshape(images.shape).astype(np.float64), r.reshape(-1, 1, 1, 1)


def _levels(codes: Array, kernel: Ints, channels: int) -> Array:
    return codes.astype(np.float64).reshape(codes.shape[0], *kernel, channels)


def _infer(
    x: Type, codes: Type, scale: Type, b: Type | None = None, acc: Type | None = None, *,
    kernel: Ints, groups: int = 1, **attrs: Any,
) -> Type:
    if x.rank != 4:
        raise ShapeError(f"qconv2d_i8: x {x} must be [b,h,w,c]")
    w = _weight_type("qconv2d_i8", codes, scale, x.shape[3], kernel, groups)
    y = CONV2D.infer(x, w, b, acc, **attrs)
    assert isinstance(y, Type)
    return y


def _reference(
    x: Array, codes: Array, scale: Array, b: Array | None = None, acc: Array | None = None, *,
    kernel: Ints, groups: int = 1, alpha: float = 1.0, act: int = 0, **attrs: Any,
) -> Array:
    q, r = _rounded(x)
    total = CONV2D.reference(q, _levels(codes, kernel, x.shape[3]), groups=groups, **attrs)
    with np.errstate(all="ignore"):
        y: Array = F32(alpha) * (total.astype(F32) * (r * scale.astype(F32).reshape(-1)))
        if b is not None:
            y = y + b.astype(F32)
        if acc is not None:
            y = y + acc.astype(F32)
    return activate(y, act)


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(F32)


def _cases() -> Iterator[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], Any]]:
    rng = np.random.default_rng(51)
    wide = ((1, 5, 4, 40), (20, 3, 3, 40), {"pads": (1, 1, 1, 1)})
    for x, w, attrs in (*CASES, wide):
        if attrs.get("groups", 1) == 1:
            codes, scale, _ = random_codes(rng, w[0], int(np.prod(w[1:])), "int8", 0, False)
            yield x, w, attrs, (codes, scale)


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(52)
    for i, (x, w, attrs, codes) in enumerate(_cases()):
        b = _normal(rng, w[0]) if i % 2 else None
        image = _normal(rng, *x)
        if i == 1:
            image[0], image[1, 0, 0, 0] = 0, np.inf
        yield Sample((image, *codes, b), attrs | {"kernel": w[1:3], "act": i % 3})
    x, w, attrs, codes = next(_cases())
    y = CONV2D.infer(Type(x), Type(w), **attrs)
    assert isinstance(y, Type)
    yield Sample((_normal(rng, *x), *codes, None, _normal(rng, *y.shape)),
                 attrs | {"kernel": w[1:3], "alpha": 0.5})


register(OpDef(
    name="qconv2d_i8", kernel="qconv2d_i8", infer=_infer, reference=_reference, grad=NO_GRAD,
    samples=_samples, attrs=(*COMMON, Attr("act"), KERNEL), inplace=(4,), flops=conv_flops,
))

# ---- the gradient to the input ------------------------------------------------------------------


def _dx_infer(
    dy: Type, codes: Type, scale: Type, acc: Type | None = None, *, kernel: Ints, channels: int,
    in_hw: Ints, groups: int = 1, **attrs: Any,
) -> Type:
    w = _weight_type("qconv2d_i8_dx", codes, scale, channels, kernel, groups)
    dx = CONV2D_DX.infer(dy, w, acc, in_hw=in_hw, **attrs)
    assert isinstance(dx, Type)
    return dx


def _dx_reference(
    dy: Array, codes: Array, scale: Array, acc: Array | None = None, *, kernel: Ints,
    channels: int, in_hw: Ints, groups: int = 1, alpha: float = 1.0, **attrs: Any,
) -> Array:
    with np.errstate(all="ignore"):
        q, r = _rounded(dy.astype(F32) * scale.astype(F32).reshape(-1))
        total = CONV2D_DX.reference(
            q, _levels(codes, kernel, channels), in_hw=in_hw, groups=groups, **attrs)
        dx: Array = F32(alpha) * (total.astype(F32) * r)
    return dx if acc is None else dx + acc.astype(F32)


def _dx_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(53)
    for i, (x, w, attrs, codes) in enumerate(_cases()):
        y = CONV2D.infer(Type(x), Type(w), **attrs)
        assert isinstance(y, Type)
        acc = _normal(rng, *x) if i % 2 else None
        more = {"in_hw": x[1:3], "kernel": w[1:3], "channels": x[3]}
        yield Sample((_normal(rng, *y.shape), *codes, acc), attrs | more)


register(OpDef(
    name="qconv2d_i8_dx", kernel="qconv2d_i8_dx", infer=_dx_infer, reference=_dx_reference,
    grad=NO_GRAD, samples=_dx_samples,
    attrs=(*COMMON, Attr("in_hw", "i32[2]", (1, 1)), KERNEL, Attr("channels")), inplace=(3,),
    flops=conv_flops,
))
