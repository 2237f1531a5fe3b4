"""A reader thread between a sensor that does not wait and a loop that is sometimes busy."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from edgeloop.data.item import TICK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeloop.data.item import Item, Source
    from edgeloop.errors import DataError


class Intake:
    """Empties a source into a queue of fixed length; when it is full the oldest item goes.

    Parameters
    ----------
    source
        Read in a thread of its own, from item `start` on.
    capacity
        Items held at most.

    Attributes
    ----------
    overruns
        Items lost because the loop did not keep up, since :meth:`lost` was asked.
    """

    def __init__(self, source: Source, capacity: int, start: int = 0) -> None:
        self.overruns = 0
        self._queue: deque[Item | DataError] = deque()
        self._capacity = capacity
        self._ended = False
        self._failure: BaseException | None = None
        self._news = threading.Condition()
        self._thread = threading.Thread(
            target=self._read, args=(source, start), name="edgeloop-intake", daemon=True
        )
        self._thread.start()

    def _read(self, source: Source, start: int) -> None:
        try:
            for item in source.items(start):
                if item is None:
                    continue
                with self._news:
                    if self._ended:
                        return
                    if len(self._queue) == self._capacity:
                        self._queue.popleft()
                        self.overruns += 1
                    self._queue.append(item)
                    self._news.notify()
        except BaseException as error:  # noqa: BLE001 - raised again in the loop's thread
            self._failure = error
        with self._news:
            self._ended = True
            self._news.notify()

    def items(self) -> Iterator[Item | DataError | None]:
        """Yield what comes, and None whenever nothing did for a :data:`TICK`."""
        while True:
            with self._news:
                if not self._queue and not self._ended:
                    self._news.wait(TICK)
                item = self._queue.popleft() if self._queue else None
                if item is None and self._ended:
                    break
            yield item
        if self._failure is not None:
            raise self._failure

    def lost(self) -> int:
        """Items lost since this was asked last."""
        with self._news:
            count, self.overruns = self.overruns, 0
        return count

    def close(self) -> None:
        """Stop keeping what arrives; the thread ends at the next item."""
        with self._news:
            self._ended = True
            self._queue.clear()
            self._news.notify()
