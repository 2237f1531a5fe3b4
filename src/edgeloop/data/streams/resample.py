"""Streaming polyphase resampler: any rational ratio, the same bits however the stream is cut."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST = 1000  # of numerator and denominator: the filter has 20 times as many taps
_BETA = 5.0  # of the Kaiser window
_HALF = 10  # zero crossings of the sinc on each side
_AT_ONCE = 1024  # outputs made by one pass over the taps


def ratio(rate: float, wanted: float, where: str = "window.rates") -> Fraction:
    """Return `wanted` / `rate` as a fraction of whole numbers up to 1000; else ConfigError."""
    exact = Fraction(wanted) / Fraction(rate)
    near = exact.limit_denominator(LARGEST)
    if near.numerator in range(1, LARGEST + 1) and abs(near / exact - 1) <= Fraction(1, 1000000):
        return near
    raise ConfigError(
        f"{where}: {rate:g} Hz to {wanted:g} Hz: is no ratio of whole numbers up to {LARGEST}; "
        "choose a window.rate that is"
    )


def taps(up: int, down: int) -> NDArray[np.float64]:
    """Return the low pass that scipy.signal.resample_poly uses by default: 20 max(up, down) + 1."""
    half = _HALF * max(up, down)
    n = np.arange(-half, half + 1)
    low = np.sinc(n / max(up, down)) * np.kaiser(2 * half + 1, _BETA)
    return np.asarray(up * low / low.sum(), np.float64)


class Resampler:
    """Turns rows at one rate into rows at another: `up` rows out for `down` rows in.

    Output m lies at the time of input m * down / up. Only outputs whose taps all lie inside the
    data are given, so ten periods of the slower rate are lost at each end of an unbroken piece.
    Each output is summed tap by tap in f64 and in one order, whatever comes in one call.

    Parameters
    ----------
    up, down
        The ratio in lowest terms.
    channels
        Numbers in a row.
    block
        Rows in at most, in one call.

    Attributes
    ----------
    made
        Number of the next output, counted from the start of the piece.
    """

    def __init__(self, up: int, down: int, channels: int, block: int = 1024) -> None:
        self.up, self.down = up, down
        low = taps(up, down)
        half = len(low) // 2
        # Output m reads inputs (m * down + half - p) / up for p = phase, phase + up, ...
        self._reach = -(-half // up)  # inputs on each side
        width = 2 * self._reach + 1
        numbers = np.arange(up + _AT_ONCE)
        self._base = numbers * down // up  # input below output m, for m up to a turn of phases
        phase = numbers * down % up
        place = half + phase[None, :] + up * (self._reach - np.arange(width)[:, None])
        inside = (place >= 0) & (place < len(low))
        # Weight of input base + j - reach in output m: [width, m]
        self._weights = np.where(inside, low[np.clip(place, 0, len(low) - 1)], 0.0)
        if up == 1:
            self._weights = self._weights[:, :1]  # there is one phase
        self._first = -(-self._reach * up // down)
        # One line a channel. What is computed with below lies in one piece, for NumPy makes
        # temporaries where it does not.
        self._held = np.zeros((channels, width + down + block), np.float64)
        self._out = np.zeros((self._held.shape[1] * up // down + 2, channels), np.float32)
        self._sum = np.zeros(channels * _AT_ONCE, np.float64)
        self._term = np.zeros(channels * _AT_ONCE, np.float64)
        self._index = np.zeros(_AT_ONCE, np.intp)
        self.reset()

    @property
    def most(self) -> int:
        """Rows that one call may give."""
        return len(self._out)

    def reset(self) -> None:
        """Forget what came: the next row does not join the last one."""
        self.made = self._first
        self._begin = 0  # number of the input that _held begins with
        self._count = 0

    def push(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take rows [n, channels], n <= block; give rows [m, channels], valid until the next call.

        m may be 0.
        """
        self._make_room()
        self._held[:, self._count : self._count + len(x)] = x.T
        self._count += len(x)
        # The last output whose rightmost input has come.
        last = self._begin + self._count - 1 - self._reach
        ready = max(0, ((last + 1) * self.up - 1) // self.down + 1 - self.made)
        done = 0
        while done < ready:
            n = min(ready - done, _AT_ONCE)
            self._some(self._out[done : done + n])
            done += n
        return self._out[:ready]

    def _some(self, out: NDArray[np.float32]) -> None:
        """Make outputs from number `made` on."""
        n = len(out)
        turn, m = divmod(self.made, self.up)
        left = turn * self.down - self._reach - self._begin  # input of the first weight
        channels = len(self._held)
        index = self._index[:n]
        total = self._sum[: channels * n].reshape(channels, n)
        term = self._term[: channels * n].reshape(channels, n)
        total[:] = 0
        if self.up == 1:  # one phase: the inputs of a tap are evenly spaced
            left += m * self.down
            for j, weight in enumerate(self._weights[:, 0]):
                term[:] = self._held[:, left + j :: self.down][:, :n]
                term *= weight
                total += term
        else:
            np.add(self._base[m : m + n], left, out=index)
            for weights in self._weights:
                now = weights[m : m + n]
                np.take(self._held, index, axis=1, out=term, mode="clip")
                for line in term:
                    np.multiply(line, now, out=line)
                total += term
                index += 1
        out[:] = total.T
        self.made += n

    def _make_room(self) -> None:
        """Drop the inputs that no later output reads."""
        needed = self.made * self.down // self.up - self._reach
        drop = min(max(0, needed - self._begin), self._count)
        if drop:
            for held in self._held:
                held[: self._count - drop] = held[drop : self._count]
            self._begin += drop
            self._count -= drop
