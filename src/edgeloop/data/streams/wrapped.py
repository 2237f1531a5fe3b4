"""What a feed around another one hands on: name, counts, mark, and that it is to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeloop.data.streams.counts import counts_of, mark_of, resume, stop

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeloop.data.item import Feed


class Wrapped:
    """Base of feeds that change the records of another feed one by one."""

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
