"""Who else needs the device: processor time of others, network, storage."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeloop.device.readings import Reading, folders, number, text, there, unknown

_UP = ("up", "unknown")  # ppp and tunnels say "unknown" while they work
_ROUTES = 1 << 20  # bytes of a table of routes that are looked at
_TUNNELS = ("tun", "tap", "wg", "vpn")
LOW_SHARE, LOW_BYTES = 0.10, 64 << 20  # of storage


class Others:
    """Share of all cores that other processes used since the last look."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._before: tuple[float, float, float] | None = None

    def read(self) -> Reading:
        """Return the share, 0 to 1; the first look has nothing to compare with."""
        now, before = self._ticks(), self._before
        self._before = now
        if now is None:
            return unknown("", f"{self._proc}/stat cannot be read")
        if before is None:
            return unknown("", "first look")
        total, busy, own = (a - b for a, b in zip(now, before, strict=True))
        if total <= 0.0:
            return unknown("", "no time has passed")
        return Reading(min(1.0, max(0.0, (busy - own) / total)), "", f"{self._proc}/stat", 0.05)

    def _ticks(self) -> tuple[float, float, float] | None:
        """All ticks of all cores, busy ones, and those of this process."""
        machine, mine = text(self._proc / "stat"), text(self._proc / "self/stat")
        try:
            fields = [float(v) for v in (machine or "").splitlines()[0].split()[1:9]]
            own = (mine or "").rpartition(")")[2].split()
            used = float(own[11]) + float(own[12])
        except (IndexError, ValueError):
            return None
        if len(fields) < 5:
            return None
        return sum(fields), sum(fields) - fields[3] - fields[4], used


def network(sysfs: Path, proc: Path, metered: Sequence[str]) -> Reading:
    """Kind of the connection of the default route.

    "not_connected"; "metered" where the interface's name matches one of `metered`; "connected" for
    a tunnel, of which nobody knows what it goes through; else "unmetered". Roaming is not told
    apart: a modem that may roam counts as metered.
    """
    routes = text(proc / "net/route", _ROUTES)
    if routes is None:
        return unknown("", f"{proc}/net/route cannot be read")
    names = []
    for line in routes.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000":
            names.append(fields[0])
    v6 = text(proc / "net/ipv6_route", _ROUTES) or ""
    for line in v6.splitlines():
        fields = line.split()
        if len(fields) == 10 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":
            names.append(fields[9])
    for name in dict.fromkeys(names):
        state = text(sysfs / "class/net" / name / "operstate")
        carrier = number(sysfs / "class/net" / name / "carrier")
        if state in _UP and carrier != 0.0:
            if any(fnmatch.fnmatch(name, pattern) for pattern in metered):
                return Reading("metered", "", name)
            known = not name.startswith(_TUNNELS)
            return Reading("unmetered" if known else "connected", "", name)
    if any(there(sysfs / "class/net" / name) for name in names):
        return Reading("not_connected", "", ", ".join(dict.fromkeys(names)))
    return Reading("not_connected", "", "no default route") if folders(
        sysfs / "class/net", "*") else unknown("", f"no {sysfs}/class/net")


def storage(
    path: Path, statvfs: Callable[[Path], os.statvfs_result] = os.statvfs
) -> tuple[Reading, Reading]:
    """Free bytes for this user where `path` is, and whether that is low: 10 % or 64 MiB."""
    try:
        found = statvfs(path)
    except OSError as error:
        return unknown("bytes", str(error.strerror)), unknown("", str(error.strerror))
    free, whole = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    low = free < max(LOW_BYTES, LOW_SHARE * whole)
    return Reading(free, "bytes", str(path)), Reading(low, "", str(path))
