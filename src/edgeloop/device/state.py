"""The device as it is now: every reading together, at most once in so many seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgeloop.device.battery import supplies
from edgeloop.device.load import Others, network, storage
from edgeloop.device.readings import Reading
from edgeloop.device.thermal import temperature

METERED = ("wwan*", "ppp*", "rmnet*", "usb*")  # modems


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What the device says of itself.

    Attributes
    ----------
    has_battery, battery_percent, charging, plugged, power_w
        How it is fed (:class:`edgeloop.device.battery.Supplies`).
    temp_c
        Of the hottest sensor that matters.
    others_share
        Share of all cores that other processes used, 0 to 1.
    idle
        Whether that is below the limit.
    network_type
        "not_connected", "metered" or "unmetered".
    storage_free_bytes, storage_low
        Where the state file stands.
    """

    has_battery: Reading
    battery_percent: Reading
    charging: Reading
    plugged: Reading
    power_w: Reading
    temp_c: Reading
    others_share: Reading
    idle: Reading
    network_type: Reading
    storage_free_bytes: Reading
    storage_low: Reading

    def readings(self) -> dict[str, Reading]:
        """Return the readings by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def facts(self) -> dict[str, Any]:
        """Return what conditions look at, by name; None: not known."""
        hidden = ("others_share", "power_w")
        return {name: r.value for name, r in self.readings().items() if name not in hidden}


class Device:
    """Reads the device; never raises because something cannot be read.

    Parameters
    ----------
    sysfs, proc
        Where the kernel's files are.
    path
        Where the state file stands.
    every
        Seconds for which a reading is taken for the present one.
    idle_below
        Share of all cores of others below which the device is idle.
    metered
        Interfaces, as patterns of names, whose traffic costs.
    clock
        Seconds, monotonic.
    """

    def __init__(
        self,
        *,
        sysfs: Path = Path("/sys"),
        proc: Path = Path("/proc"),
        path: Path = Path(),
        every: float = 1.0,
        idle_below: float = 0.2,
        metered: Sequence[str] = METERED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sysfs, self._proc, self._path = sysfs, proc, path
        self._every, self._idle_below = every, idle_below
        self._metered, self._clock = tuple(metered), clock
        self._others = Others(proc)
        self._others.read()
        self._last: tuple[float, DeviceState] | None = None

    def read(self) -> DeviceState:
        """Return the readings of now, or of less than `every` seconds ago."""
        now = self._clock()
        if self._last is not None and 0.0 <= now - self._last[0] < self._every:
            return self._last[1]
        fed, share = supplies(self._sysfs), self._others.read()
        if share.value is None and self._last is not None:
            share = self._last[1].others_share  # two looks within one tick
        idle = Reading(None if share.value is None else share.value < self._idle_below, "",
                       share.source)
        free, low = storage(self._path)
        state = DeviceState(
            has_battery=fed.present, battery_percent=fed.percent, charging=fed.charging,
            plugged=fed.plugged, power_w=fed.watts, temp_c=temperature(self._sysfs),
            others_share=share, idle=idle,
            network_type=network(self._sysfs, self._proc, self._metered),
            storage_free_bytes=free, storage_low=low,
        )
        self._last = now, state
        return state
