"""Sliding windows over NHWC images: output sizes, ONNX padding, and the NumPy views of taps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.errors import ModelError, ShapeError
from edgeloop.ir import Array
from edgeloop.ops.builder import OnnxNode
from edgeloop.ops.onnx_helpers import pair
from edgeloop.ops.registry import Attr

Pair = tuple[int, int]

# Every window operator starts with these words: core/kernels/conv.h.
WINDOW_ATTRS = (
    Attr("strides", "i32[2]", (1, 1)),
    Attr("pads", "i32[4]", (0, 0, 0, 0)),
    Attr("dilations", "i32[2]", (1, 1)),
)


@dataclass(frozen=True, slots=True)
class Window:
    """(height, width) geometry; pads are top, left, bottom, right."""

    kernel: Pair
    strides: Pair
    pads: tuple[int, int, int, int]
    dilations: Pair

    @staticmethod
    def of(kernel: Pair, attrs: Mapping[str, Any]) -> Window:
        """Read the geometry from an operator's attributes."""
        got = {a.name: tuple(attrs.get(a.name, a.default)) for a in WINDOW_ATTRS}
        return Window(kernel, **got)

    def out(self, op: str, hw: Pair) -> Pair:
        """Output size; ShapeError when the window does not fit the padded image."""
        sizes = []
        for a in range(2):
            padded = hw[a] + self.pads[a] + self.pads[a + 2]
            reach = self.dilations[a] * (self.kernel[a] - 1) + 1
            bad = min(self.strides[a], self.dilations[a], self.kernel[a]) < 1 or min(self.pads) < 0
            if bad or reach > padded:
                raise ShapeError(
                    f"{op}: a window of {self.kernel} (strides {self.strides}, dilations "
                    f"{self.dilations}, pads {self.pads}) does not fit an image of {hw}"
                )
            sizes.append((padded - reach) // self.strides[a] + 1)
        return sizes[0], sizes[1]

    def taps(self, padded: Array, out: Pair) -> Iterator[tuple[int, int, Array]]:
        """Yield (ky, kx, view [b, oh, ow, c]) of a padded image, writable in place."""
        for ky in range(self.kernel[0]):
            for kx in range(self.kernel[1]):
                y, x = ky * self.dilations[0], kx * self.dilations[1]
                yield ky, kx, padded[
                    :,
                    y : y + (out[0] - 1) * self.strides[0] + 1 : self.strides[0],
                    x : x + (out[1] - 1) * self.strides[1] + 1 : self.strides[1],
                ]

    def pad(self, x: Array, value: float = 0.0) -> Array:
        """Return the padded image, always a copy."""
        top, left, bottom, right = self.pads
        return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)

    def crop(self, padded: Array, hw: Pair) -> Array:
        """Undo ``pad``."""
        top, left = self.pads[:2]
        return padded[:, top : top + hw[0], left : left + hw[1]]


def onnx_window(
    n: OnnxNode, kernel: tuple[int, ...], spatial: tuple[int, ...]
) -> tuple[Window, Pair]:
    """Read strides, pads or auto_pad, dilations and ceil_mode of a 1-D or 2-D ONNX node.

    Returns the window with explicit pads, and the (bottom, right) part of the pads that
    ceil_mode adds. A 1-D node becomes one of height 1.
    """
    axes = len(kernel)
    strides = pair(n.attrs.get("strides"), 1, axes=axes)
    dilations = pair(n.attrs.get("dilations"), 1, axes=axes)
    size = (1, *kernel) if axes == 1 else kernel
    hw = (1, *spatial) if axes == 1 else spatial
    auto = n.attrs.get("auto_pad", "NOTSET")
    auto = auto.decode() if isinstance(auto, bytes) else auto
    begin, end = [0, 0], [0, 0]
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        for a in range(2):
            reach = dilations[a] * (size[a] - 1) + 1
            total = max((-(-hw[a] // strides[a]) - 1) * strides[a] + reach - hw[a], 0)
            begin[a] = total // 2 if auto == "SAME_UPPER" else total - total // 2
            end[a] = total - begin[a]
    elif auto == "NOTSET":
        given = [int(p) for p in n.attrs.get("pads") or [0] * (2 * axes)]
        if min(given) < 0:
            raise ModelError(f"{n.op_type} node '{n.name}': pads {given} are negative; use Slice")
        begin = [0, given[0]] if axes == 1 else given[:2]
        end = [0, given[1]] if axes == 1 else given[2:]
    elif auto != "VALID":
        raise ModelError(f"{n.op_type} node '{n.name}': unknown auto_pad '{auto}'")
    extra = [0, 0]
    if n.attrs.get("ceil_mode", 0) and auto == "NOTSET":
        for a in range(2):
            reach = dilations[a] * (size[a] - 1) + 1
            span = hw[a] + begin[a] + end[a] - reach
            steps = -(-span // strides[a])
            if steps * strides[a] >= hw[a] + begin[a]:  # would start in the padding after the image
                steps -= 1
            extra[a] = max(steps * strides[a] - span, 0)
    pads = (begin[0], begin[1], end[0] + extra[0], end[1] + extra[1])
    window = Window((size[0], size[1]), strides, pads, dilations)
    return window, (extra[0], extra[1])
