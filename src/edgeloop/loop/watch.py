"""What is observed after each item, what follows from it, and the words for both."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.loop.triggers import Explanation, Facts, TriggerSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from edgeloop.data.item import Label
    from edgeloop.loop.memory import Memory
    from edgeloop.loop.serving import Live


class Watch:
    """Observes the stream, the live version and the device as far as conditions ask, and decides.

    Parameters
    ----------
    triggers
        Decide.
    by_input
        The model reproduces its input: an item needs no label to be judged.
    classes
        Classes of the program; None: its answers are no distribution over classes.
    device
        Gives readings of the device by the names of :class:`Facts`; None: nothing is known of it.
    joules
        Joules used so far; None: not known.
    clock, wall
        Seconds of a monotonic clock, and Unix time.

    Attributes
    ----------
    last
        End of the last update, as JSON types: "at", Unix time; "day", the local date; and "joules",
        what updates used on it (None: not known). {}: there was none.
    """

    def __init__(
        self,
        triggers: TriggerSet,
        *,
        live: Live,
        by_input: bool,
        classes: int | None,
        device: Callable[[], dict[str, Any]] | None,
        joules: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._triggers, self._needs = triggers, triggers.needs
        self._live, self._device, self._joules = live, device, joules
        self._by_input, self._classes = by_input, classes
        self._clock, self._wall = clock, wall
        self.last: dict[str, Any] = {}
        self._seen: dict[str, Any] = {}
        self._said: tuple[str, ...] = ()

    def item(self, x: NDArray[np.float32], y: Label | None) -> None:
        """Look at what the live version makes of one model input x [*shape]."""
        seen = self._seen = {}
        row = x[np.newaxis]
        if "error" in self._needs and (y is not None or self._by_input):
            score = float(self._live.scores(row, None if self._by_input else [y])[0])  # type: ignore[list-item]
            is_class = isinstance(y, int) and not self._by_input
            seen["error"] = 1.0 - score if is_class else -score
        if "confidence" in self._needs and self._classes is not None:
            seen["confidence"] = confidence(self._live.predict(row)[0])
        if "input" in self._needs:
            seen["input"] = float(np.sqrt(np.square(x, dtype=np.float64).mean()))

    def decide(self, memory: Memory) -> str:
        """Return "collect", "wait" (something is short) or "train" after an item."""
        self._triggers.observe(self._facts(memory))
        self._seen = {}
        return self._triggers.action()

    def may_go_on(self, memory: Memory) -> str:
        """Return why an update under way has to stop for now; "": it may go on."""
        if not self._triggers.constraints.needs:
            return ""
        unmet = self._triggers.may_go_on(self._facts(memory))
        return "; ".join(f"{e.text}: {e.detail}" for e in unmet)

    def lines(self) -> list[str]:
        """Say what is waited for, or why an update starts."""
        return self._triggers.decide().lines()

    def news(self) -> list[str]:
        """As :meth:`lines` when something began or ceased to hold since the last call; else []."""
        decision = self._triggers.decide()
        now = (decision.action, *_held(decision.explanation))
        if now == self._said:
            return []
        self._said = now
        return decision.lines()

    def started(self) -> None:
        """An update starts."""
        self._triggers.started()

    def ended(self, promoted: bool, joules: float | None) -> None:
        """An update ended: whether its result went live, and what it used."""
        self._triggers.ended(promoted)
        wall = self._wall()
        day = _local(wall).date().isoformat()
        before = self.last.get("joules") if self.last.get("day") == day else 0.0
        used = None if joules is None or before is None else before + joules
        self.last = {"at": wall, "day": day, "joules": used}

    def _energy_today(self, day: str) -> float | None:
        if "energy" not in self._needs or self._joules() is None:
            return None
        used: float | None = self.last["joules"] if self.last.get("day") == day else 0.0
        return used

    def state(self) -> dict[str, Any]:
        """Return what has been observed, as JSON types."""
        return self._triggers.state()

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._triggers.load(state)

    def _facts(self, memory: Memory) -> Facts:
        counts, wall = memory.counts, self._wall()
        by_class = dict(counts.by_class)
        if self._classes is not None:
            by_class = {c: by_class.get(c, 0) for c in range(self._classes)}
        device = {} if self._device is None or "device" not in self._needs else self._device()
        local = _local(wall)
        return Facts(
            since=counts.since,
            fresh=len(memory.fresh),
            gate=len(memory.gate),
            novel=memory.novel,
            by_class=by_class,
            now=self._clock(),
            wall=local,
            energy_today_j=self._energy_today(local.date().isoformat()),
            # A clock that was set back says nothing.
            last_update=max(0.0, wall - self.last["at"]) if self.last else None,
            **self._seen,
            **device,
        )


def _local(wall: float) -> datetime:
    return datetime.fromtimestamp(wall, UTC).astimezone()


def confidence(scores: NDArray[np.float32]) -> float:
    """Probability of the answer: the largest softmax of class scores [1, ..., classes]."""
    z = np.asarray(scores, np.float64).reshape(-1)
    return float(1.0 / np.exp(z - z.max()).sum())


def _held(explanation: Explanation) -> list[str]:
    """Which conditions hold, without their numbers."""
    found = [f"{explanation.text}={explanation.holds}"]
    for part in explanation.parts:
        found += _held(part)
    return found


