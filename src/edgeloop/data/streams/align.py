"""Several streams on one time base: rows side by side, at the same moments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgeloop.data.streams.track import Track

_AT_ONCE = 256  # rows that are made at a time
_FINE = 4096  # places between two rows that are told apart


class Aligner:
    """Makes joint rows at `rate` where every stream has data.

    One stream: its rows. Several: the moments are T, T + 1 / rate, ..., T the first one at which
    each stream has begun; a value between two rows of a stream lies on the straight line between
    them, which is a delay by a fraction of a row, that follows the drift of the clocks. (A straight
    line passes a tone at a tenth of the rate with 0.95 of its height at worst, at a fifth with
    0.81.) A piece ends where one stream's does; the next begins where all have begun again.

    Parameters
    ----------
    tracks
        The streams, in the order of the channels.
    channels
        Numbers in a row of each.
    rate
        Joint rows a second.

    Attributes
    ----------
    dropped
        Rows of single streams that met no row of the others.
    """

    def __init__(self, tracks: Sequence[Track], channels: Sequence[int], rate: float) -> None:
        self._tracks, self._rate = tracks, rate
        ends = np.cumsum(channels)
        self._columns = [slice(int(e) - c, int(e)) for e, c in zip(ends, channels, strict=True)]
        self.dropped = 0
        self._start: float | None = None  # T
        self._made = 0
        self._moments = np.zeros(_AT_ONCE, np.float64)
        self._part = np.zeros(_AT_ONCE, np.float32)
        self._low = [np.zeros((_AT_ONCE, c), np.float32) for c in channels]
        self._high = [np.zeros((_AT_ONCE, c), np.float32) for c in channels]

    def pull(self) -> bool:
        """Move what waits in the rings on as far as there is room; False when nothing moved."""
        moved = False
        for track in self._tracks:
            while track.pull():
                moved = True
        return moved

    def rows(self, x: NDArray[np.float32], t: NDArray[np.float64]) -> int:
        """Write the next rows to `x` [n, channels] and their seconds to `t`; says how many."""
        if len(self._tracks) == 1:
            return self._straight(x, t)
        if self._start is None and not self._begin():
            return 0
        done = 0
        while done < len(x) and (n := self._some(x[done:], t[done:])):
            done += n
        return done

    def ended(self) -> bool:
        """Go on to the next piece when this one is over; call it when there are no more rows."""
        over = [track for track in self._tracks if track.closed and self._spent(track)]
        for track in over:
            self.dropped += track.reopen()
        if over:
            self._start = None
        return bool(over)

    def _spent(self, track: Track) -> bool:
        if len(self._tracks) == 1 or self._start is None:
            return track.begin == track.end
        return self._reaches(track) < self._made

    def _straight(self, x: NDArray[np.float32], t: NDArray[np.float64]) -> int:
        track = self._tracks[0]
        n = min(len(x), track.end - track.begin)
        x[:n] = track.x[track.begin : track.begin + n]
        t[:n] = track.t[track.begin : track.begin + n]
        track.drop(n)
        return n

    def _begin(self) -> bool:
        """Find T; False when some stream has not come so far, or ends before it."""
        if any(track.begin == track.end for track in self._tracks):
            return False
        start = max(float(track.t[track.begin]) for track in self._tracks)
        there = True
        for track in self._tracks:
            # All but the last row at or before T, from which the line to the next begins.
            waiting = track.t[track.begin : track.end]
            early = int(np.searchsorted(waiting, start + self._grain, "right")) - 1
            track.drop(early)
            self.dropped += early
            if waiting[-1] < start - self._grain:
                there = False
                if track.closed:  # it ends before T
                    track.drop(1)
                    self.dropped += 1
        if not there:
            return False
        self._start, self._made = start, 0
        return True

    @property
    def _grain(self) -> float:
        """Seconds that are too few to tell two moments apart."""
        return 0.5 / _FINE / self._rate

    def _reaches(self, track: Track) -> int:
        """Number of the last joint row that a stream's rows reach."""
        assert self._start is not None
        last = float(track.t[track.end - 1])
        return int(np.floor((last - self._start + self._grain) * self._rate))

    def _some(self, x: NDArray[np.float32], t: NDArray[np.float64]) -> int:
        assert self._start is not None
        last = min(self._reaches(track) for track in self._tracks)
        n = min(last + 1 - self._made, len(x), _AT_ONCE)
        if n <= 0:
            return 0
        moments = self._moments[:n]
        moments[:] = t[:n] = (np.arange(self._made, self._made + n) / self._rate) + self._start
        for track, low, high, columns in zip(
            self._tracks, self._low, self._high, self._columns, strict=True
        ):
            waiting = track.t[track.begin : track.end]
            left = np.searchsorted(waiting, moments, "right") - 1
            np.clip(left, 0, max(0, len(waiting) - 2), out=left)
            width = np.maximum(waiting[np.minimum(left + 1, len(waiting) - 1)] - waiting[left],
                               self._grain)
            # On a fine grid, so that what is a row up to rounding is that row, bit for bit.
            places = np.rint((moments - waiting[left]) / width * _FINE).astype(np.intp)
            left += places // _FINE
            np.minimum(left, len(waiting) - 1, out=left)
            self._part[:n] = places % _FINE / _FINE
            right = np.minimum(left + 1, len(waiting) - 1)
            rows = track.x[track.begin : track.end]
            np.take(rows, left, axis=0, out=low[:n], mode="clip")
            np.take(rows, right, axis=0, out=high[:n], mode="clip")
            high[:n] -= low[:n]
            high[:n] *= self._part[:n, None]
            np.add(low[:n], high[:n], out=x[:n, columns])
            track.drop(int(left[-1]))
        self._made += n
        return n
