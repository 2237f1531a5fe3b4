"""Masks on features [.., frames, bands] (SpecAugment, Park et al. 2019, without time warping).

What is masked becomes the mean of the features, which Park et al. have at 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from edgeloop.data.augment.change import FEATURES, Change, Layout, along, axis_of, need

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgeloop.data.rng import Draw


class _Mask(Change):
    """Masks ``strength[0]`` stretches of 0 to ``strength[1]`` entries along one axis."""

    stage = FEATURES
    _axis: ClassVar[int]

    def __init__(self, strength: Sequence[int], layout: Layout) -> None:
        del layout
        self._count, self._width = strength
        good = self._count >= 0 and self._width >= 0
        need(good, self.key, list(strength), "[masks, entries], both at least 0")

    def __call__(self, x: NDArray[Any], draw: Draw) -> NDArray[Any]:
        """Return the features with stretches masked."""
        axis = axis_of(x, self._axis, self.key)
        length, out, mean = x.shape[axis], x.copy(), x.mean(dtype="f8") if x.size else 0.0
        for _ in range(self._count):
            width = draw.below(min(self._width, length) + 1)
            first = draw.below(length - width + 1)
            out[along(axis, first, first + width)] = mean
        return out


class TimeMask(_Mask):
    """Masks frames, the last axis but one."""

    key = "time_mask"
    _axis = -2


class FrequencyMask(_Mask):
    """Masks bands, the last axis."""

    key = "freq_mask"
    _axis = -1
