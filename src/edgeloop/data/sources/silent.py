"""No stream at all: for a device that learns from feedback alone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edgeloop.data.item import TICK, Labels

if TYPE_CHECKING:
    from collections.abc import Iterator


class SilentSource:
    """Never gives an item; lets the loop look at the time, and at what came from beside it."""

    name = "none"
    replayable = False

    def __init__(self, *, labels: Labels | None = None) -> None:
        del labels
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End `items`, from any thread."""
        self._stopped.set()

    def items(self, start: int = 0) -> Iterator[None]:
        """Yield None after each :data:`TICK` until `stop`."""
        del start
        while not self._stopped.wait(TICK):
            yield None
