"""Changes of sensors with channels: mounting, calibration, failure; and of sequences of tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.augment.change import RAW, Change, Layout, axis_of, broadcast, need

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeloop.data.rng import Draw


class Rotate(Change):
    """Turns 3-axis channels by at most `strength` degrees around a random axis in space.

    The channels are taken three by three, and all threes turn alike: an accelerometer and a
    gyroscope sit in one housing (Um et al. 2017).
    """

    key, stage = "rotate_deg", RAW

    def __init__(self, strength: float, layout: Layout) -> None:
        need(0 <= strength <= 180, self.key, strength, "between 0 and 180 degrees")
        self._most, self._axis = math.radians(strength), layout.channel

    def __call__(self, x: NDArray[Any], draw: Draw) -> NDArray[Any]:
        """Return the window of a sensor that is mounted askew."""
        turn = rotation(draw, self._most)
        axis = axis_of(x, self._axis, "channel_axis")
        need(x.shape[axis] % 3 == 0, "channel_axis", self._axis,
             f"one of 3, 6, ... channels for rotate_deg; the window has {x.shape[axis]}")
        rows = np.moveaxis(x, axis, 0)
        out = np.empty_like(rows)
        for i in range(len(rows)):
            a = i - i % 3
            # Sums written out: a matrix product's order of summation differs between machines.
            w = turn[i % 3]
            out[i] = w[0] * rows[a] + w[1] * rows[a + 1] + w[2] * rows[a + 2]
        return np.ascontiguousarray(np.moveaxis(out, 0, axis))


class Scale(Change):
    """Multiplies each channel by a factor of its own, mean 1, deviation `strength` (Um et al.)."""

    key, stage = "scale", RAW

    def __init__(self, strength: float, layout: Layout) -> None:
        need(strength >= 0, self.key, strength, "at least 0")
        self._deviation, self._axis = np.float32(strength), layout.channel

    def __call__(self, x: NDArray[Any], draw: Draw) -> NDArray[Any]:
        """Return the window of sensors that are calibrated otherwise."""
        axis = axis_of(x, self._axis, "channel_axis")
        factors = np.float32(1) + self._deviation * draw.noise(x.shape[axis])
        return x * broadcast(factors, x.ndim, axis)


class DropChannel(Change):
    """Zeroes each channel with probability `strength`; one of them always stays."""

    key, stage = "drop_channel", RAW

    def __init__(self, strength: float, layout: Layout) -> None:
        need(0 <= strength < 1, self.key, strength, "a probability below 1")
        self._share, self._axis = strength, layout.channel

    def __call__(self, x: NDArray[Any], draw: Draw) -> NDArray[Any]:
        """Return the window of a device with dead sensors."""
        axis = axis_of(x, self._axis, "channel_axis")
        count = x.shape[axis]
        stays = draw.below(count) if count else 0
        alive = np.array([draw.uniform() >= self._share or i == stays for i in range(count)])
        return x * broadcast(alive.astype(np.float32), x.ndim, axis)


class DropToken(Change):
    """Drops each step of time with probability `strength`.

    Of integers a step becomes the token ``strength[1]``; of floats all its channels become 0.
    """

    key, stage = "drop_token", RAW

    def __init__(self, strength: Any, layout: Layout) -> None:
        share, token = strength
        good = 0 <= share < 1 and token == int(token)
        need(good, self.key, list(strength), "[a probability below 1, a token's number]")
        self._share, self._token, self._axis = share, int(token), layout.time

    def __call__(self, x: NDArray[Any], draw: Draw) -> NDArray[Any]:
        """Return the sequence with gaps."""
        axis = axis_of(x, self._axis, "time_axis")
        gone = np.array([draw.uniform() < self._share for _ in range(x.shape[axis])], bool)
        out = np.moveaxis(x.copy(), axis, 0)
        out[gone] = self._token if x.dtype.kind in "iu" else 0
        return np.moveaxis(out, 0, axis)


def rotation(draw: Draw, most: float) -> NDArray[np.float32]:
    """Rodrigues' matrix [3, 3] of at most `most` radians around an axis uniform on the sphere."""
    height, around = draw.uniform(-1.0, 1.0), draw.uniform(0.0, 2 * math.pi)
    angle = draw.uniform(-most, most)
    radius = math.sqrt(1 - height * height)
    a, b, c = radius * math.cos(around), radius * math.sin(around), height
    k = np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]])
    square = np.array([[a * a - 1, a * b, a * c], [a * b, b * b - 1, b * c],
                       [a * c, b * c, c * c - 1]])  # k times k, for a unit axis
    return (np.eye(3) + math.sin(angle) * k + (1 - math.cos(angle)) * square).astype(np.float32)
