"""Labelled items that come to a loop from beside its stream, such as feedback on predictions."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeloop.data.item import Item


class Inbox:
    """Items that wait for the loop, each with the name of who sent it; from any thread.

    The loop takes them between two records of its stream and in its silences. They are trained on
    like others, but judge nothing: neither gate nor validation set ever holds one.

    Parameters
    ----------
    capacity
        Items that wait at most.
    """

    def __init__(self, capacity: int = 256) -> None:
        self._capacity = capacity
        self._waiting: deque[tuple[str, Item]] = deque()
        self._lock = threading.Lock()

    def put(self, origin: str, item: Item) -> bool:
        """Let an item wait; False: there is no room."""
        with self._lock:
            if len(self._waiting) == self._capacity:
                return False
            self._waiting.append((origin, item))
            return True

    def take(self) -> list[tuple[str, Item]]:
        """Return all that wait, oldest first, and who sent each."""
        with self._lock:
            found = list(self._waiting)
            self._waiting.clear()
        return found
