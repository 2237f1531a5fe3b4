"""Changes of images [.., height, width], and mirroring along any axis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.augment.change import RAW, Change, Layout, axis_of, need

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgeloop.data.rng import Draw


class Flip(Change):
    """Mirrors along each of the axes `strength` with probability one half."""

    key, stage = "flip", RAW

    def __init__(self, strength: Sequence[int], layout: Layout) -> None:
        del layout
        self._axes = tuple(strength)

    def __call__(self, x: NDArray[Any], draw: Draw) -> NDArray[Any]:
        """Return the image or its mirror image."""
        chosen = tuple(axis_of(x, a, self.key) for a in self._axes if draw.below(2))
        return np.ascontiguousarray(np.flip(x, chosen)) if chosen else x


class QuarterTurn(Change):
    """Turns a square image [.., n, n] by 0, 90, 180 or 270 degrees."""

    key, stage = "quarter_turn", RAW

    def __init__(self, strength: bool, layout: Layout) -> None:
        del layout
        self._on = strength

    def __call__(self, x: NDArray[Any], draw: Draw) -> NDArray[Any]:
        """Return the turned image."""
        turns = draw.below(4)
        if not self._on:
            return x
        good = x.ndim >= 2 and x.shape[-1] == x.shape[-2]
        need(good, self.key, self._on, f"false for images that are not square: {list(x.shape)}")
        return np.ascontiguousarray(np.rot90(x, turns, axes=(-2, -1)))


class Turn(Change):
    """Turns an image [.., height, width] by at most `strength` degrees around its middle.

    Bilinear; zeros come in from outside.
    """

    key, stage = "turn_deg", RAW

    def __init__(self, strength: float, layout: Layout) -> None:
        del layout
        need(0 <= strength <= 180, self.key, strength, "between 0 and 180 degrees")
        self._most = math.radians(strength)

    def __call__(self, x: NDArray[Any], draw: Draw) -> NDArray[Any]:
        """Return the turned image."""
        angle = draw.uniform(-self._most, self._most)
        need(x.ndim >= 2, self.key, self._most, f"0 for a window of shape {list(x.shape)}")
        if angle == 0:
            return x
        height, width = x.shape[-2:]
        up, left = (height - 1) / 2, (width - 1) / 2
        down, right = np.mgrid[0:height, 0:width].astype(np.float64)
        sin, cos = math.sin(angle), math.cos(angle)
        # Where each pixel comes from, in an image with a frame of zeros one pixel wide.
        row = np.clip(cos * (down - up) - sin * (right - left) + up + 1, 0, height + 1)
        column = np.clip(sin * (down - up) + cos * (right - left) + left + 1, 0, width + 1)
        r = np.minimum(row.astype(np.intp), height)
        c = np.minimum(column.astype(np.intp), width)
        a, b = (row - r).astype(np.float32), (column - c).astype(np.float32)
        framed = np.zeros((*x.shape[:-2], height + 2, width + 2), x.dtype)
        framed[..., 1:-1, 1:-1] = x
        upper = framed[..., r, c] * (1 - b) + framed[..., r, c + 1] * b
        lower = framed[..., r + 1, c] * (1 - b) + framed[..., r + 1, c + 1] * b
        out: NDArray[Any] = (upper * (1 - a) + lower * a).astype(x.dtype)
        return out
