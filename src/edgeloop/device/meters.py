"""Energy used so far, in joules: from counters, from power readings summed up, or by a model."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeloop.device.battery import supplies
from edgeloop.device.calibration import Calibration
from edgeloop.device.readings import Reading, folders, number, text, unknown
from edgeloop.errors import ConfigError

METERS = ("auto", "powercap", "ina3221", "battery", "model", "none")
_TOTAL = ("vdd_in", "pom_5v_in")  # rails that all others hang on


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a meter stands: joules so far (None: it cannot be read now), and gaps until then."""

    joules: float | None
    gaps: int = 0

    def since(self, earlier: Mark) -> float | None:
        """Joules from an earlier mark of that meter to this one; None where a gap is between."""
        if self.joules is None or earlier.joules is None or self.gaps != earlier.gaps:
            return None
        return self.joules - earlier.joules


class Meter(ABC):
    """Counts joules from its first reading on; what it took is the difference of two marks.

    A meter that cannot be read for a while counts on from where it can: then the joules of a span
    with that gap in it are not known, those of a later span are.

    Attributes
    ----------
    whole_machine
        True: it counts what everybody uses, not this process alone.
    source, uncertainty
        What says how much it is, and the half-width of that as a share.
    gaps, lost
        Readings that lacked a part, and why the last of them did; "": none has.
    """

    whole_machine = True
    source = ""
    uncertainty: float | None = None
    gaps, lost = 0, ""

    @abstractmethod
    def read(self) -> Reading:
        """Joules so far without those in gaps; None while they cannot be read."""

    def joules(self) -> float | None:
        """Value of :meth:`read`."""
        value: float | None = self.read().value
        return value

    def mark(self) -> Mark:
        """Read, and return where it stands: one end of a span."""
        return Mark(self.joules(), self.gaps)

    def _gap(self, why: str) -> Reading:
        self.gaps, self.lost = self.gaps + 1, why
        return unknown("J", why)


class NoMeter(Meter):
    """Knows nothing, and why."""

    def __init__(self, why: str) -> None:
        self._why = why

    def read(self) -> Reading:
        """Return that it is not known."""
        return self._gap(self._why)


class PowercapMeter(Meter):
    """Energy counters of the processor packages (kernel: power/powercap; Intel and AMD RAPL).

    Domains below a package are parts of it and do not count again; nor does "psys", which counts
    the packages too. A counter that wraps goes on from 0 at `max_energy_range_uj`.
    """

    source, uncertainty = "powercap, the whole processor", 0.05

    def __init__(self, sysfs: Path) -> None:
        self._domains = [
            folder for folder in folders(sysfs / "class/powercap", "*-rapl:*")
            if folder.name.count(":") == 1 and (text(folder / "name") or "").startswith("package")
        ]
        self._last: dict[Path, float] = {}
        self._joules = 0.0

    def read(self) -> Reading:
        """Joules of all packages so far."""
        if not self._domains:
            return self._gap("no powercap package")
        lost = ""
        for folder in self._domains:
            now = number(folder / "energy_uj")
            before = self._last.pop(folder, None)
            if now is None:  # it may wrap unseen: what it counts meanwhile is not known
                lost = f"{folder.name}/energy_uj cannot be read (root only?)"
                continue
            self._last[folder] = now
            if before is None:
                continue
            more = now - before
            if more < 0.0:
                whole = number(folder / "max_energy_range_uj")
                if whole is None or more + whole < 0.0:
                    lost = f"{folder.name} went back by more than it counts to"
                    continue
                more += whole
            self._joules += more * 1e-6
        if lost:
            return self._gap(lost)
        return Reading(self._joules, "J", self.source, self.uncertainty)


class _Summed(Meter):
    """Joules as the sum of power over time (trapezoids between readings)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: tuple[float, float] | None = None
        self._joules = 0.0

    @abstractmethod
    def watts(self) -> Reading:
        """Power right now."""

    def read(self) -> Reading:
        """Joules since the first reading."""
        now, power = self._clock(), self.watts()
        last, self._last = self._last, None
        if power.value is None:
            return self._gap(power.source)
        if last is not None:
            then, before = last
            self._joules += 0.5 * (before + power.value) * max(0.0, now - then)
        self._last = now, power.value
        return Reading(self._joules, "J", self.source, self.uncertainty)


class Ina3221Meter(_Summed):
    """Rails of an INA3221 (hwmon, as on Jetson boards): millivolts times milliamperes.

    The rail that all others hang on counts alone where there is one by its label; else all rails
    together, which is less than the board takes: `source` names them. If one of them cannot be read
    nothing is known.
    """

    uncertainty = 0.05

    def __init__(self, sysfs: Path, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        rails: list[tuple[str, Path, str]] = []
        for chip in folders(sysfs / "class/hwmon", "hwmon*"):
            if text(chip / "name") == "ina3221":
                for digit in "123":
                    label = text(chip / f"in{digit}_label") or text(chip / f"curr{digit}_label")
                    used = any(folders(chip, f"{kind}{digit}_input") for kind in ("in", "curr"))
                    if (used or label) and number(chip / f"in{digit}_enable") != 0.0:
                        rails.append((label or f"{chip.name} rail {digit}", chip, digit))
        total = [rail for rail in rails if rail[0].lower() in _TOTAL][:1]
        self.rails = total or rails
        names = ", ".join(label for label, _, _ in self.rails)
        self.source = ("hwmon ina3221: " + (
            f"{names}, the whole board" if total else f"sum of {names}, not the whole board"))

    def watts(self) -> Reading:
        """Sum of the rails."""
        if not self.rails:
            return unknown("W", "no ina3221")
        watts = 0.0
        for label, chip, digit in self.rails:
            volts, amperes = (number(chip / f"{kind}{digit}_input") for kind in ("in", "curr"))
            if volts is None or amperes is None:
                return unknown("W", f"{label} of {chip.name} cannot be read")
            watts += volts * amperes * 1e-6
        return Reading(watts, "W", self.source, self.uncertainty)


class BatteryMeter(_Summed):
    """What the batteries give while they discharge."""

    source, uncertainty = "battery, the whole machine", 0.1

    def __init__(self, sysfs: Path, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._sysfs = sysfs

    def watts(self) -> Reading:
        """Power of the batteries; not known while the mains feed the machine."""
        fed = supplies(self._sysfs)
        if fed.plugged.value is None:
            return unknown("W", f"whether the mains feed the machine: {fed.plugged.source}")
        return unknown("W", "the mains feed the machine") if fed.plugged.value else fed.watts


class ModelMeter(Meter):
    """Joules by operations and bytes of this process, as `edgeloop calibrate` measured them.

    Parameters
    ----------
    work
        Operations and bytes so far.
    """

    whole_machine = False
    source = "model, above idle"

    def __init__(self, calibration: Calibration, work: Callable[[], tuple[int, int]]) -> None:
        self._calibration, self._work = calibration, work
        self.uncertainty = calibration.uncertainty
        self._from = work()

    def read(self) -> Reading:
        """Joules of the work done since this meter was made."""
        flops, nbytes = (a - b for a, b in zip(self._work(), self._from, strict=True))
        c = self._calibration
        return Reading(flops * c.joules_per_flop + nbytes * c.joules_per_byte, "J",
                       self.source, self.uncertainty)


def choose_meter(
    name: str,
    *,
    sysfs: Path = Path("/sys"),
    calibration: Calibration | None = None,
    work: Callable[[], tuple[int, int]] = lambda: (0, 0),
    clock: Callable[[], float] = time.monotonic,
) -> Meter:
    """Return a meter by name, one of :data:`METERS`; "auto": the best that can be read now.

    The model comes first where the device was calibrated: it counts this process alone. Then
    counters, then the board's sensors, then the battery, also one that cannot be read yet because
    the mains feed the machine.

    Raises
    ------
    ConfigError
        No such meter, or a model without a calibration.
    """
    if name not in METERS:
        raise ConfigError(f'energy.meter: is "{name}"; use one of {", ".join(METERS)}')
    if name == "none":
        return NoMeter("switched off")
    if name == "model" and calibration is None:
        raise ConfigError(
            'energy.meter: "model" needs energy.calibration; write one with `edgeloop calibrate`')
    made: dict[str, Callable[[], Meter]] = {
        "powercap": lambda: PowercapMeter(sysfs),
        "ina3221": lambda: Ina3221Meter(sysfs, clock),
        "battery": lambda: BatteryMeter(sysfs, clock),
    }
    if calibration is not None and name in ("auto", "model"):
        return ModelMeter(calibration, work)
    if name != "auto":
        return made[name]()
    for make in made.values():
        meter = make()
        if meter.read().value is not None:
            return meter
    if supplies(sysfs).present.value:  # for when the mains go
        return BatteryMeter(sysfs, clock)
    return NoMeter("no sensor of power can be read; `edgeloop calibrate` makes a model")
