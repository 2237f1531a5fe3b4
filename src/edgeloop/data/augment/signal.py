"""Changes of any signal over time: shift, crop, gain, jitter, noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.augment.change import RAW, Change, Layout, along, as_range, axis_of, need

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeloop.data.rng import Draw


class Shift(Change):
    """Moves along time by at most `strength` samples, either way; zeros come in."""

    key, stage = "shift", RAW

    def __init__(self, strength: int, layout: Layout) -> None:
        need(strength >= 0, self.key, strength, "at least 0 samples")
        self._most, self._axis = strength, layout.time

    def __call__(self, x: NDArray[Any], draw: Draw) -> NDArray[Any]:
        """Return the moved window."""
        move = draw.below(2 * self._most + 1) - self._most
        axis = axis_of(x, self._axis, "time_axis")
        length = x.shape[axis]
        if move == 0 or abs(move) >= length:
            return x
        out = np.zeros_like(x)
        to, start = max(move, 0), max(-move, 0)
        rest = length - abs(move)
        out[along(axis, to, to + rest)] = x[along(axis, start, start + rest)]
        return out


class Crop(Change):
    """Keeps a random stretch of time, at least the share `strength`, resampled to full length.

    Linear interpolation, so that the result is a little slower than what was sensed.
    """

    key, stage = "crop", RAW

    def __init__(self, strength: float, layout: Layout) -> None:
        need(0 < strength <= 1, self.key, strength, "a share above 0, at most 1")
        self._least, self._axis = strength, layout.time

    def __call__(self, x: NDArray[Any], draw: Draw) -> NDArray[Any]:
        """Return the stretched part."""
        share, start = draw.uniform(self._least, 1.0), draw.uniform()
        axis = axis_of(x, self._axis, "time_axis")
        length = x.shape[axis]
        if share >= 1.0 or length < 2:
            return x
        span = share * (length - 1)
        at = start * (length - 1 - span) + np.linspace(0.0, span, length)
        low = np.minimum(at.astype(np.intp), length - 2)
        part = (at - low).astype(np.float32)
        rows = np.moveaxis(x, axis, -1)
        out = rows[..., low] * (1 - part) + rows[..., low + 1] * part
        return np.ascontiguousarray(np.moveaxis(out, -1, axis), x.dtype)


class CropPad(Change):
    """Keeps a random stretch of time, at least the share `strength`, at its place; zeros around."""

    key, stage = "crop_pad", RAW

    def __init__(self, strength: float, layout: Layout) -> None:
        need(0 < strength <= 1, self.key, strength, "a share above 0, at most 1")
        self._least, self._axis = strength, layout.time

    def __call__(self, x: NDArray[Any], draw: Draw) -> NDArray[Any]:
        """Return the window with its ends silent."""
        share, start = draw.uniform(self._least, 1.0), draw.uniform()
        axis = axis_of(x, self._axis, "time_axis")
        length = x.shape[axis]
        keep = min(length, max(1, round(share * length)))
        first = int(start * (length - keep + 1))
        out = np.zeros_like(x)
        index = along(axis, first, first + keep)
        out[index] = x[index]
        return out


class Gain(Change):
    """Multiplies by a factor from the range `strength`, in decibels."""

    key, stage = "gain_db", RAW

    def __init__(self, strength: Any, layout: Layout) -> None:
        del layout
        self._range = as_range(strength, self.key)

    def __call__(self, x: NDArray[Any], draw: Draw) -> NDArray[Any]:
        """Return the louder or softer window."""
        return x * np.float32(10.0 ** (draw.uniform(*self._range) / 20.0))


class Jitter(Change):
    """Adds bell-shaped noise of standard deviation `strength`, in the window's own unit.

    Um et al. 2017, "Data augmentation of wearable sensor data for Parkinson's disease monitoring".
    """

    key, stage = "jitter", RAW

    def __init__(self, strength: float, layout: Layout) -> None:
        del layout
        need(strength >= 0, self.key, strength, "at least 0")
        self._deviation = np.float32(strength)

    def __call__(self, x: NDArray[Any], draw: Draw) -> NDArray[Any]:
        """Return the window with noise."""
        out: NDArray[Any] = x + self._deviation * draw.noise(x.size).reshape(x.shape)
        return out


class Noise(Change):
    """Adds noise at a ratio of signal power to noise power from the range `strength`, in decibels.

    The noise is scaled by its own measured power, so that the ratio is met in every window.
    """

    key, stage = "snr_db", RAW

    def __init__(self, strength: Any, layout: Layout) -> None:
        del layout
        self._range = as_range(strength, self.key)

    def __call__(self, x: NDArray[Any], draw: Draw) -> NDArray[Any]:
        """Return the window with noise; silence stays silent."""
        ratio = draw.uniform(*self._range)
        noise = draw.noise(x.size).reshape(x.shape)
        power = float(np.square(x, dtype=np.float64).mean()) if x.size else 0.0
        own = float(np.square(noise, dtype=np.float64).mean()) if x.size else 0.0
        if power == 0.0 or own == 0.0:
            return x
        scale = np.float32(np.sqrt(power / own * 10.0 ** (-ratio / 10.0)))
        out: NDArray[Any] = x + scale * noise
        return out
