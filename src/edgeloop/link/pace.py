"""How fast, and how soon again."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, TypeVar

from edgeloop.errors import LinkError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Throttle:
    """Lets so many bytes pass in a second; the first piece passes at once.

    Parameters
    ----------
    rate : float or None
        Bytes a second; None: as fast as it goes.
    """

    def __init__(
        self, rate: float | None, *, clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = 0.0

    def spend(self, nbytes: int) -> None:
        """Wait until so many more bytes may pass."""
        if self._rate is None:
            return
        now = self._clock()
        if now < self._free_at:
            self._sleep(self._free_at - now)
        self._free_at = max(now, self._free_at) + nbytes / self._rate


def patiently(
    action: Callable[[], T],
    *,
    tries: int,
    base: float = 1.0,
    cap: float = 900.0,
    sleep: Callable[[float], None] = time.sleep,
    draw: Callable[[], float] = random.random,
    progress: Callable[[], int] = lambda: 0,
) -> T:
    """Do something until it works: exponential back-off with full jitter.

    After the n-th failure in a row it waits between 0 and min(cap, base * 2**n) seconds, evenly
    spread, so that devices which lost one server at one time do not come back at one time
    (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

    Parameters
    ----------
    tries : int
        Failures in a row after which the last one is raised.
    progress : callable
        A figure that grows when something got through: a try that moved it is no failure in a row.
    """
    failures = 0
    while True:
        before = progress()
        try:
            return action()
        except LinkError as error:
            failures = 0 if progress() > before else failures + 1
            if not error.again or failures >= tries:
                raise
            sleep(draw() * min(cap, base * 2.0**failures))
