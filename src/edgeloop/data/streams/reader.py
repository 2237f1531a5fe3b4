"""The thread that empties a feed while the loop is busy."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgeloop.data.item import Feed, Feedback, Item
    from edgeloop.errors import DataError

_OTHERS = 1024  # labels and bad records that wait at most


class Reader:
    """Hands every record of a feed to `arrive`, which takes the blocks; keeps the others in order.

    Parameters
    ----------
    feed, start
        What is read, and the number of the first record.
    arrive
        Called in the reader's thread; takes a block into its ring and gives back anything else,
        with the number of samples that arrived before it.

    Attributes
    ----------
    news
        Set when something arrived or the feed ended.
    ended, failure
        The feed gives no more, and what it raised.
    overruns
        Labels and bad records that were dropped because too many waited.
    """

    def __init__(
        self,
        feed: Feed,
        start: int,
        arrive: Callable[[Item | Feedback | DataError], tuple[int, Feedback | DataError] | None],
    ) -> None:
        self.news = threading.Event()
        self.ended = False
        self.failure: BaseException | None = None
        self.overruns = 0
        self._stopped = False
        self._others: deque[tuple[int, Feedback | DataError]] = deque()
        threading.Thread(
            target=self._read, args=(feed, start, arrive), name="edgeloop-streams", daemon=True
        ).start()

    def _read(
        self,
        feed: Feed,
        start: int,
        arrive: Callable[[Item | Feedback | DataError], tuple[int, Feedback | DataError] | None],
    ) -> None:
        try:
            for record in feed.items(start):
                if self._stopped:
                    return
                if record is None:
                    continue
                other = arrive(record)
                if other is not None:
                    while len(self._others) >= _OTHERS:
                        self._others.popleft()
                        self.overruns += 1
                    self._others.append(other)
                self.news.set()
        except BaseException as error:  # noqa: BLE001 - raised again in the loop's thread
            self.failure = error
        self.ended = True
        self.news.set()

    def due(self, taken: int | None = None) -> Iterator[Feedback | DataError]:
        """Yield what arrived before sample number `taken`; None: all that waits."""
        while True:
            try:
                before, other = self._others.popleft()
            except IndexError:  # also where the thread dropped the last one just now
                return
            if taken is not None and before > taken:
                self._others.appendleft((before, other))
                return
            yield other

    def end(self) -> None:
        """Let whoever waits for news see that no more will come; from any thread."""
        self.ended = self._stopped = True
        self.news.set()

    def stop(self) -> None:
        """Keep nothing more; the thread ends at the next record."""
        self._stopped = True
