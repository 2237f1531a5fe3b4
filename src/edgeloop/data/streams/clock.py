"""From row numbers to seconds, by stamps that jitter and clocks that drift."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SETTLE = 2.0  # seconds that the loop takes to follow the stamps
_QUIET = 0.02  # sample periods: a stamp that is off by less says nothing new


class StreamClock:
    """The time line of one stream: straight pieces, joined end to end.

    The nominal rate is corrected by the stamps of the blocks through a second-order delay-locked
    loop (F. Adriaensen, Using a DLL to filter time, Linux Audio Conference 2005): the distance e
    between a stamp and the line bends the line by sqrt(2) w e a sample and the estimate of the
    sample period by w^2 e a sample, w = 1 / (2 s x rate). So jitter is averaged over seconds, a
    clock that runs fast or slow is followed, and the line never jumps. Stamps that agree with the
    line to a fiftieth of a sample leave it as it is, bit for bit.

    Parameters
    ----------
    rate
        Nominal samples a second.
    tolerance, drift
        As of :class:`~edgeloop.data.streams.ring.SampleRing`.
    """

    def __init__(self, rate: float, *, tolerance: float = 1.0, drift: float = 2e-4) -> None:
        self._rate, self._tolerance, self._drift = rate, tolerance, drift
        self.begin(0, 0.0)

    def begin(self, index: int, time: float) -> None:
        """Start anew: row `index` was sensed at `time`."""
        self._index, self._time = index, time
        self._last = index
        self._period = self._slope = 1.0 / self._rate

    def time(self, index: float) -> float:
        """Return the seconds at a row, or between two of them."""
        return self._time + (index - self._index) * self._slope

    def times(self, rows: NDArray[np.float64]) -> None:
        """Turn row numbers into seconds, in place."""
        rows -= self._index
        rows *= self._slope
        rows += self._time

    def follows(self, index: int, stamp: float) -> bool:
        """Bend the line towards a stamp; False when it is too far away to belong to it."""
        rows = index - self._last
        error = stamp - self.time(index)
        settle = max(SETTLE * self._rate, 4.0 * rows)  # samples
        reach = self._tolerance / 2 + self._drift * (rows + settle)
        rounding = 4 * math.ulp(stamp)
        if abs(error) > reach / self._rate + rounding:
            return False
        self._last = index
        if abs(error) <= _QUIET / self._rate + rounding:
            return True
        nominal = 1.0 / self._rate
        self._time, self._index = self.time(index), index
        most = self._drift * nominal
        period = self._period + error / settle**2 * max(rows, 1)
        self._period = min(max(period, nominal - most), nominal + most)
        slope = self._period + math.sqrt(2) * error / settle
        self._slope = min(max(slope, nominal - 2 * most), nominal + 2 * most)
        return True
