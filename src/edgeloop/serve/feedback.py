"""Labels for predictions that were made here, on their way to the loop."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeloop.data.item import Item
from edgeloop.errors import DataError, InputError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from edgeloop.data.inbox import Inbox
    from edgeloop.data.item import Labels


@dataclass(frozen=True, slots=True)
class Limits:
    """What each sender may do.

    Attributes
    ----------
    remembered
        Predictions that are remembered until their label comes, of all senders together.
    per_minute
        Labels that a sender may give in a minute.
    quota
        Labels of one sender between the ends of two updates.
    """

    remembered: int
    per_minute: float
    quota: int


class Desk:
    """Remembers what was asked lately; a label for it becomes an item for the loop.

    A prediction takes one label, from the sender that asked for it. Who sends more than it may is
    told so, and others are not kept from sending.

    Parameters
    ----------
    inbox
        Of the loop.
    labels
        What labels mean.
    limits
        What each sender may do.
    clock
        Seconds, monotonic.

    Attributes
    ----------
    closed
        Why no label is taken any more; "": labels are taken.
    """

    def __init__(
        self, inbox: Inbox, labels: Labels, limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inbox, self._labels, self._limits, self._clock = inbox, labels, limits, clock
        self._asked: OrderedDict[tuple[str, str], NDArray[np.float32]] = OrderedDict()
        self._rest: dict[str, tuple[float, float]] = {}  # labels that may come, and when that was
        self._given: dict[str, int] = {}
        self._lock = threading.Lock()
        self.closed = ""

    def remember(self, sender: str, id_: str, window: NDArray[np.float32]) -> None:
        """Keep the raw window of a prediction; what a sender asked under that id before goes."""
        with self._lock:
            self._asked.pop((sender, id_), None)
            self._asked[sender, id_] = window.copy()
            while len(self._asked) > self._limits.remembered:
                self._asked.popitem(last=False)

    def label(self, sender: str, id_: str, said: Any) -> None:
        """Hand a labelled window to the loop.

        Raises
        ------
        InputError
            The label means nothing.
        LookupError
            There is no such prediction of this sender (any more), or it has its label.
        TooManyError
            The sender gave as many as it may, or the loop has as many waiting as it can.
        StateError
            Nobody learns any more.
        """
        if self.closed:
            raise StateError(f"no feedback is taken: {self.closed}")
        try:
            y = self._labels.parse(said, "label")
        except DataError as error:
            raise InputError(str(error)) from error
        if y is None:
            raise InputError("label: is missing")
        with self._lock:
            window = self._asked.get((sender, id_))
            if window is None:
                raise LookupError(id_)
            self._count(sender)
            item = Item(window, y, f"feedback:{sender}:{id_}")
            if not self._inbox.put(f"feedback/{sender}", item):
                raise TooManyError("the loop is busy; try again later", 10.0)
            self._given[sender] = self._given.get(sender, 0) + 1
            del self._asked[sender, id_]

    def update_ended(self) -> None:
        """Let everybody give as many as the quota again."""
        with self._lock:
            self._given.clear()

    def _count(self, sender: str) -> None:
        limits, now = self._limits, self._clock()
        if self._given.get(sender, 0) >= limits.quota:
            raise TooManyError(
                f"{limits.quota} labels wait to be learnt from; no more until then", 60.0)
        rest, then = self._rest.get(sender, (limits.per_minute, now))
        rest = min(limits.per_minute, rest + (now - then) * limits.per_minute / 60)
        if rest < 1:
            self._rest[sender] = rest, now
            raise TooManyError(
                f"{limits.per_minute:g} labels a minute", (1 - rest) * 60 / limits.per_minute)
        self._rest[sender] = rest - 1, now


class TooManyError(Exception):
    """A sender gave as many labels as it may; `wait`: seconds until it may again, about."""

    def __init__(self, text: str, wait: float) -> None:
        super().__init__(text)
        self.wait = wait
