"""From joint rows to windows: what is given, what is left over, and what a window is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeloop.data.streams.track import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from edgeloop.data.item import Label
    from edgeloop.data.streams.align import Aligner
    from edgeloop.data.streams.track import Track


class Window(NamedTuple):
    """Rows [length, channels], valid until the next window is asked for, and their first second."""

    x: NDArray[np.float32]
    time: float


class Cutter:
    """Cuts windows of `length` rows, their starts `hop` rows apart, out of what an aligner makes.

    Attributes
    ----------
    gaps
        Times that the rows were interrupted; the next window begins after the gap.
    left
        Rows that stand in no window: too few before a gap, or between two windows.
    """

    def __init__(
        self, aligner: Aligner, tracks: Sequence[Track], width: int, *, length: int, hop: int,
        rate: float,
    ) -> None:
        self.gaps = self.left = 0
        self._aligner, self._tracks = aligner, tracks
        self._length, self._hop, self._rate = length, hop, rate
        self._x = np.zeros((length + AT_ONCE, width), np.float32)
        self._t = np.zeros(len(self._x), np.float64)
        self._count = 0
        self._old = 0  # of these, rows that stood in the last window too
        self._skip = 0  # rows until the next window begins

    @property
    def waiting(self) -> int:
        """Joint rows that stand in no window yet."""
        return self._count - self._old

    def windows(self) -> Iterator[Window]:
        """Yield the windows that are complete by now."""
        moved = True
        while moved:
            moved = self._aligner.pull()
            yield from self._cut()
            if self._aligner.ended():
                moved = True
                self.gaps += 1
                self.left += self.waiting
                self._count = self._old = self._skip = 0

    def _cut(self) -> Iterator[Window]:
        x, t = self._x, self._t
        while True:
            fresh = self._aligner.rows(x[self._count :], t[self._count :])
            self._count += fresh
            if self._skip:
                rows = min(self._skip, self._count)
                self._skip -= rows
                self.left += rows
                self._drop(rows)
            while self._count >= self._length and not self._skip:
                yield Window(x[: self._length], float(t[0]))
                rows = min(self._hop, self._length)
                self._old = self._length - rows
                self._skip = self._hop - rows
                self._drop(rows)
            if not fresh:
                return

    def _drop(self, rows: int) -> None:
        rest = self._count - rows
        flat, width = self._x.reshape(-1), self._x.shape[1]  # see Track
        flat[: rest * width] = flat[rows * width : self._count * width]
        self._t[:rest] = self._t[rows : self._count]
        self._count = rest

    def said(self, window: Window) -> tuple[Label | None, Mapping[str, Any]]:
        """Return the label that most samples of a window carry, and the newest block's fields.

        The first stream that has a label for most of its samples says the label; of equal shares
        the one that came first.
        """
        begin, end = window.time, window.time + self._length / self._rate
        y: Label | None = None
        newest, meta = -np.inf, {}
        for track in self._tracks:
            track.forget(begin)
            shares: dict[Any, float] = {}
            labels: dict[Any, Label | None] = {}
            for span in track.spans:
                if span.begin >= end:
                    break
                label = span.note.y
                name = label.tobytes() if isinstance(label, np.ndarray) else label
                share = min(end, span.end) - max(begin, span.begin)
                shares[name] = shares.get(name, 0.0) + share
                labels.setdefault(name, label)
                if span.begin > newest:
                    newest, meta = span.begin, dict(span.note.meta)
            if y is None and shares:
                # In thousandths of a sample: rounding must not decide between equals.
                y = labels[max(shares, key=lambda name: round(shares[name] * self._rate, 3))]
        return y, meta
