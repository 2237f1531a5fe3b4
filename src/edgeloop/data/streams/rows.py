"""Single samples as blocks of one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from edgeloop.data.item import Item
from edgeloop.data.streams.counts import counts_of, mark_of, resume, stop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgeloop.data.item import Feed, Feedback
    from edgeloop.errors import DataError


class Rows:
    """A feed whose items are one sample each, x [channels]: they become blocks [1, channels]."""

    def __init__(self, feed: Feed) -> None:
        self.name, self.replayable = feed.name, feed.replayable
        self._feed = feed

    def counts(self) -> dict[str, int]:
        """Return the counts of the feed."""
        return counts_of(self._feed)

    def mark(self) -> dict[str, Any]:
        """Return the feed's mark."""
        return mark_of(self._feed)

    def resume(self, mark: Mapping[str, Any]) -> None:
        """Let the feed go on from its mark."""
        resume(self._feed, mark)

    def stop(self) -> None:
        """Let the feed end; from any thread."""
        stop(self._feed)

    def items(self, start: int = 0) -> Iterator[Item | Feedback | DataError]:
        """Yield the feed's records from number `start` on."""
        for record in self._feed.items(start):
            yield (
                dataclasses.replace(record, x=record.x.reshape(1, -1))
                if isinstance(record, Item) else record
            )
