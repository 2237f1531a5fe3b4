"""Which rows of its operands an operator reads for some rows of its result, and how it makes those.

Rows are those of images [1, h, w, c]. The result of an operator on a strip has the bits that these
rows have in the whole result, except for those that round a whole image (BY_IMAGE), which then
round strip by strip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeloop.ir import Node, Value
from edgeloop.ops.windows import Window

Rows = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Part:
    """An operator on a strip: rows of the operands (absent: the whole operand) and attributes."""

    rows: Mapping[int, Rows]
    attrs: dict[str, Any] = field(default_factory=dict)


def is_image(v: Value | None) -> bool:
    """Tell whether a value can be worked on in strips: one image of several rows."""
    return v is not None and v.type.rank == 4 and v.type.shape[0] == 1 and v.type.shape[1] > 1


def part(n: Node, lo: int, hi: int) -> Part | None:
    """Return how rows [lo, hi) of the result are computed, None where they cannot be alone."""
    rule = _RULES.get(n.op)
    return rule(n, lo, hi) if rule is not None and is_image(n.output) else None


def reduced(n: Node, lo: int, hi: int) -> Part | None:
    """Return what rows [lo, hi) of the image add to a sum over all of them, None for others."""
    image = n.inputs[0]
    if n.op not in REDUCES or image is None or not is_image(image):
        return None
    if n.op in ("linear_dw", "col_sum"):
        if n.op == "linear_dw" and not _like(n.inputs[1], image):
            return None
        rows = {i: (lo, hi) for i, v in enumerate(n.inputs) if _like(v, image)}
        return Part(rows, dict(n.attrs))
    if n.op == "conv2d_dw":
        x = n.inputs[1]
        assert x is not None
        window = Window.of(tuple(n.attrs["kernel"]), n.attrs)
        seen, attrs = _seen(window, x.type.shape[1], lo, hi)
        return None if seen is None else Part({0: (lo, hi), 1: seen}, dict(n.attrs) | attrs)
    axes = {a % 4 for a in n.attrs.get("axes", ())}
    whole = 1 in axes and n.attrs.get("keepdims", 1)
    return Part({0: (lo, hi)}, dict(n.attrs)) if whole else None


def runs_in_strips(n: Node, *, int8: bool) -> bool:
    """Tell whether an operator can make any rows of its image alone, or add up over rows."""
    if n.op in BY_IMAGE and not int8:
        return False
    image = n.output if is_image(n.output) else n.inputs[0]
    if image is None or not is_image(image):
        return False
    if n.op == "pack_mask":
        return image.type.size // image.type.shape[1] % 8 == 0
    rule = part if image is n.output else reduced
    return all(rule(n, r, r + 1) is not None for r in range(image.type.shape[1]))


def _like(v: Value | None, image: Value) -> bool:
    """Tell whether a value has the rows of an image, with any number of channels."""
    return v is not None and is_image(v) and v.type.shape[:3] == image.type.shape[:3]


def _local(n: Node, lo: int, hi: int) -> Part:
    """Elementwise operators and products over channels; other operands serve every row."""
    rows = {i: (lo, hi) for i, v in enumerate(n.inputs) if v is not None and _like(v, n.output)}
    return Part(rows, dict(n.attrs))


def _elementwise(n: Node, lo: int, hi: int) -> Part | None:
    """As _local, where no other operand differs from row to row."""
    fits = all(v is None or v.type.rank < 3 or _like(v, n.output)
               or v.type.shape[-3] == 1 for v in n.inputs)
    return _local(n, lo, hi) if fits else None


def _masked(n: Node, lo: int, hi: int) -> Part | None:
    """mask_grad: the bits of the rows have to begin with a byte."""
    if n.output.type.size // n.output.type.shape[1] * lo % 8:
        return None
    return Part({0: (lo, hi), 1: (lo, hi)}, dict(n.attrs))


def _broadcast(n: Node, lo: int, hi: int) -> Part | None:
    x = n.inputs[0]
    assert x is not None
    if x.type.rank >= 3 and x.type.shape[-3] != 1:
        return None
    _, _, *rest = n.output.type.shape
    return Part({}, {"shape": (1, hi - lo, *rest)})


def _seen(window: Window, height: int, lo: int, hi: int) -> tuple[Rows | None, dict[str, Any]]:
    """Rows of an image that windows [lo, hi) see, and the pads around them."""
    step, reach = window.strides[0], window.dilations[0] * (window.kernel[0] - 1) + 1
    top = lo * step - window.pads[0]
    bottom = (hi - 1) * step - window.pads[0] + reach
    a, b = max(top, 0), min(bottom, height)
    pads = (a - top, window.pads[1], bottom - b, window.pads[3])
    return ((a, b), {"pads": pads}) if a < b else (None, {})


def _window_of(n: Node) -> Window:
    kernel = n.attrs.get("kernel") or n.inputs[1].type.shape[1:3]  # type: ignore[union-attr]
    return Window.of(tuple(kernel), n.attrs)


def _beside(n: Node, lo: int, hi: int) -> dict[int, Rows]:
    """The rows of what is added to a convolution."""
    return {i: (lo, hi) for i, v in enumerate(n.inputs) if i > 1 and _like(v, n.output)}


def _forward(n: Node, lo: int, hi: int) -> Part | None:
    x = n.inputs[0]
    assert x is not None
    rows, attrs = _seen(_window_of(n), x.type.shape[1], lo, hi)
    if rows is None:
        return None
    return Part({0: rows, **_beside(n, lo, hi)}, dict(n.attrs) | attrs)


def _back(n: Node, lo: int, hi: int) -> Part | None:
    """Gradient to rows [lo, hi) of the image: from the windows that see any of them."""
    dy = n.inputs[0]
    assert dy is not None
    window, (_, width) = _window_of(n), n.attrs["in_hw"]
    step, reach = window.strides[0], window.dilations[0] * (window.kernel[0] - 1) + 1
    first = max(-(-(lo + window.pads[0] - reach + 1) // step), 0)
    end = min((hi - 1 + window.pads[0]) // step + 1, dy.type.shape[1])
    top = window.pads[0] + lo - first * step
    bottom = max((end - first - 1) * step + reach - (hi - lo) - top, 0)
    seen = (hi - lo + top + bottom - reach) // step + 1
    if first >= end or top < 0 or seen != end - first:
        return None
    pads = (top, window.pads[1], bottom, window.pads[3])
    attrs = dict(n.attrs) | {"in_hw": (hi - lo, width), "pads": pads}
    return Part({0: (first, end), **_beside(n, lo, hi)}, attrs)


BY_IMAGE = ("qconv2d_i8", "qconv2d_i8_dx")
# The image is their first operand; the sum so far, where one is taken, what they write over.
REDUCES = ("linear_dw", "conv2d_dw", "col_sum", "reduce_mean", "reduce_sum")
WINDOWS = ("conv2d", "qconv2d", "conv2d_dx", "qconv2d_dx", *BY_IMAGE)
_RULES: Mapping[str, Callable[[Node, int, int], Part | None]] = {
    **dict.fromkeys(
        ("abs", "abs_grad", "add", "cast", "clip", "clip_grad", "div", "elu", "elu_grad", "gelu",
         "gelu_grad", "gelu_tanh", "gelu_tanh_grad", "hard_sigmoid", "hard_sigmoid_grad",
         "hard_swish", "hard_swish_grad", "leaky_relu", "leaky_relu_grad", "maximum", "minimum",
         "mul", "neg", "relu", "relu_grad", "sigmoid", "sigmoid_grad", "silu", "silu_grad", "sub",
         "tanh", "tanh_grad"), _elementwise),
    **dict.fromkeys(
        ("linear", "linear_dx", "qlinear", "qlinear_dx", "qlinear_i8", "qlinear_i8_dx",
         "qlinear_bf16", "qlinear_bf16_dx"), _local),
    **dict.fromkeys(("conv2d", "qconv2d", "qconv2d_i8"), _forward),
    **dict.fromkeys(("conv2d_dx", "qconv2d_dx", "qconv2d_i8_dx"), _back),
    "broadcast_to": _broadcast,
    "mask_grad": _masked,
}
