"""One stream on its way from a ring to rows at the common rate, each with its time."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeloop.data.streams.clock import StreamClock
from edgeloop.data.streams.resample import Resampler, ratio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeloop.data.item import Label
    from edgeloop.data.streams.ring import Chunk, SampleRing

AT_ONCE = 1024  # rows that go through at a time


class Note(NamedTuple):
    """What a block says beside its samples."""

    y: Label | None
    meta: Mapping[str, Any]


class Span(NamedTuple):
    """A stretch of time, in seconds, that a note is about."""

    begin: float
    end: float
    note: Note


class Track:
    """Reads one ring; keeps the resampled rows of one unbroken piece until they are taken.

    A piece that is over (`closed`) stays until `reopen`: other streams may still need it.

    Parameters
    ----------
    ring
        Samples of the stream, with :class:`Note` as notes.
    rate, wanted
        Samples a second that go in, and rows a second that come out.
    tolerance, drift
        As of the ring.
    origin
        Seconds that times are counted from: small numbers are exact ones.

    Attributes
    ----------
    x, t
        Rows [room, channels] and their seconds; those from `begin` to `end` wait.
    spans
        Notes by time, oldest first.
    stamped
        Whether any block carried a time.
    """

    def __init__(
        self,
        ring: SampleRing,
        channels: int,
        *,
        rate: float,
        wanted: float,
        tolerance: float,
        drift: float,
        origin: float,
    ) -> None:
        self.ring, self.rate = ring, rate
        self.closed = self.stamped = False
        self.begin = self.end = 0
        self.spans: deque[Span] = deque()
        self._clock = StreamClock(rate, tolerance=tolerance, drift=drift)
        self._origin = origin
        step = ratio(rate, wanted)
        self._resampler = (
            None if step == 1
            else Resampler(step.numerator, step.denominator, channels, AT_ONCE)
        )
        self._most = AT_ONCE if self._resampler is None else self._resampler.most
        self._step = 1.0 if self._resampler is None else float(1 / step)
        self._in = np.zeros((AT_ONCE, channels), np.float32)
        self.x = np.zeros((2 * self._most + AT_ONCE, channels), np.float32)
        self.t = np.zeros(len(self.x), np.float64)
        self._numbers = np.arange(self._most, dtype=np.float64)
        self._began = 0  # row of the ring that the piece begins with
        self._made = 0  # rows of the piece so far
        self._held: Chunk | None = None
        self._open = False

    def pull(self) -> bool:
        """Take one chunk of the ring; False when none waits, there is no room or the piece ends."""
        if self.closed or len(self.x) - (self.end - self.begin) < self._most:
            return False
        chunk = self.ring.read(self._in)
        if chunk is None:
            return False
        if self._joins(chunk):
            self._take(chunk)
        else:
            self._held, self.closed = chunk, True
        return True

    def reopen(self) -> int:
        """Drop what is left of a piece that is over, begin the next; says how many rows."""
        left = self.end - self.begin
        chunk, self._held, self.closed = self._held, None, False
        assert chunk is not None
        self.begin = self.end = self._made = 0
        self._began = chunk.first
        if self._resampler is not None:
            self._resampler.reset()
        self._take(chunk)
        return left

    def drop(self, rows: int) -> None:
        """Let go of the oldest rows."""
        self.begin += rows

    def forget(self, before: float) -> None:
        """Let go of the notes about what ended before a time."""
        spans = self.spans
        while spans and spans[0].end <= before:
            spans.popleft()

    def _joins(self, chunk: Chunk) -> bool:
        """Move the time line on to a chunk; False when a new piece begins with it."""
        stamp = None if chunk.stamp is None else chunk.stamp - self._origin
        joins = self._open and not chunk.broken
        if joins and stamp is not None:
            joins = self.stamped and self._clock.follows(chunk.at, stamp)
        if stamp is not None and not joins:
            self._clock.begin(chunk.at, stamp)
            self.stamped = True
        if not self._open:  # the first piece of all follows none
            self._open = joins = True
            self._began = chunk.first
        return joins

    def _take(self, chunk: Chunk) -> None:
        rows = self._in[: chunk.count]
        note = chunk.note
        begin = self._clock.time(chunk.first)
        end = self._clock.time(chunk.first + chunk.count)
        spans = self.spans
        if spans and spans[-1].note is note and spans[-1].end == begin:
            spans[-1] = Span(spans[-1].begin, end, note)
        else:
            spans.append(Span(begin, end, note))
        first = self._made
        if self._resampler is not None:
            first = self._resampler.made
            rows = self._resampler.push(rows)
        self._make_room(len(rows))
        end_row = self.end + len(rows)
        self.x[self.end : end_row] = rows
        # Each a function of its own number only, so that chunks leave no trace in the last bit.
        t = self.t[self.end : end_row]
        np.add(self._numbers[: len(rows)], first, out=t)
        t *= self._step
        t += self._began
        self._clock.times(t)
        self.end = end_row
        self._made = first + len(rows)

    def _make_room(self, rows: int) -> None:
        if self.end + rows > len(self.x):
            n, width = self.end - self.begin, self.x.shape[1]
            flat = self.x.reshape(-1)  # NumPy copies a matrix that overlaps with itself twice
            flat[: n * width] = flat[self.begin * width : self.end * width]
            self.t[:n] = self.t[self.begin : self.end]
            self.begin, self.end = 0, n
