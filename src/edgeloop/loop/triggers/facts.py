"""What a condition may look at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known right after an item. None: not observed, or the device cannot say.

    Attributes
    ----------
    since
        Labelled samples since the last update.
    fresh
        Training samples among them that the ring still holds.
    gate
        Samples in the gate set.
    novel
        Samples since the last update that are unlike everything kept.
    by_class
        Labelled samples of each class since the last update; 0 for a known class without any.
    error
        Of the live version on this item: 0 or 1, or its loss. None where this item has no label.
    confidence
        Of the live version in its answer to this item, 0 to 1.
    input
        One number that sums this item's input up, such as its distance from what is kept.
    now
        Seconds of a monotonic clock.
    wall
        Local time, for schedules.
    last_update
        Seconds since the last update ended, however it ended.
    has_battery
        False: the device says that it has none and runs from the mains. None: it does not say.
    battery_percent
        Charge, 0 to 100.
    charging, plugged
        Whether the battery takes charge; whether mains or USB power is there.
    temp_c
        Of the hottest part that matters, in degrees Celsius.
    idle
        Whether nobody but this process needs the device.
    network_type
        "not_connected", "unmetered", "metered", "roaming", or "connected" where the kind of the
        connection is not known.
    storage_free_bytes
        Where the state file stands.
    storage_low
        Whether the system calls that low.
    energy_today_j
        Joules that updates used since midnight.
    """

    since: int = 0
    fresh: int = 0
    gate: int = 0
    novel: int | None = None
    by_class: Mapping[int, int] | None = None
    error: float | None = None
    confidence: float | None = None
    input: float | None = None
    now: float = 0.0
    wall: datetime | None = None
    last_update: float | None = None
    has_battery: bool | None = None
    battery_percent: float | None = None
    charging: bool | None = None
    plugged: bool | None = None
    temp_c: float | None = None
    idle: bool | None = None
    network_type: str | None = None
    storage_free_bytes: int | None = None
    storage_low: bool | None = None
    energy_today_j: float | None = None


def finite(value: float | None) -> float | None:
    """Return a reading, or None for one that is not a number: a broken sensor knows nothing."""
    return value if value is not None and math.isfinite(value) else None
