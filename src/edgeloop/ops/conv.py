"""conv2d over NHWC images, its gradients, and ONNX Conv in one or two spatial dims.

x [b, h, w, c], w [o, kh, kw, c / groups], b [o] or absent, acc and y [b, oh, ow, o].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError, UnsupportedError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.conv_transpose import from_conv_transpose, transpose_grad
from edgeloop.ops.linear import ALPHA, act_gradient, activate, check_optional, optional
from edgeloop.ops.onnx_helpers import bare, channels_last, transposed
from edgeloop.ops.registry import NO_GRAD, Attr, Grads, OpDef, Sample, register
from edgeloop.ops.windows import WINDOW_ATTRS, Window, onnx_window

COMMON = (*WINDOW_ATTRS, Attr("groups", "i32", 1), ALPHA)


def _hw(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[1], shape[2]


def _infer(
    x: Type, w: Type, b: Type | None = None, acc: Type | None = None, *, groups: int = 1,
    **attrs: Any,
) -> Type:
    if x.rank != 4 or w.rank != 4:
        raise ShapeError(f"conv2d: x {x} and w {w} must be [b,h,w,c] and [o,kh,kw,c/groups]")
    c, o = x.shape[3], w.shape[0]
    if groups < 1 or c % groups or o % groups or w.shape[3] * groups != c:
        raise ShapeError(f"conv2d: x {x} and w {w} do not fit groups={groups}")
    y = Type((x.shape[0], *Window.of(_hw(w.shape), attrs).out("conv2d", _hw(x.shape)), o))
    check_optional("conv2d: bias", b, (o,))
    check_optional("conv2d: acc", acc, y.shape)
    return y


def _grouped(a: Array, groups: int) -> Array:
    """Split the last dim: [.., groups, n / groups]."""
    return a.reshape(*a.shape[:-1], groups, -1)


def _reference(
    x: Array, w: Array, b: Array | None = None, acc: Array | None = None, *, groups: int = 1,
    alpha: float = 1.0, act: int = 0, **attrs: Any,
) -> Array:
    window = Window.of(_hw(w.shape), attrs)
    out = window.out("conv2d", _hw(x.shape))
    wg = w.reshape(groups, -1, *w.shape[1:])  # [g, o/g, kh, kw, c/g]
    y = np.zeros((x.shape[0], *out, w.shape[0]), x.dtype)
    for ky, kx, view in window.taps(window.pad(x), out):
        part = np.einsum("bhwgc,goc->bhwgo", _grouped(view, groups), wg[:, :, ky, kx])
        y += part.reshape(y.shape)
    y *= x.dtype.type(alpha)
    if b is not None:
        y = y + b
    if acc is not None:
        y = y + acc
    return activate(y, act)


def _grad(g: Builder, node: Node, dy: Value) -> Grads:
    x, w = node.inputs[:2]
    assert x is not None
    assert w is not None
    dz = act_gradient(g, node, dy)
    attrs = {k: v for k, v in node.attrs.items() if k != "act"}
    grads: list[Value | None] = [
        g.op("conv2d_dx", dz, w, in_hw=_hw(x.type.shape), **attrs) if g.wants(x) else None,
        g.op("conv2d_dw", dz, x, kernel=_hw(w.type.shape), **attrs) if g.wants(w) else None,
        g.op("col_sum", dz) if g.wants(optional(node.inputs, 2)) else None,
        dz,
    ]
    return tuple(grads[: len(node.inputs)])


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


# (x, w, attributes): plain, strided with uneven pads, dilated, grouped, depthwise (odd channels and
# multiplier and huge windows
# too), first layer with one channel, 1-D, pointwise strided, window larger than image.
CASES: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    ((2, 7, 6, 5), (4, 3, 3, 5), {"pads": (1, 1, 1, 1)}),
    ((2, 9, 8, 3), (19, 3, 2, 3), {"strides": (2, 3), "pads": (0, 1, 2, 0)}),
    ((1, 9, 9, 4), (6, 3, 3, 4), {"dilations": (2, 3), "pads": (2, 3, 2, 3)}),
    ((2, 6, 5, 6), (9, 3, 3, 2), {"groups": 3, "pads": (1, 1, 1, 1)}),
    ((2, 6, 5, 19), (19, 3, 3, 1), {"groups": 19, "pads": (1, 1, 1, 1)}),
    ((1, 9, 12, 24), (24, 3, 3, 1), {"groups": 24, "strides": (2, 2), "pads": (0, 0, 1, 1)}),
    ((2, 8, 7, 33), (33, 5, 3, 1), {"groups": 33, "dilations": (1, 2), "pads": (2, 2, 2, 2)}),
    ((1, 3, 13, 28), (28, 3, 3, 1), {"groups": 28, "pads": (1, 0, 1, 0)}),
    ((1, 6, 7, 21), (21, 17, 15, 1), {"groups": 21, "pads": (8, 7, 8, 7)}),
    ((1, 5, 5, 3), (6, 3, 3, 1), {"groups": 3, "pads": (1, 1, 1, 1)}),
    ((2, 25, 10, 1), (20, 10, 4, 1), {"strides": (2, 2), "pads": (4, 1, 5, 1)}),
    ((3, 1, 40, 6), (16, 1, 5, 6), {"strides": (1, 2), "pads": (0, 2, 0, 2)}),
    ((2, 5, 6, 8), (5, 1, 1, 8), {"strides": (2, 2)}),
    ((1, 2, 2, 3), (4, 5, 5, 3), {"pads": (2, 2, 2, 2)}),
    ((4, 16, 16, 8), (32, 3, 3, 8), {"pads": (1, 1, 1, 1)}),
)


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(9)
    for xs, ws, attrs in CASES:
        yield Sample((_normal(rng, *xs), _normal(rng, *ws)), attrs)
    for xs, ws, attrs in CASES[1:6]:
        x, w = _normal(rng, *xs), _normal(rng, *ws)
        y = _infer(Type(xs), Type(ws), **attrs)
        yield Sample((x, w, _normal(rng, ws[0]), _normal(rng, *y.shape)), attrs | {"alpha": 0.5})
        yield Sample((x, w, _normal(rng, ws[0])), attrs | {"act": 1}, wrt=())
        yield Sample((x, w, None, _normal(rng, *y.shape)), attrs | {"act": 2}, wrt=())


def _flops(node: Node) -> int:
    """Two for each output element of the forward operator, tap and channel of the group."""
    first, second = node.inputs[:2]
    assert first is not None
    assert second is not None
    w, y = (
        (second.type, node.output.type) if node.op == "conv2d"
        else (second.type, first.type) if node.op == "conv2d_dx"
        else (node.output.type, first.type)
    )
    return 2 * y.size * (w.size // w.shape[0])


def _from_conv(g: Builder, n: OnnxNode) -> Value:
    x, w, b = (*n.inputs, None)[:3]
    assert x is not None
    assert w is not None
    if w.type.rank != x.type.rank or x.type.rank not in (3, 4):
        raise UnsupportedError(
            f"Conv node '{n.name}': x {x.type} and w {w.type}; only 1-D and 2-D are supported"
        )
    window, _ = onnx_window(n, w.type.shape[2:], x.type.shape[2:])
    if w.type.rank == 3:
        o, c, k = w.type.shape
        w = bare(g, transposed(g, w, (0, 2, 1)), (o, 1, k, c))
    else:
        w = transposed(g, w, (0, 2, 3, 1))
    attrs: dict[str, Any] = {
        "strides": window.strides, "pads": window.pads, "dilations": window.dilations,
        "groups": int(n.attrs.get("group", 1)),
    }
    return channels_last(g, n, lambda image: g.op("conv2d", image, w, b, **attrs))


CONV2D = register(OpDef(
    name="conv2d", kernel="conv2d", infer=_infer, reference=_reference, grad=_grad,
    samples=_samples, attrs=(*COMMON, Attr("act")), inplace=(3,), flops=_flops,
    onnx={"Conv": _from_conv},
))


def _dx_infer(
    dy: Type, w: Type, acc: Type | None = None, *, in_hw: tuple[int, int], groups: int = 1,
    **attrs: Any,
) -> Type:
    x = Type((dy.shape[0], *in_hw, w.shape[3] * groups))
    if _infer(x, w, groups=groups, **attrs) != dy:
        raise ShapeError(f"conv2d_dx: dy {dy} and w {w} do not fit an image of {in_hw}")
    check_optional("conv2d_dx: acc", acc, x.shape)
    return x


def _dx_reference(
    dy: Array, w: Array, acc: Array | None = None, *, in_hw: tuple[int, int], groups: int = 1,
    alpha: float = 1.0, **attrs: Any,
) -> Array:
    window = Window.of(_hw(w.shape), attrs)
    wg = w.reshape(groups, -1, *w.shape[1:])
    padded = window.pad(np.zeros((dy.shape[0], *in_hw, w.shape[3] * groups), dy.dtype))
    for ky, kx, view in window.taps(padded, _hw(dy.shape)):
        part = np.einsum("bhwgo,goc->bhwgc", _grouped(dy, groups), wg[:, :, ky, kx])
        np.add(view, part.reshape(view.shape), out=view)
    dx: Array = window.crop(padded, in_hw) * dy.dtype.type(alpha)
    return dx if acc is None else dx + acc


def _dx_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(10)
    for i, (xs, ws, attrs) in enumerate(CASES):
        y = _infer(Type(xs), Type(ws), **attrs).shape
        acc = _normal(rng, *xs) if i % 2 else None
        more = {"in_hw": xs[1:3], "alpha": 0.5 if i % 2 else 1.0}
        yield Sample((_normal(rng, *y), _normal(rng, *ws), acc), attrs | more)
        yield Sample((_normal(rng, *y), _normal(rng, *ws)), attrs | {"in_hw": xs[1:3]})


CONV2D_DX = register(OpDef(
    name="conv2d_dx", kernel="conv2d_dx", infer=_dx_infer, reference=_dx_reference,
    grad=transpose_grad, samples=_dx_samples,
    attrs=(*COMMON, Attr("in_hw", "i32[2]", (1, 1))), inplace=(2,), flops=_flops,
    onnx={"ConvTranspose": from_conv_transpose},
))


def _dw_infer(
    dy: Type, x: Type, acc: Type | None = None, *, kernel: tuple[int, int], groups: int = 1,
    **attrs: Any,
) -> Type:
    w = Type((dy.shape[3], *kernel, x.shape[3] // groups))
    if _infer(x, w, groups=groups, **attrs) != dy:
        raise ShapeError(f"conv2d_dw: dy {dy} and x {x} do not fit a kernel of {kernel}")
    check_optional("conv2d_dw: acc", acc, w.shape)
    return w


def _dw_reference(
    dy: Array, x: Array, acc: Array | None = None, *, kernel: tuple[int, int], groups: int = 1,
    alpha: float = 1.0, **attrs: Any,
) -> Array:
    window = Window.of(kernel, attrs)
    dw = np.zeros((groups, dy.shape[3] // groups, *kernel, x.shape[3] // groups), dy.dtype)
    for ky, kx, view in window.taps(window.pad(x), _hw(dy.shape)):
        part = np.einsum("bhwgo,bhwgc->goc", _grouped(dy, groups), _grouped(view, groups))
        dw[:, :, ky, kx] = part
    out: Array = dw.reshape(dy.shape[3], *kernel, -1) * dy.dtype.type(alpha)
    return out if acc is None else out + acc


def _dw_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(11)
    for i, (xs, ws, attrs) in enumerate(CASES):
        y = _infer(Type(xs), Type(ws), **attrs).shape
        acc = _normal(rng, *ws) if i % 2 else None
        more = {"kernel": ws[1:3], "alpha": 0.5 if i % 2 else 1.0}
        yield Sample((_normal(rng, *y), _normal(rng, *xs), acc), attrs | more)
        yield Sample((_normal(rng, *y), _normal(rng, *xs)), attrs | {"kernel": ws[1:3]})


CONV2D_DW = register(OpDef(
    name="conv2d_dw", kernel="conv2d_dw", infer=_dw_infer, reference=_dw_reference, grad=NO_GRAD,
    samples=_dw_samples, attrs=(*COMMON, Attr("kernel", "i32[2]", (1, 1))), inplace=(2,),
    flops=_flops,
))
