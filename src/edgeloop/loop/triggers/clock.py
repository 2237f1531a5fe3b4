"""Conditions over time: of the day, since the last update, and without anybody at the device."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from edgeloop.errors import ConfigError
from edgeloop.loop.schema import Seconds
from edgeloop.loop.triggers.condition import Condition, Explanation

if TYPE_CHECKING:
    from edgeloop.loop.triggers.facts import Facts

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIMES = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\s*-\s*([01]\d|2[0-4]):([0-5]\d)")
_SET = 2024  # a clock before this year has never been set


@dataclass(eq=False)
class Schedule(Condition):
    """The time of the day lies in a window, by the device's local time; its end is outside.

    A window whose end is before its start spans midnight and belongs to the day it starts on.
    What the clock on the wall shows decides: where clocks go forward over the whole window, there
    is none that day; where they go back into it, it comes twice. A clock that was never set is
    unknown.

    Attributes
    ----------
    window
        "02:00-05:00"; the end may be "24:00".
    days
        Days on which it starts: "mon" to "sun"; absent: every day.
    """

    kind = "schedule"

    window: str
    days: tuple[str, ...] = DAYS
    _now: datetime | None = field(default=None, init=False, repr=False)
    _start: int = field(default=0, init=False, repr=False)
    _end: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        found = _TIMES.fullmatch(self.window)
        hours = [int(text) for text in found.groups()] if found else []
        if hours:
            self._start, self._end = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
        if not hours or self._start == self._end or self._end > 24 * 60:
            raise ConfigError(
                f'schedule.window: is "{self.window}"; write two times, such as "02:00-05:00"'
            )
        for i, day in enumerate(self.days):
            if day not in DAYS:
                raise ConfigError(
                    f'schedule.days[{i}]: is "{day}"; it must be one of {", ".join(DAYS)}'
                )
        if not self.days:
            raise ConfigError("schedule.days: is empty; name a day, or leave it out")

    def update(self, facts: Facts) -> None:
        """Look at the clock."""
        self._now = facts.wall

    def holds(self) -> bool | None:
        """Whether it is in the window."""
        now = self._now
        if now is None or now.year < _SET:
            return None
        minute, today = now.hour * 60 + now.minute, DAYS[now.weekday()]
        if self._start < self._end:
            return today in self.days and self._start <= minute < self._end
        if minute >= self._start:
            return today in self.days
        return DAYS[now.weekday() - 1] in self.days and minute < self._end

    def explain(self) -> Explanation:
        """Say what time it is."""
        held = self.holds()
        on = "" if self.days == DAYS else f" on {', '.join(self.days)}"
        if held is not None and self._now is not None:
            detail = f"it is {DAYS[self._now.weekday()]} {self._now:%H:%M}"
        else:
            detail = "unknown: " + ("no clock" if self._now is None else "the clock is not set")
        return Explanation(f"schedule {self.window}{on}", held, detail)

    def state(self) -> dict[str, Any]:
        """Return the time last seen."""
        return {"now": None if self._now is None else self._now.isoformat()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._now = None if state["now"] is None else datetime.fromisoformat(state["now"])


class _Timer(Condition):
    """Adds up seconds between looks; a clock that went back, as by a reboot, adds none."""

    _passed: float = 0.0
    _last: float | None = None

    def _tick(self, now: float, *, runs: bool) -> None:
        if runs and self._last is not None:
            self._passed += max(0.0, now - self._last)
        self._passed = self._passed if runs else 0.0
        self._last = now if runs else None

    def state(self) -> dict[str, Any]:
        """Return the seconds so far."""
        return {"passed": self._passed, "last": self._last}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._passed, self._last = state["passed"], state["last"]


@dataclass(eq=False)
class Every(_Timer):
    """Enough time since the last update.

    Attributes
    ----------
    period
        Time since the last update ended; before the first, time that the loop has run.
    """

    kind = "every"

    period: Seconds

    def update(self, facts: Facts) -> None:
        """Look at the clock."""
        self._tick(facts.now, runs=True)
        if facts.last_update is not None:
            self._passed = facts.last_update

    def holds(self) -> bool:
        """Whether the time is over."""
        return self._passed >= self.period

    def explain(self) -> Explanation:
        """Say how much of it is over."""
        return Explanation("time", self.holds(), f"{span(self._passed)} of {span(self.period)}")

    def reset(self) -> None:
        """Begin at 0."""
        self._passed = 0.0


@dataclass(eq=False)
class Idle(_Timer):
    """Nobody but the loop has needed the device for some time.

    Attributes
    ----------
    length
        Time without a break; absent: being idle now is enough.
    """

    kind = "idle"
    observes = frozenset({"device"})
    keys = {"length": "for"}  # noqa: RUF012

    length: Seconds = field(default=Seconds(0.0))
    _idle: bool | None = field(default=None, init=False, repr=False)

    def update(self, facts: Facts) -> None:
        """Look at the device."""
        self._idle = facts.idle
        self._tick(facts.now, runs=facts.idle is True)

    def holds(self) -> bool | None:
        """Whether it has been idle long enough; unknown where it cannot be said."""
        return None if self._idle is None else self._idle and self._passed >= self.length

    def explain(self) -> Explanation:
        """Say for how long."""
        if self._idle is None:
            detail = "unknown: the device does not say"
        elif not self._idle:
            detail = "busy"
        else:
            detail = f"{span(self._passed)} of {span(self.length)}" if self.length else "yes"
        return Explanation("device idle", self.holds(), detail)

    def state(self) -> dict[str, Any]:
        """Return the seconds so far."""
        return {"idle": self._idle, **super().state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._idle = state["idle"]
        super().load(state)


def span(seconds: float) -> str:
    """Return "90 s", "45 min" or "24 h"."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
