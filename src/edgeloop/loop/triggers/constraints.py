"""What the device must allow while an update runs: names and meaning of Android's WorkManager.

Work starts when every constraint holds; when one stops holding, the work stops and goes on where
it was once all hold again (developer.android.com: androidx.work.Constraints).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeloop.errors import ConfigError
from edgeloop.loop.triggers.clock import Idle
from edgeloop.loop.triggers.condition import Condition, Explanation
from edgeloop.loop.triggers.device import (
    NETWORKS,
    Battery,
    Charging,
    Network,
    StorageNotLow,
    Temperature,
)

if TYPE_CHECKING:
    from edgeloop.loop.triggers.facts import Facts

LOW, RECOVERED = 15.0, 20.0  # percent: Android's "battery low" and where it ends


class Constraints:
    """A set of constraints; without any, everything is allowed.

    An unknown reading does not meet a constraint. What a device cannot have is no reading: one that
    says that it has no battery runs from the mains and meets what is asked of batteries.

    Parameters
    ----------
    requires_charging, requires_battery_not_low, requires_device_idle, requires_storage_not_low
        As WorkManager has them; a battery is low at 15 % until it is back at 20 %.
    network_type
        "not_required", "connected", "unmetered", "not_roaming" or "metered".
    max_temp_c, resume_temp_c
        Work stops at the first and goes on at the second (absent: 5 degrees below).
    min_battery_percent
        Work stops at this charge and goes on 5 % above.
    """

    def __init__(
        self,
        *,
        requires_charging: bool = False,
        requires_battery_not_low: bool = False,
        requires_device_idle: bool = False,
        requires_storage_not_low: bool = False,
        network_type: str = "not_required",
        max_temp_c: float | None = None,
        resume_temp_c: float | None = None,
        min_battery_percent: float | None = None,
    ) -> None:
        if resume_temp_c is not None and (max_temp_c is None or resume_temp_c > max_temp_c):
            raise ConfigError(
                f"constraints.resume_temp_c: is {resume_temp_c:g}; it must be at most max_temp_c "
                f"({'not given' if max_temp_c is None else format(max_temp_c, 'g')})"
            )
        if network_type not in ("not_required", *NETWORKS):
            raise ConfigError(f'constraints.network_type: is "{network_type}"; it must be one of '
                              f"not_required, {', '.join(NETWORKS)}")
        self._all: dict[str, Condition] = {}
        if requires_charging:
            self._all["requires_charging"] = Charging()
        if requires_battery_not_low:
            self._all["requires_battery_not_low"] = Battery(above=LOW, resume=RECOVERED)
        if requires_device_idle:
            self._all["requires_device_idle"] = Idle()
        if requires_storage_not_low:
            self._all["requires_storage_not_low"] = StorageNotLow()
        if network_type != "not_required":
            self._all["network_type"] = Network(network_type)
        if max_temp_c is not None:
            self._all["max_temp_c"] = Temperature(below=max_temp_c, resume=resume_temp_c)
        if min_battery_percent is not None:
            self._all["min_battery_percent"] = Battery(above=min_battery_percent)

    @property
    def needs(self) -> frozenset[str]:
        """{"device"} where there is something to look at."""
        return frozenset[str]().union(*(one.needs for one in self._all.values()))

    def check(self, facts: Facts) -> list[Explanation]:
        """Look at the device; return the constraints that do not hold, with the reason."""
        for one in self._all.values():
            one.update(facts)
        return self.unmet()

    def unmet(self) -> list[Explanation]:
        """Return those that do not hold by the last look."""
        return [
            Explanation(name, one.holds(), one.explain().detail)
            for name, one in self._all.items()
            if one.holds() is not True
        ]

    def state(self) -> dict[str, Any]:
        """Return on which side of its limits each reading is, as JSON types."""
        return {name: one.state() for name, one in self._all.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`; constraints that were not there then begin anew."""
        for name, one in self._all.items():
            if name in state:
                one.load(state[name])
