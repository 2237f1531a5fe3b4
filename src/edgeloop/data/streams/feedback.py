"""Labels that come later: items wait for them, by the stream's own clock."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from edgeloop.data.item import Feedback, Item
from edgeloop.data.streams.wrapped import Wrapped
from edgeloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgeloop.data.item import Feed


class Matched(Wrapped):
    """A source whose unlabelled items wait for the :class:`Feedback` that is about them.

    An item is given on when its label comes, or without one (y None) when it has waited too long,
    too many wait, or the stream ends. Items that come labelled pass at once. What is given is a
    function of the stream alone: time passes by the items' times, and where they carry none only
    `capacity` bounds the wait. When a live stream's loop is started again, what waited is lost and
    counted.

    Parameters
    ----------
    feed
        Gives items and late labels.
    by
        "key": feedback names its item's key. "time": it names a moment; its item is the one that
        covers it, of several the one whose middle is nearest, else the nearest within `tolerance`.
    wait
        Seconds after an item's time at which it is given on unlabelled.
    tolerance
        Seconds between a moment and an item that does not cover it.
    capacity
        Items that wait at most.
    span
        Seconds that an item covers: a window's length.

    Attributes
    ----------
    unmatched
        Late labels that no waiting item fitted, in this reading of the feed.
    expired
        Items given on unlabelled, those at the end of the stream included.
    lost
        Items that waited when the last process ended.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        by: str = "key",
        wait: float = 600.0,
        tolerance: float = 1.0,
        capacity: int = 256,
        span: float = 0.0,
    ) -> None:
        if by not in ("key", "time"):
            raise ConfigError(f'feedback.by: is {by!r}; it must be "key" or "time"')
        if not wait > 0 or not tolerance >= 0 or capacity < 1 or not span >= 0:
            raise ConfigError(
                f"feedback: wait {wait} s must be above 0, tolerance {tolerance} s not below 0, "
                f"capacity {capacity} at least 1"
            )
        super().__init__(feed)
        self.unmatched = self.expired = self.lost = 0
        self._by = by
        self._wait, self._tolerance, self._span = wait, tolerance, span
        self._capacity = capacity
        self._waiting: dict[str, Item] = {}  # oldest first

    def counts(self) -> dict[str, int]:
        """Return what found no partner, with the counts of the feed."""
        return super().counts() | {
            "unmatched": self.unmatched, "expired": self.expired, "lost": self.lost}

    def mark(self) -> dict[str, Any]:
        """Return how many items wait, and the feed's mark."""
        return {"feed": super().mark(), "waiting": len(self._waiting)}

    def resume(self, mark: Mapping[str, Any]) -> None:
        """Count what waited as lost; a feed that can be read again gives it again."""
        if not self.replayable:
            self.lost = int(mark.get("waiting", 0))
        super().resume(mark.get("feed", {}))

    def items(self, start: int = 0) -> Iterator[Item | DataError | None]:
        """Yield items and bad records, leaving out the first `start`.

        A feed that can be read again is read from its start: who waits depends on what came before.
        A live one only counts on from `start`.
        """
        self.unmatched = self.expired = 0
        self._waiting.clear()
        if not self._feed.replayable:
            yield from self._settle(self._feed.items(start))
            return
        for number, record in enumerate(self._settle(self._feed.items())):
            if number >= start:
                yield record

    def _settle(
        self, records: Iterator[Item | Feedback | DataError | None]
    ) -> Iterator[Item | DataError | None]:
        for record in records:
            if isinstance(record, Feedback):
                item = self._partner(record)
                if item is None:
                    self.unmatched += 1
                else:
                    yield dataclasses.replace(self._waiting.pop(item.key), y=record.y)
            elif not isinstance(record, Item):
                yield record
            else:
                yield from self._late(record)
                if record.y is not None:
                    yield record
                else:
                    # A copy: a source may reuse the array for its next item.
                    self._waiting[record.key] = dataclasses.replace(record, x=record.x.copy())
        while self._waiting:
            yield self._expire(next(iter(self._waiting)))

    def _late(self, new: Item) -> Iterator[Item]:
        """Give on whoever cannot wait any longer now that `new` has come."""
        now = new.time
        if now is not None:
            # Oldest first: what comes behind one that may wait on is looked at when it is first.
            while self._waiting:
                first = next(iter(self._waiting.values()))
                if first.time is None or first.time + self._wait >= now:
                    break
                yield self._expire(first.key)
        if new.y is None:
            if new.key in self._waiting:
                yield self._expire(new.key)
            if len(self._waiting) == self._capacity:
                yield self._expire(next(iter(self._waiting)))

    def _expire(self, key: str) -> Item:
        self.expired += 1
        return self._waiting.pop(key)

    def _partner(self, said: Feedback) -> Item | None:
        if self._by == "key":
            return None if said.key is None else self._waiting.get(said.key)
        if said.time is None:
            return None
        best: tuple[float, float] | None = None
        partner = None
        for item in self._waiting.values():
            if item.time is None:
                continue
            end = item.time + self._span
            away = max(0.0, item.time - said.time, said.time - end)
            rank = (away, abs(item.time + self._span / 2 - said.time))
            if away <= self._tolerance and (best is None or rank < best):
                best, partner = rank, item
        return partner


class Settled(Wrapped):
    """A source without late labels: each one that comes is a bad record that says what to do."""

    def items(self, start: int = 0) -> Iterator[Item | DataError | None]:
        """Yield the feed's records from number `start` on."""
        for record in self._feed.items(start):
            yield self._error(record) if isinstance(record, Feedback) else record

    def _error(self, said: Feedback) -> DataError:
        about = f"time {said.time}" if said.key is None else f"key {said.key!r}"
        what = "came later than its item; add a [feedback] table to let items wait for such labels"
        return DataError(f"{self.name}: a label for {about} {what}", f"a label {what}")
