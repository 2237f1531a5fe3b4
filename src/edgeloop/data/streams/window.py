"""A feed of blocks becomes a source of windows, as fast as it is read or in real time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.item import TICK, Feedback, Item
from edgeloop.data.streams.align import Aligner
from edgeloop.data.streams.counts import counts_of, mark_of, resume, stop
from edgeloop.data.streams.cut import Cutter, Window
from edgeloop.data.streams.inlet import ANY, Inlet
from edgeloop.data.streams.reader import Reader
from edgeloop.data.streams.resample import ratio
from edgeloop.data.streams.track import Track
from edgeloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgeloop.data.item import Feed


class Windowed:
    """Cuts the blocks of a feed into windows of equal length at one rate.

    A block is an item with x [n] or [n, channels], samples one after another, whose `time` is that
    of the first, and whose meta["stream"] names its stream. A window's x is [length, channels], or
    [length] when the blocks of the only stream are [n]; it is a view that is valid until the next
    item is asked for. Its key is ``<feed>:<nanoseconds>``, or ``<feed>:<number>`` where blocks
    carry no times (of a path its last part); its label the one that most of its samples carry, its
    meta that of the newest block. No window spans a gap. Late labels and bad records pass.

    When `realtime` is off the feed waits, and what comes out is a function of the samples and their
    times, not of how they were cut into blocks. When it is on, a thread empties the feed into the
    rings and never waits for the loop; labels and bad records come after the windows that were
    complete when they arrived. Such a source cannot be read again.

    Parameters
    ----------
    feed
        Gives the blocks.
    length, hop
        Samples of a window, and between the starts of two; hop None: `length`.
    rate
        Samples a second of the windows; streams of other rates are resampled.
    rates
        Nominal samples a second of a stream by its name, "*" for all others; else `rate`.
    streams
        Names of the streams whose channels stand side by side, in this order, aligned by time.
        Empty: the feed is one stream.
    channels_first
        Give [channels, length].
    ring
        Samples of each stream that wait at most; beyond that the oldest go.
    tolerance
        Half sample periods that stamps of two blocks may be off against each other before samples
        count as missing.
    drift_ppm
        How far a sensor's clock may run from its nominal rate, in parts per million.
    realtime
        The feed does not wait.

    Raises
    ------
    ConfigError
        A number out of range, or a rate that is no simple ratio of `rate`.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        length: int,
        hop: int | None = None,
        rate: float,
        rates: Mapping[str, float] | None = None,
        streams: Sequence[str] = (),
        channels_first: bool = False,
        ring: int = 65536,
        tolerance: float = 1.0,
        drift_ppm: float = 200.0,
        realtime: bool = False,
    ) -> None:
        hop = length if hop is None else hop
        for key, value in (("length", length), ("hop", hop), ("ring", ring), ("rate", rate)):
            if not value > 0:
                raise ConfigError(f"window.{key}: is {value}; it must be above 0")
        if len(set(streams)) != len(streams):
            raise ConfigError(f"window.streams: {list(streams)} names one twice; name each once")
        self._rates = dict(rates or {})
        for name, nominal in self._rates.items():
            number = isinstance(nominal, int | float) and math.isfinite(nominal)
            if not number or nominal <= 0:
                raise ConfigError(
                    f"window.rates.{name}: is {nominal!r}; it must be a number of Hz above 0"
                )
            if streams and name not in (*streams, ANY):
                raise ConfigError(f"window.rates.{name}: is not in window.streams {list(streams)}")
            ratio(nominal, rate, f"window.rates.{name}")
        self.name = feed.name
        self._label = feed.name.rpartition("/")[2]  # keys must not depend on where a file lies
        self.replayable = feed.replayable and not realtime
        self._feed, self._realtime = feed, realtime
        self._length, self._hop, self._rate = length, hop, rate
        self._streams = tuple(streams)
        self._channels_first = channels_first
        self._ring, self._tolerance, self._drift = ring, tolerance, drift_ppm * 1e-6
        self._expected: float | None = None  # start of the next window, where the last process was
        self._reset(0)

    def _reset(self, number: int) -> None:
        self._inlet = Inlet(
            self.name, self._streams, rate=self._rate, rates=self._rates, capacity=self._ring,
            tolerance=self._tolerance, drift=self._drift,
        )
        self._cutter: Cutter | None = None
        self._aligner: Aligner | None = None
        self._turned = np.zeros(0, np.float32)
        self._number = number  # records given or left out so far
        self._windows = number
        self._first, self._skipped = True, 0
        self._reader: Reader | None = None

    @property
    def left(self) -> int:
        """Samples at `rate` that stand in no window, of this reading of the feed."""
        if self._cutter is None or self._aligner is None:
            return 0
        return self._cutter.left + self._aligner.dropped

    @property
    def waiting(self) -> int:
        """Joint samples, and raw ones in the rings, that may still become part of a window."""
        raw = self._inlet.written - self._inlet.taken
        return raw + (0 if self._cutter is None else self._cutter.waiting)

    def counts(self) -> dict[str, int]:
        """Return what went missing in this reading of the feed, with the counts of the feed."""
        rings = list(self._inlet.rings.values())
        own = {
            "gaps": 0 if self._cutter is None else self._cutter.gaps,
            "missing": sum(ring.missing for ring in rings) + self._skipped,
            "overruns": sum(ring.overruns for ring in rings)
            + (0 if self._reader is None else self._reader.overruns),
        }
        inner = counts_of(self._feed)
        return inner | {name: n + inner.get(name, 0) for name, n in own.items()}

    def mark(self) -> dict[str, Any]:
        """Return when the next window would begin, by the sensor's clock, and the feed's mark."""
        inner = {"feed": found} if (found := mark_of(self._feed)) else {}
        return inner if self._expected is None else inner | {"time": self._expected}

    def resume(self, mark: Mapping[str, Any]) -> None:
        """Count the samples between `mark` and the first window as missing; for live feeds."""
        if not self.replayable:
            self._expected = mark.get("time")
            resume(self._feed, mark.get("feed", {}))

    def stop(self) -> None:
        """Let :meth:`items` end when what has arrived is given; from any thread."""
        stop(self._feed)
        if self._reader is not None:
            self._reader.end()

    def _follows(self, time: float) -> None:
        """Take in that a window is given; `time`: of its first sample."""
        if self._first and self._expected is not None and not self.replayable:
            self._skipped = max(0, round((time - self._expected) * self._rate))
        self._first = False
        self._expected = time + self._hop / self._rate

    def items(self, start: int = 0) -> Iterator[Item | Feedback | DataError | None]:
        """Yield windows, late labels and bad records, leaving out the first `start`.

        A feed that can be read again is read from its start, because windows depend on what came
        before; those left out are counted, but not labelled or copied. A live one only counts on
        from `start`.
        """
        if self._realtime:
            self._reset(start)
            yield from self._live(start)
            return
        self._reset(0 if self._feed.replayable else start)
        for record in self._feed.items(0 if self._feed.replayable else start):
            if record is None:
                yield None
                continue
            if not isinstance(record, Item):
                if isinstance(record, DataError):
                    self._inlet.cut()
                if self._counts(start):
                    yield record
                continue
            bad = self._inlet.check(record)
            if bad is not None:
                if self._counts(start):
                    yield bad
                continue
            for i in range(0, max(1, len(record.x)), self._ring):  # no more than the ring holds
                self._inlet.write(record, i, i + self._ring)
                yield from self._ready(start)

    def _counts(self, start: int) -> bool:
        """Count one record; whether it is one to give."""
        self._number += 1
        return self._number > start

    # From rings to windows

    def _ready(self, start: int) -> Iterator[Item]:
        """Yield what is complete by now."""
        cutter = self._cutter or self._make_cutter()
        if cutter is None:
            return
        for window in cutter.windows():
            self._windows += 1
            if self._counts(start):
                yield self._item(cutter, window)

    def _make_cutter(self) -> Cutter | None:
        inlet = self._inlet
        names = inlet.names
        if names is None:
            return None
        channels = [inlet.rings[name].channels for name in names]
        tracks = [
            Track(
                inlet.rings[name], n, rate=inlet.nominal(name), wanted=self._rate,
                tolerance=self._tolerance, drift=self._drift, origin=inlet.origin or 0.0,
            )
            for name, n in zip(names, channels, strict=True)
        ]
        self._aligner = Aligner(tracks, channels, self._rate)
        self._cutter = Cutter(
            self._aligner, tracks, sum(channels), length=self._length, hop=self._hop,
            rate=self._rate,
        )
        self._turned = np.zeros((sum(channels), self._length), np.float32)
        return self._cutter

    def _item(self, cutter: Cutter, window: Window) -> Item:
        y, meta = cutter.said(window)
        x = window.x
        if self._channels_first:
            self._turned[:] = x.T
            x = self._turned
        elif len(self._inlet.rings) == 1 and self._inlet.flat:
            x = x[:, 0]
        if self._inlet.origin is None:
            return Item(x, y, f"{self._label}:{self._windows - 1}", meta)
        time = self._inlet.origin + window.time
        self._follows(time)
        return Item(x, y, f"{self._label}:{round(time * 1e9)}", meta, time)

    # In real time

    def _live(self, start: int) -> Iterator[Item | Feedback | DataError | None]:
        self._reader = reader = Reader(self._feed, start, self._arrive)
        try:
            while True:
                reader.news.clear()  # before looking: what comes while looking is looked at again
                ended = reader.ended
                for window in self._ready(start):
                    yield window
                    yield from reader.due(self._inlet.taken)
                yield from reader.due()
                if ended:
                    break
                if not reader.news.wait(TICK):
                    yield None
            if reader.failure is not None:
                raise reader.failure
        finally:
            reader.stop()

    def _arrive(
        self, record: Item | Feedback | DataError
    ) -> tuple[int, Feedback | DataError] | None:
        """Put a block into its ring; give back what is none. In the reader's thread."""
        if isinstance(record, Item):
            bad = self._inlet.check(record)
            if bad is None:
                self._inlet.write(record)
                return None
            record = bad
        elif isinstance(record, DataError):
            self._inlet.cut()
        return self._inlet.written, record
