"""Conditions over the device: power, warmth, network, storage. Analogue ones have hysteresis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeloop.errors import ConfigError
from edgeloop.loop.schema import Bytes, Range
from edgeloop.loop.triggers.condition import Condition, Explanation
from edgeloop.loop.triggers.facts import finite
from edgeloop.units import format_bytes

if TYPE_CHECKING:
    from edgeloop.loop.triggers.facts import Facts

MAINS = "mains, no battery"
# Kind of connection asked for: what a device may report that is one, and what leaves it open.
NETWORKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "connected": (("connected", "unmetered", "metered", "roaming"), ()),
    "unmetered": (("unmetered",), ("connected",)),
    "not_roaming": (("unmetered", "metered"), ("connected",)),
    "metered": (("metered", "roaming"), ("connected",)),
}


class _Reading(Condition):
    """Keeps what it last knew in `_held` and `_detail`."""

    observes = frozenset({"device"})
    text = ""
    _held: bool | None = None
    _detail = "unknown: not looked at yet"

    def _know(self, held: bool | None, detail: str) -> None:
        self._held, self._detail = held, detail

    def holds(self) -> bool | None:
        """Whether it holds by the last reading; unknown without one."""
        return self._held

    def explain(self) -> Explanation:
        """Say the last reading."""
        return Explanation(self.text, self._held, self._detail)

    def state(self) -> dict[str, Any]:
        """Return the last reading."""
        return {"held": self._held, "detail": self._detail}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._know(state["held"], state["detail"])


class _Level(_Reading):
    """A reading on the good side of a limit; once it was not, it must come back to `resume`.

    Without a gap between the two, a reading that wavers at the limit would start and stop the work
    with every look.
    """

    _failed = False

    def _judge(
        self, reading: float | None, limit: float, resume: float, say: str, again: str
    ) -> None:
        """Judge a reading for which higher is better; of others, hand in negatives."""
        if reading is None:
            self._know(None, "unknown: no reading")
            return
        self._failed = reading <= limit or (self._failed and reading < resume)
        self._know(not self._failed, say + (f", resumes at {again}" if self._failed else ""))

    def state(self) -> dict[str, Any]:
        """Return the last reading and the side it is on."""
        return {"failed": self._failed, **super().state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._failed = state["failed"]
        super().load(state)


@dataclass(eq=False)
class Charging(_Reading):
    """External power is there: the battery charges, or is full and plugged in.

    A device that says that it has no battery runs from the mains: it always holds.
    """

    kind, text = "charging", "charging"

    def update(self, facts: Facts) -> None:
        """Look at the power supply."""
        if facts.has_battery is False:
            self._know(True, MAINS)
        elif facts.charging or facts.plugged:
            self._know(True, "yes" if facts.charging else "plugged in")
        elif facts.charging is None and facts.plugged is None:
            self._know(None, "unknown: no reading")
        else:
            self._know(False, "no")


@dataclass(eq=False)
class Battery(_Level):
    """The battery is above a level. A device that says that it has none always holds.

    Attributes
    ----------
    above
        Percent.
    resume
        Percent that it must reach again once it was not above; absent: `above` + 5, at most 100.
    """

    kind, text = "battery", "battery"

    above: float = field(default=30.0, metadata={"range": Range(0, 99)})
    resume: float | None = field(default=None, metadata={"range": Range(0, 100)})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume is not None and self.resume < self.above:
            raise ConfigError(f"battery.resume: is {self.resume:g}; it must be at least above "
                              f"({self.above:g})")

    def update(self, facts: Facts) -> None:
        """Look at the battery."""
        if facts.has_battery is False:
            self._failed = False
            self._know(True, MAINS)
            return
        level = finite(facts.battery_percent)
        resume = min(self.above + 5, 100.0) if self.resume is None else self.resume
        say = "" if level is None else f"{level:g} %, above {self.above:g} % needed"
        self._judge(level, self.above, resume, say, f"{resume:g} %")


@dataclass(eq=False)
class Temperature(_Level):
    """The device is below a temperature.

    Attributes
    ----------
    below
        Degrees Celsius.
    resume
        Degrees that it must come down to once it was not below; absent: `below` - 5.
    """

    kind, text = "temperature", "temperature"

    below: float = field(default=60.0, metadata={"range": Range(-50, 200)})
    resume: float | None = field(default=None, metadata={"range": Range(-60, 200)})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume is not None and self.resume > self.below:
            raise ConfigError(f"temperature.resume: is {self.resume:g}; it must be at most below "
                              f"({self.below:g})")

    def update(self, facts: Facts) -> None:
        """Look at the sensor."""
        warm = finite(facts.temp_c)
        resume = self.below - 5 if self.resume is None else self.resume
        say = "" if warm is None else f"{warm:g} C, below {self.below:g} C needed"
        level = None if warm is None else -warm
        self._judge(level, -self.below, -resume, say, f"{resume:g} C")


@dataclass(eq=False)
class Storage(_Level):
    """There is room where the state file stands.

    Attributes
    ----------
    above
        Free bytes.
    resume
        Free bytes that there must be again once there were not; absent: a tenth more than `above`.
    """

    kind, text = "storage", "free storage"

    above: Bytes
    resume: Bytes | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume is not None and self.resume < self.above:
            raise ConfigError(f"storage.resume: is {format_bytes(self.resume)}; it must be at "
                              f"least above ({format_bytes(self.above)})")

    def update(self, facts: Facts) -> None:
        """Look at the file system."""
        free = facts.storage_free_bytes
        resume = self.above + self.above // 10 if self.resume is None else self.resume
        say = "" if free is None else f"{format_bytes(free)}, {format_bytes(self.above)} needed"
        self._judge(free, self.above, resume, say, format_bytes(resume))


@dataclass(eq=False)
class StorageNotLow(_Reading):
    """The system does not call its storage low."""

    kind, text = "storage_not_low", "storage not low"

    def update(self, facts: Facts) -> None:
        """Ask the device."""
        low = facts.storage_low
        self._know(None if low is None else not low,
                   "unknown: no reading" if low is None else "low" if low else "enough")


@dataclass(eq=False)
class Network(_Reading):
    """There is a connection of some kind.

    Attributes
    ----------
    type
        "connected": any; "unmetered"; "not_roaming"; "metered": one that costs.
    """

    kind = "network"

    type: str = field(default="connected", metadata={"choices": tuple(NETWORKS)})

    @property
    def text(self) -> str:  # type: ignore[override]
        """Name it."""
        return f"network {self.type}"

    def update(self, facts: Facts) -> None:
        """Look at the connection."""
        have = facts.network_type
        good, maybe = NETWORKS[self.type]
        if have is None or have in maybe:
            why = "no reading" if have is None else "connected, but of a kind that is not known"
            self._know(None, f"unknown: {why}")
        else:
            self._know(have in good, have)


@dataclass(eq=False)
class Energy(_Reading):
    """Updates have used less than so much today.

    Attributes
    ----------
    below
        Joules since midnight.
    """

    kind, text = "energy", "energy today"
    observes = frozenset({"energy"})

    below: float = field(metadata={"range": Range(0)})

    def update(self, facts: Facts) -> None:
        """Look at the meter."""
        used = finite(facts.energy_today_j)
        held = None if used is None else used < self.below
        say = "unknown: no meter" if used is None else f"{used:g} J, below {self.below:g} J needed"
        self._know(held, say)
