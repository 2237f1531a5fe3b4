"""Maximum and average pools over NHWC images, their gradients, and ONNX's pools.

x [b, h, w, c]; y [b, oh, ow, c]. Padding never wins a maximum. An average divides by the taps
inside the image or, with count_include_pad, inside the padded image; ``uncounted`` is the part of
the (bottom, right) padding that only ceil_mode asked for, which never counts.

Backward through a maximum reads x and y, or the taps u8 [b, oh, ow, c] that hold the maxima.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError, UnsupportedError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.onnx_helpers import channels_last
from edgeloop.ops.registry import NO_GRAD, Attr, Grads, OpDef, Sample, register
from edgeloop.ops.windows import WINDOW_ATTRS, Window, onnx_window

KERNEL = Attr("kernel", "i32[2]", (1, 1))
COUNTING = (Attr("count_include_pad"), Attr("uncounted", "i32[2]", (0, 0)))

Pair = tuple[int, int]


def _infer(x: Type, *, kernel: Pair, **attrs: Any) -> Type:
    if x.rank != 4:
        raise ShapeError(f"pool: {x} is not [b, h, w, c]")
    out = Window.of(kernel, attrs).out("pool", (x.shape[1], x.shape[2]))
    return Type((x.shape[0], *out, x.shape[3]))


def _max_reference(x: Array, *, kernel: Pair, **attrs: Any) -> Array:
    window = Window.of(kernel, attrs)
    out = window.out("max_pool2d", (x.shape[1], x.shape[2]))
    views = [v for _, _, v in window.taps(window.pad(x, -np.inf), out)]
    y: Array = np.max(views, axis=0)
    return y


def _max_grad(g: Builder, node: Node, dy: Value) -> Grads:
    return (g.op("max_pool2d_grad", dy, node.inputs[0], node.output, **node.attrs),)


# (x, attributes): plain, overlapping with pads, uneven, dilated.
CASES: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((1, 2, 2, 1), {"kernel": (2, 2), "strides": (2, 2)}),
    ((2, 7, 6, 5), {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}),
    ((1, 1, 20, 17), {"kernel": (1, 4), "strides": (1, 3), "pads": (0, 1, 0, 2)}),
    ((2, 8, 9, 3), {"kernel": (2, 3), "dilations": (2, 2), "pads": (1, 0, 0, 1)}),
)


def _distinct(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Values that differ by at least 0.01, so that a small step never changes the maximum."""
    return (rng.permutation(int(np.prod(shape))).reshape(shape) * 0.01).astype(np.float32)


def _max_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(12)
    for shape, attrs in CASES:
        yield Sample((_distinct(rng, shape),), attrs)


def _from_max_pool(g: Builder, n: OnnxNode) -> Value:
    if n.outputs > 1:
        raise UnsupportedError(f"MaxPool node '{n.name}': the indices output is not supported")
    window, _ = _onnx(n)
    return channels_last(g, n, lambda x: g.op("max_pool2d", x, **_attrs(window)))


def _onnx(n: OnnxNode) -> tuple[Window, Pair]:
    x = n.inputs[0]
    assert x is not None
    kernel = tuple(int(k) for k in n.attrs["kernel_shape"])
    if len(kernel) != x.type.rank - 2 or len(kernel) not in (1, 2):
        raise UnsupportedError(
            f"{n.op_type} node '{n.name}': kernel {kernel} over {x.type}; only 1-D and 2-D are "
            "supported"
        )
    return onnx_window(n, kernel, x.type.shape[2:])


def _attrs(window: Window) -> dict[str, Any]:
    return {
        "kernel": window.kernel, "strides": window.strides, "pads": window.pads,
        "dilations": window.dilations,
    }


def _spatial(n: OnnxNode) -> tuple[Value, tuple[int, ...]]:
    x = n.inputs[0]
    assert x is not None
    return x, tuple(range(2, x.type.rank))


def _from_global_average_pool(g: Builder, n: OnnxNode) -> Value:
    """GlobalAveragePool: the mean over every spatial dim."""
    x, axes = _spatial(n)
    return g.op("reduce_mean", x, axes=axes, keepdims=1)


def _from_global_max_pool(g: Builder, n: OnnxNode) -> Value:
    """GlobalMaxPool: the maximum over every spatial dim."""
    x, axes = _spatial(n)
    return g.op("reduce_max", x, axes=axes, keepdims=1)


MAX_POOL2D = register(OpDef(
    name="max_pool2d", kernel="max_pool2d", infer=_infer, reference=_max_reference, grad=_max_grad,
    samples=_max_samples, attrs=(*WINDOW_ATTRS, KERNEL),
    onnx={"MaxPool": _from_max_pool, "GlobalMaxPool": _from_global_max_pool},
))


def _max_grad_infer(dy: Type, x: Type, y: Type, *, kernel: Pair, **attrs: Any) -> Type:
    if dy != y or _infer(x, kernel=kernel, **attrs) != y:
        raise ShapeError(f"max_pool2d_grad: dy {dy}, x {x} and y {y} do not fit")
    return x


def _max_grad_reference(dy: Array, x: Array, y: Array, *, kernel: Pair, **attrs: Any) -> Array:
    """Give the gradient to the first tap, row by row, that holds the maximum."""
    window = Window.of(kernel, attrs)
    padded = window.pad(x, -np.inf)
    dx = np.zeros(padded.shape, dy.dtype)
    free = np.ones(dy.shape, bool)
    out = (dy.shape[1], dy.shape[2])
    for (_, _, view), (_, _, grad) in zip(
        window.taps(padded, out), window.taps(dx, out), strict=True
    ):
        hit = free & (view == y)
        np.add(grad, dy, out=grad, where=hit)
        free &= ~hit
    return window.crop(dx, (x.shape[1], x.shape[2])).copy()


def _max_grad_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(13)
    for shape, attrs in CASES:
        x = np.round(rng.standard_normal(shape)).astype(np.float32)  # many ties
        y = _max_reference(x, **attrs)
        yield Sample((rng.standard_normal(y.shape).astype(np.float32), x, y), attrs)


MAX_POOL2D_GRAD = register(OpDef(
    name="max_pool2d_grad", kernel="max_pool2d_grad", infer=_max_grad_infer,
    reference=_max_grad_reference, grad=NO_GRAD, samples=_max_grad_samples,
    attrs=(*WINDOW_ATTRS, KERNEL),
))


MOST_TAPS = 255  # of a window, so that a byte tells which one holds the maximum


def tap_type(y: Type) -> Type:
    """The type of the taps of the maxima y."""
    return Type(y.shape, "u8")


def _tap_infer(x: Type, *, kernel: Pair, **attrs: Any) -> Type:
    if kernel[0] * kernel[1] > MOST_TAPS:
        raise ShapeError(f"max_pool2d_tap: more than {MOST_TAPS} taps in a window of {kernel}")
    return tap_type(_infer(x, kernel=kernel, **attrs))


def _tap_reference(x: Array, *, kernel: Pair, **attrs: Any) -> Array:
    """Number the first tap, row by row, that holds the maximum; 255: none is inside the image."""
    window = Window.of(kernel, attrs)
    out = window.out("max_pool2d_tap", (x.shape[1], x.shape[2]))
    border = window.pad(np.zeros_like(x), 1.0)
    outside = np.stack([v > 0 for _, _, v in window.taps(border, out)])
    values = np.stack([v for _, _, v in window.taps(window.pad(x, -np.inf), out)])
    best = np.argmax(values, axis=0)  # the first NaN, if there is one
    lost = np.take_along_axis(outside, best[None], axis=0)[0]  # where all taps are -inf
    found = np.where(lost, np.argmin(outside, axis=0), best)
    return np.where(outside.all(axis=0), MOST_TAPS, found).astype(np.uint8)


register(OpDef(
    name="max_pool2d_tap", kernel="max_pool2d_tap", infer=_tap_infer, reference=_tap_reference,
    grad=NO_GRAD, attrs=(*WINDOW_ATTRS, KERNEL),
    samples=lambda: (Sample((s.inputs[1],), s.attrs) for s in _max_grad_samples()),
))


def _tap_grad_infer(dy: Type, tap: Type, *, in_hw: Pair, **attrs: Any) -> Type:
    x = Type((dy.shape[0], *in_hw, dy.shape[3]))
    if tap != tap_type(dy) or _tap_infer(x, **attrs) != tap:
        raise ShapeError(f"max_pool2d_tap_grad: dy {dy} and {tap} do not fit an image of {in_hw}")
    return x


def _tap_grad_reference(
    dy: Array, tap: Array, *, in_hw: Pair, kernel: Pair, **attrs: Any
) -> Array:
    window = Window.of(kernel, attrs)
    dx = window.pad(np.zeros((dy.shape[0], *in_hw, dy.shape[3]), dy.dtype))
    for k, (_, _, grad) in enumerate(window.taps(dx, (dy.shape[1], dy.shape[2]))):
        np.add(grad, dy, out=grad, where=tap == k)
    return window.crop(dx, in_hw).copy()


def _tap_grad_samples() -> Iterator[Sample]:
    for s in _max_grad_samples():
        dy, x, _ = s.inputs
        assert x is not None
        tap = _tap_reference(x, **s.attrs)
        yield Sample((dy, tap), dict(s.attrs) | {"in_hw": x.shape[1:3]})


register(OpDef(
    name="max_pool2d_tap_grad", kernel="max_pool2d_tap_grad", infer=_tap_grad_infer,
    reference=_tap_grad_reference, grad=NO_GRAD, samples=_tap_grad_samples,
    attrs=(*WINDOW_ATTRS, KERNEL, Attr("in_hw", "i32[2]", (1, 1))),
))


def _avg_infer(x: Type, *, count_include_pad: int = 0, uncounted: Pair = (0, 0), **kw: Any) -> Type:
    del count_include_pad, uncounted
    return _infer(x, **kw)


def _counts(
    window: Window, hw: Pair, out: Pair, count_include_pad: int, uncounted: Pair
) -> Array:
    """Taps that count for each output: [1, oh, ow, 1]."""
    ones = window.pad(np.zeros((1, *hw, 1)) + 1, 1.0 if count_include_pad else 0.0)
    ones[:, ones.shape[1] - uncounted[0] :] = 0
    ones[:, :, ones.shape[2] - uncounted[1] :] = 0
    total: Array = sum(v for _, _, v in window.taps(ones, out))  # type: ignore[assignment]
    return np.maximum(total, 1)


def _avg_reference(
    x: Array, *, kernel: Pair, count_include_pad: int = 0, uncounted: Pair = (0, 0), **attrs: Any
) -> Array:
    window, hw = Window.of(kernel, attrs), (x.shape[1], x.shape[2])
    out = window.out("avg_pool2d", hw)
    total: Array = sum(v for _, _, v in window.taps(window.pad(x), out))  # type: ignore[assignment]
    return (total / _counts(window, hw, out, count_include_pad, uncounted)).astype(x.dtype)


def _avg_grad(g: Builder, node: Node, dy: Value) -> Grads:
    x = node.inputs[0]
    assert x is not None
    return (g.op("avg_pool2d_grad", dy, in_hw=(x.type.shape[1], x.type.shape[2]), **node.attrs),)


AVG_CASES = (
    *((shape, attrs | {"count_include_pad": i % 2}) for i, (shape, attrs) in enumerate(CASES)),
    ((2, 6, 7, 4), {"kernel": (3, 2), "strides": (2, 2), "pads": (1, 1, 2, 1),
                    "count_include_pad": 1, "uncounted": (1, 1)}),
    ((2, 6, 7, 4), {"kernel": (3, 2), "strides": (2, 2), "pads": (1, 1, 2, 1)}),
)


def _avg_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(14)
    for shape, attrs in AVG_CASES:
        yield Sample((rng.standard_normal(shape).astype(np.float32),), attrs)


def _from_average_pool(g: Builder, n: OnnxNode) -> Value:
    window, extra = _onnx(n)
    count = int(n.attrs.get("count_include_pad", 0))
    attrs = _attrs(window) | {"count_include_pad": count, "uncounted": extra}
    return channels_last(g, n, lambda x: g.op("avg_pool2d", x, **attrs))


AVG_POOL2D = register(OpDef(
    name="avg_pool2d", kernel="avg_pool2d", infer=_avg_infer, reference=_avg_reference,
    grad=_avg_grad, samples=_avg_samples, attrs=(*WINDOW_ATTRS, KERNEL, *COUNTING),
    onnx={"AveragePool": _from_average_pool, "GlobalAveragePool": _from_global_average_pool},
))


def _avg_grad_infer(dy: Type, *, in_hw: Pair, **attrs: Any) -> Type:
    x = Type((dy.shape[0], *in_hw, dy.shape[3]))
    if _avg_infer(x, **attrs) != dy:
        raise ShapeError(f"avg_pool2d_grad: dy {dy} does not fit an image of {in_hw}")
    return x


def _avg_grad_reference(
    dy: Array, *, in_hw: Pair, kernel: Pair, count_include_pad: int = 0, uncounted: Pair = (0, 0),
    **attrs: Any,
) -> Array:
    window, out = Window.of(kernel, attrs), (dy.shape[1], dy.shape[2])
    share = dy / _counts(window, in_hw, out, count_include_pad, uncounted)
    dx = window.pad(np.zeros((dy.shape[0], *in_hw, dy.shape[3]), dy.dtype))
    for _, _, view in window.taps(dx, out):
        np.add(view, share, out=view)
    return window.crop(dx, in_hw).astype(dy.dtype)


def _avg_grad_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(15)
    for shape, attrs in AVG_CASES:
        y = _avg_infer(Type(shape), **attrs)
        dy = rng.standard_normal(y.shape).astype(np.float32)
        yield Sample((dy,), attrs | {"in_hw": shape[1:3]})


AVG_POOL2D_GRAD = register(OpDef(
    name="avg_pool2d_grad", kernel="avg_pool2d_grad", infer=_avg_grad_infer,
    reference=_avg_grad_reference, grad=NO_GRAD, samples=_avg_grad_samples,
    attrs=(*WINDOW_ATTRS, KERNEL, *COUNTING, Attr("in_hw", "i32[2]", (1, 1))),
))
