"""Whether anybody has told this device lately that what it has is the newest.

Counted in uptime, for a device may have no clock: hours since the last signed answer, over reboots.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeloop.store import Outbox

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_FACT = "fresh"


def boot() -> tuple[str, float]:
    """Name of this boot, and seconds since it, sleep included."""
    try:
        name = _BOOT.read_text().strip()
    except OSError:
        name = ""
    return name, time.clock_gettime(time.CLOCK_BOOTTIME)


def heard(outbox: Outbox, now: tuple[str, float] | None = None) -> None:
    """Note that a signed answer came."""
    name, at = now or boot()
    outbox.note(_FACT, {"boot": name, "at": at, "carried": 0.0})


def silence(outbox: Outbox, now: tuple[str, float] | None = None) -> float | None:
    """Seconds of uptime since the last signed answer; None: there never was one.

    Of a boot that ended, what was not noted by :func:`tick` is not counted.
    """
    fact = outbox.fact(_FACT)
    if fact is None:
        return None
    name, at = now or boot()
    since = at - fact["at"] if name == fact["boot"] else at
    return float(fact["carried"] + max(0.0, since))


def tick(outbox: Outbox, now: tuple[str, float] | None = None) -> None:
    """Note how long it has been silent, so that a reboot does not start the count anew."""
    now = now or boot()
    gone = silence(outbox, now)
    if gone is not None:
        outbox.note(_FACT, {"boot": now[0], "at": now[1], "carried": gone})
