"""Where blocks go in: a ring for each stream, and what is wrong with a block that fits none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeloop.data.streams.ring import SampleRing
from edgeloop.data.streams.track import Note
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeloop.data.item import Item

ANY = "*"  # in `rates`: every stream that is not named


class Inlet:
    """The rings of a feed's streams, each made when the first block of its stream comes.

    Parameters
    ----------
    name
        Of the feed, for errors.
    streams
        Names of the streams; empty: there is one, whatever its name.
    rate, rates
        Samples a second of streams that `rates` does not name, and of those that it does.
    capacity, tolerance, drift
        Of the rings.

    Attributes
    ----------
    rings
        By stream.
    flat
        The blocks of the only stream, or of one of them, are [n].
    origin
        Seconds of the first block; None: blocks carry no times.
    """

    def __init__(
        self,
        name: str,
        streams: Sequence[str],
        *,
        rate: float,
        rates: Mapping[str, float],
        capacity: int,
        tolerance: float,
        drift: float,
    ) -> None:
        self._name, self._streams = name, streams
        self._rate, self._rates = rate, rates
        self.capacity, self.tolerance, self.drift = capacity, tolerance, drift
        self.rings: dict[str, SampleRing] = {}
        self.flat = False
        self.origin: float | None = None

    @property
    def written(self) -> int:
        """Samples that have arrived, of all streams."""
        return sum(ring.written for ring in list(self.rings.values()))

    @property
    def taken(self) -> int:
        """Of these, the ones that have been read or lost."""
        return sum(ring.taken for ring in list(self.rings.values()))

    @property
    def names(self) -> Sequence[str] | None:
        """Streams in the order of their channels; None while one has not begun."""
        names = self._streams or tuple(self.rings)
        return names if names and all(name in self.rings for name in names) else None

    def nominal(self, name: str) -> float:
        """Samples a second of a stream."""
        return self._rates.get(name, self._rates.get(ANY, self._rate))

    def check(self, block: Item) -> DataError | None:
        """Make a ring for the stream of a block if it is new; the error when it does not fit."""
        name = _stream(block)

        def bad(what: str, plain: str) -> DataError:
            return DataError(f"{self._name}: {block.key}: {what}", plain)

        if block.x.ndim not in (1, 2):
            return bad(
                f"has shape {list(block.x.shape)}; a block to cut windows from is [n] or "
                "[n, channels]. Leave [window] out where items are windows already",
                "has another shape than [n] or [n, channels]",
            )
        channels = 1 if block.x.ndim == 1 else block.x.shape[1]
        ring = self.rings.get(name)
        if ring is None:
            if self._streams and name not in self._streams:
                return bad(
                    f"is of stream {name!r}, which window.streams {list(self._streams)} "
                    "does not name; add it there, or leave it out at the source",
                    "is of a stream that window.streams does not name",
                )
            if not self._streams and self.rings:
                return bad(
                    f"is of stream {name!r}, blocks before of {next(iter(self.rings))!r}; name the "
                    "ones to align in window.streams",
                    "is of another stream than blocks before it; name both in window.streams",
                )
            ring = SampleRing(
                self.capacity, max(1, channels), rate=self.nominal(name), tolerance=self.tolerance,
                drift=self.drift,
            )
            if block.x.ndim == 1:
                self.flat = True
            if self.origin is None:
                self.origin = block.time
            self.rings[name] = ring
        if channels != ring.channels:
            what = (f"has {channels} channels, blocks before it {ring.channels}; a stream keeps "
                    "its number of channels")
            return bad(what, what)
        if self._streams and (block.time is None) != (self.origin is None):
            what = (f"{'has no time' if block.time is None else 'has a time'}, other blocks "
                    "differ; streams are aligned by times, so that all blocks must carry one, or "
                    "none")
            return bad(what, what)
        return None

    def write(self, block: Item, begin: int = 0, end: int | None = None) -> None:
        """Put samples `begin` to `end` of a block that fits into its ring."""
        x = block.x if block.x.ndim == 2 else block.x[:, np.newaxis]
        time = block.time if begin == 0 else None
        self.rings[_stream(block)].write(x[begin:end], time, Note(block.y, block.meta))

    def cut(self) -> None:
        """A record was bad: where there are times they show what it left out, else nothing."""
        if self.origin is None:
            for ring in self.rings.values():
                ring.cut()


def _stream(block: Item) -> str:
    return str(block.meta.get("stream", ""))
