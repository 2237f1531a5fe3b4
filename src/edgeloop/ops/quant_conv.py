"""Convolutions over frozen weights kept as codes: qconv2d and qconv2d_dx, see `ops.quant`.

The matrix of codes is [o, kh * kw * c / groups]; otherwise as conv2d and conv2d_dx. The latter is
also a transposed convolution in forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type
from edgeloop.ops.conv import CASES, COMMON, CONV2D, CONV2D_DX
from edgeloop.ops.quant import GROUP, KINDS, check_codes, random_codes, weights
from edgeloop.ops.registry import NO_GRAD, Attr, OpDef, Sample, register

Ints = tuple[int, int]
KERNEL = Attr("kernel", "i32[2]", (1, 1))


def _matrix_ok(
    what: str, codes: Type, scale: Type | None, zero: Type | None, channels: int, kernel: Ints,
    groups: int, group: int,
) -> Type:
    """Check the codes; return the type of the weights [o, kh, kw, c / groups]."""
    if codes.rank != 2 or groups < 1 or channels % groups:
        raise ShapeError(f"{what}: codes {codes} do not fit {channels} channels, groups={groups}")
    w = Type((codes.shape[0], *kernel, channels // groups))
    check_codes(what, codes, scale, zero, w.shape[0], w.size // w.shape[0], group)
    return w


def _weights(
    codes: Array, scale: Array | None, zero: Array | None, channels: int, kernel: Ints,
    groups: int, group: int, dtype: Any,
) -> Array:
    shape = (codes.shape[0], *kernel, channels // groups)
    width = int(np.prod(shape[1:]))
    return weights(codes, scale, zero, width, group, dtype).reshape(shape)


def _infer(
    x: Type, codes: Type, scale: Type | None = None, zero: Type | None = None,
    b: Type | None = None, acc: Type | None = None, *, kernel: Ints, groups: int = 1,
    group: int = 0, **attrs: Any,
) -> Type:
    if x.rank != 4:
        raise ShapeError(f"qconv2d: x {x} must be [b,h,w,c]")
    w = _matrix_ok("qconv2d", codes, scale, zero, x.shape[3], kernel, groups, group)
    y = CONV2D.infer(x, w, b, acc, groups=groups, **attrs)
    assert isinstance(y, Type)
    return y


def _reference(
    x: Array, codes: Array, scale: Array | None = None, zero: Array | None = None,
    b: Array | None = None, acc: Array | None = None, *, kernel: Ints, groups: int = 1,
    group: int = 0, **attrs: Any,
) -> Array:
    w = _weights(codes, scale, zero, x.shape[3], kernel, groups, group, x.dtype)
    y: Array = CONV2D.reference(x, w, b, acc, groups=groups, **attrs)
    return y


def _magnitude(
    x: Array, codes: Array, scale: Array | None = None, zero: Array | None = None,
    b: Array | None = None, acc: Array | None = None, *, kernel: Ints, groups: int = 1,
    group: int = 0, **attrs: Any,
) -> tuple[Array, ...]:
    w = np.abs(_weights(codes, scale, zero, x.shape[3], kernel, groups, group, np.float64))
    rest = [None if a is None else np.abs(a) for a in (b, acc)]
    plain = {k: v for k, v in attrs.items() if k != "act"}
    y: Array = CONV2D.reference(np.abs(x.astype(np.float64)), w, *rest, groups=groups, **plain)
    return (y,)


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def _cases() -> Iterator[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], Any]]:
    """Shapes of x and w, attributes, and codes: each case in one or two kinds."""
    rng = np.random.default_rng(31)
    for i, (x, w, attrs) in enumerate(CASES):
        for kind in (KINDS[i % len(KINDS)], KINDS[(i + 3) % len(KINDS)])[: 1 + i % 2]:
            codes = random_codes(rng, w[0], int(np.prod(w[1:])), *kind)
            yield x, w, attrs | {"kernel": w[1:3], "group": kind[1]}, codes
    x, w = (1, 5, 4, 160), (70, 3, 3, 160)  # several blocks of output channels
    codes = random_codes(rng, 70, 9 * 160, "int4", 32, False)
    yield x, w, {"kernel": (3, 3), "group": 32, "pads": (1, 1, 1, 1)}, codes


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(32)
    for i, (x, w, attrs, codes) in enumerate(_cases()):
        yield Sample((_normal(rng, *x), *codes, _normal(rng, w[0]) if i % 2 else None), attrs)
    x, w, attrs, codes = next(_cases())
    y = CONV2D.infer(Type(x), Type(w), **{k: v for k, v in attrs.items()
                                          if k not in ("kernel", "group")})
    assert isinstance(y, Type)
    yield Sample((_normal(rng, *x), *codes, None, _normal(rng, *y.shape)),
                 attrs | {"alpha": 0.5, "act": 1})


def conv_flops(node: Node) -> int:
    """Operations of a convolution over codes, forward or back."""
    codes = node.inputs[1]
    assert codes is not None
    image, y = node.inputs[0], node.output
    assert image is not None
    back = node.op.endswith("_dx")
    small = image if back else y
    channels = (y if back else image).type.shape[3] // int(node.attrs.get("groups", 1))
    kh, kw = node.attrs["kernel"]
    return 2 * small.type.size * int(kh) * int(kw) * channels


register(OpDef(
    name="qconv2d", kernel="qconv2d", infer=_infer, reference=_reference, grad=NO_GRAD,
    samples=_samples, attrs=(*COMMON, Attr("act"), KERNEL, GROUP), inplace=(5,), flops=conv_flops,
    error=_magnitude,
))

# ---- the gradient to the input ------------------------------------------------------------------


def _dx_infer(
    dy: Type, codes: Type, scale: Type | None = None, zero: Type | None = None,
    acc: Type | None = None, *, kernel: Ints, channels: int, in_hw: Ints, groups: int = 1,
    group: int = 0, **attrs: Any,
) -> Type:
    w = _matrix_ok("qconv2d_dx", codes, scale, zero, channels, kernel, groups, group)
    dx = CONV2D_DX.infer(dy, w, acc, in_hw=in_hw, groups=groups, **attrs)
    assert isinstance(dx, Type)
    return dx


def _dx_reference(
    dy: Array, codes: Array, scale: Array | None = None, zero: Array | None = None,
    acc: Array | None = None, *, kernel: Ints, channels: int, in_hw: Ints, groups: int = 1,
    group: int = 0, **attrs: Any,
) -> Array:
    w = _weights(codes, scale, zero, channels, kernel, groups, group, dy.dtype)
    dx: Array = CONV2D_DX.reference(dy, w, acc, in_hw=in_hw, groups=groups, **attrs)
    return dx


def _dx_magnitude(
    dy: Array, codes: Array, scale: Array | None = None, zero: Array | None = None,
    acc: Array | None = None, *, kernel: Ints, channels: int, in_hw: Ints, groups: int = 1,
    group: int = 0, **attrs: Any,
) -> tuple[Array, ...]:
    w = np.abs(_weights(codes, scale, zero, channels, kernel, groups, group, np.float64))
    dx: Array = CONV2D_DX.reference(
        np.abs(dy.astype(np.float64)), w, None if acc is None else np.abs(acc), in_hw=in_hw,
        groups=groups, **attrs,
    )
    return (dx,)


def _dx_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(33)
    for i, (x, w, attrs, codes) in enumerate(_cases()):
        plain = {k: v for k, v in attrs.items() if k not in ("kernel", "group")}
        y = CONV2D.infer(Type(x), Type(w), **plain)
        assert isinstance(y, Type)
        acc = _normal(rng, *x) if i % 3 == 1 else None
        yield Sample((_normal(rng, *y.shape), *codes, acc),
                     attrs | {"in_hw": x[1:3], "channels": x[3]})


register(OpDef(
    name="qconv2d_dx", kernel="qconv2d_dx", infer=_dx_infer, reference=_dx_reference, grad=NO_GRAD,
    samples=_dx_samples,
    attrs=(*COMMON, Attr("in_hw", "i32[2]", (1, 1)), KERNEL, Attr("channels"), GROUP),
    inplace=(4,), flops=conv_flops, error=_dx_magnitude,
))
