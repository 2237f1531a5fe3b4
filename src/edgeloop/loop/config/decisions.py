"""Tables about when and how hard to learn, and what goes live."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeloop.device.meters import METERS
from edgeloop.device.state import METERED
from edgeloop.loop.schema import Range, Seconds
from edgeloop.loop.triggers import Condition, Constraints, Samples, condition
from edgeloop.loop.triggers.device import NETWORKS


@dataclass(frozen=True, kw_only=True)
class TriggerConfig:
    """[trigger]: when an update starts.

    Attributes
    ----------
    samples
        Labelled samples since the last update; the short way to say ``when = {samples = 32}``.
    when
        Conditions instead of `samples`, each a key with its options, and any, all and not of them
        (docs/guide/triggers.md).
    """

    samples: int = field(default=32, metadata={"range": Range(1)})
    when: dict[str, Any] | None = None

    def condition(self, name: str = "config") -> Condition:
        """Return the condition that starts an update; `name` starts the path in errors."""
        if self.when is None:
            return Samples(self.samples)
        return condition(self.when, f"{name}: trigger.when")


@dataclass(frozen=True, kw_only=True)
class ConstraintsConfig:
    """[constraints]: what the device must allow while an update runs; an unknown reading forbids.

    Attributes
    ----------
    requires_charging
        External power is there, or the device has no battery and runs from the mains.
    requires_battery_not_low
        The battery is not low: it is at 15 %, until it is back at 20 %.
    requires_device_idle
        Nobody but the loop needs the device.
    requires_storage_not_low
        The file system of the state file is not low.
    network_type
        Connection that is needed: "not_required", "connected" (any), "unmetered", "not_roaming" or
        "metered".
    max_temp_c
        Degrees Celsius at which work stops; None: it does not look.
    resume_temp_c
        Degrees Celsius at which it goes on after that; None: 5 degrees below `max_temp_c`.
    min_battery_percent
        Charge, in percent, at which work stops; it goes on 5 % above. None: it does not look.
    """

    requires_charging: bool = False
    requires_battery_not_low: bool = False
    requires_device_idle: bool = False
    requires_storage_not_low: bool = False
    network_type: str = field(
        default="not_required", metadata={"choices": ("not_required", *NETWORKS)}
    )
    max_temp_c: float | None = field(default=None, metadata={"range": Range(-50, 200)})
    resume_temp_c: float | None = field(default=None, metadata={"range": Range(-60, 200)})
    min_battery_percent: float | None = field(default=None, metadata={"range": Range(0, 99)})

    def build(self) -> Constraints:
        """Return the constraints; ConfigError when they contradict each other."""
        return Constraints(**dataclasses.asdict(self))


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """[gate]: what a trained candidate must show before it goes live.

    Attributes
    ----------
    min_samples
        Samples the gate set must hold before an update starts; until then the loop waits.
    capacity
        Samples the gate set holds at most, balanced by class; None: twice `min_samples`, or a share
        of buffer.bytes.
    share
        Share of the stream set aside for the gate, never trained on.
    policy
        Which sample of its class a new one replaces in the gate set: "balanced", so that the set is
        like all that ever came, or "recent", the oldest: what was learnt long ago may be forgotten
        where the stream has changed (not what [base] holds).
    confidence
        The candidate goes live only when it is better at this confidence (paired test).
    max_anchor_loss
        How much worse than the shipped model it may be on the base task: as a difference of
        accuracy (0.02: two points), or of loss relative to the shipped model's.
    """

    min_samples: int = field(default=64, metadata={"range": Range(1)})
    capacity: int | None = field(default=None, metadata={"range": Range(1)})
    policy: str = field(default="balanced", metadata={"choices": ("balanced", "recent")})
    share: float = field(default=0.25, metadata={"range": Range(0, 0.9)})
    confidence: float = field(default=0.95, metadata={"range": Range(0.5, 0.9999)})
    max_anchor_loss: float = field(default=0.02, metadata={"range": Range(0)})

    @property
    def size(self) -> int:
        """Samples the gate set holds at most, where buffer.bytes does not decide."""
        return self.capacity or 2 * self.min_samples


@dataclass(frozen=True, kw_only=True)
class PaceConfig:
    """[pace]: how fast an update may go. None of it changes what is learnt.

    Attributes
    ----------
    slice_ms
        Milliseconds after which training and validation return control, to rest; a single kernel
        call that takes longer is not cut. None: between training steps only.
    duty_cycle
        Share of the time that training computes; it rests in between.
    cpu_share
        Processor time of this process over time, while it trains: 0.5 is half of one core, 2 are
        two whole ones. None: no limit.
    nice
        Priority of the thread that runs the loop and of its workers, from 0 to 19, the lowest.
    affinity
        Numbers of the cores that they may use; empty: all.
    throttle_temp_c
        Degrees Celsius from which on the duty cycle is halved each second, down to a 32nd; it comes
        back in the same way 5 degrees below. None: heat does not slow training down.
    """

    slice_ms: float | None = field(default=None, metadata={"range": Range(0.1)})
    duty_cycle: float = field(default=1.0, metadata={"range": Range(0.01, 1)})
    cpu_share: float | None = field(default=None, metadata={"range": Range(0.01, 1024)})
    nice: int = field(default=0, metadata={"range": Range(0, 19)})
    affinity: tuple[int, ...] = ()
    throttle_temp_c: float | None = field(default=None, metadata={"range": Range(0, 200)})


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """[device]: how the loop sees the device.

    Attributes
    ----------
    sysfs, proc
        Folders of the kernel's files; others for tests, or where a container has them elsewhere.
    every
        Time between looks at the sensors.
    idle_below
        Share of all cores that other processes may use while the device counts as idle.
    metered
        Network interfaces whose traffic costs, as patterns of names.
    """

    sysfs: Path = Path("/sys")
    proc: Path = Path("/proc")
    every: Seconds = field(default=Seconds(1.0))
    idle_below: float = field(default=0.2, metadata={"range": Range(0, 1)})
    metered: tuple[str, ...] = METERED


@dataclass(frozen=True, kw_only=True)
class EnergyConfig:
    """[energy]: how energy is measured.

    Attributes
    ----------
    meter
        "powercap" (the processor's counters), "ina3221" (a board's sensor), "battery", "model" (by
        `calibration`), "none", or "auto": the best of them that can be read.
    calibration
        File that `edgeloop calibrate` wrote; None: there is none.
    """

    meter: str = field(default="auto", metadata={"choices": METERS})
    calibration: Path | None = None
