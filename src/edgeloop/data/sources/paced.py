"""Records given out at the speed at which they were sensed, or a multiple of it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from edgeloop.data.item import Feedback, Item
from edgeloop.data.streams.wrapped import Wrapped
from edgeloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgeloop.data.item import Feed


class Paced(Wrapped):
    """A feed whose item of time t comes (t - time of the first) / speed after the first.

    Labels that arrive later wait for the moment that they tell, if they tell one; bad records for
    none. An item that is late by itself is given out at once.

    Parameters
    ----------
    feed
        Its items have times.
    speed
        1 is true speed, 60 an hour in a minute.
    clock, sleep
        Seconds, and what waits so many.
    """

    def __init__(
        self,
        feed: Feed,
        speed: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not (math.isfinite(speed) and speed > 0):
            raise ConfigError(f"source.speed is {speed}; it must be above 0")
        super().__init__(feed)
        self._speed, self._clock, self._sleep = speed, clock, sleep

    def items(self, start: int = 0) -> Iterator[Item | Feedback | DataError | None]:
        """Yield the records from number `start` on, the first item at once.

        Raises
        ------
        DataError
            An item without a time.
        """
        began: tuple[float, float] | None = None  # the clock, and the time of the first item
        for record in self._feed.items(start):
            if isinstance(record, Item) and record.time is None:
                what = ("has no time, so source.speed cannot be kept; leave source.speed out, or "
                        "name the source's times")
                raise DataError(f"{self.name}: {record.key}: {what}", what)
            if isinstance(record, Item | Feedback) and record.time is not None:
                if began is None and isinstance(record, Item):
                    began = self._clock(), record.time
                if began is not None:
                    wait = began[0] + (record.time - began[1]) / self._speed - self._clock()
                    if wait > 0:
                        self._sleep(wait)
            yield record
