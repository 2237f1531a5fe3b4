"""For each kind of condition: tables with facts after which it must hold, and must not."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from edgeloop.loop.triggers import Facts

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, fold: int = 0) -> datetime:
    """Local time in Berlin."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold)


def values(name: str, *numbers: float) -> list[Facts]:
    return [Facts(**{name: number}, now=float(i)) for i, number in enumerate(numbers)]


MONDAY_NIGHT = "2026-11-30T03:00"
# kind: (table, facts that make it hold, facts that make it not hold)
CASES = {
    "samples": ({"n": 3}, values("since", 1, 2, 3), values("since", 1, 2)),
    "novel": ({"n": 2}, values("novel", 0, 2), values("novel", 0, 1)),
    "per_class": (
        {"n": 2, "classes": [0, 4]},
        [Facts(by_class={0: 2, 4: 3, 1: 0})],
        [Facts(by_class={0: 9, 4: 1, 1: 5})],
    ),
    "drift": (
        {},
        values("error", *[0] * 200, *[1] * 100),
        values("error", *[0] * 200, *[0, 1] * 2, *[0] * 96),
    ),
    "loss": (
        {"above": 0.5, "window": 4},
        values("error", 0, 1, 1, 0, 1),
        values("error", *[0] * 5),
    ),
    "confidence": (
        {"below": 0.6, "window": 2},
        values("confidence", 0.9, 0.5, 0.6),
        values("confidence", 0.5, 0.9),
    ),
    "schedule": (
        {"window": "02:00-05:00", "days": ["mon"]},
        [Facts(wall=at(MONDAY_NIGHT))],
        [Facts(wall=at("2026-12-01T03:00"))],
    ),
    "every": ({"period": "10 s"}, values("since", *[0] * 12), values("since", *[0] * 9)),
    "idle": ({"for": "3 s"}, values("idle", *[True] * 5), values("idle", True, True, False, True)),
    "charging": ({}, values("charging", True), values("charging", False)),
    "battery": ({"above": 30}, values("battery_percent", 31), values("battery_percent", 30)),
    "temperature": ({"below": 60}, values("temp_c", 59), values("temp_c", 60)),
    "network": (
        {"type": "unmetered"},
        values("network_type", "unmetered"),
        values("network_type", "metered"),
    ),
    "storage": (
        {"above": "1 KiB"},
        values("storage_free_bytes", 1025),
        values("storage_free_bytes", 1024),
    ),
    "storage_not_low": ({}, values("storage_low", False), values("storage_low", True)),
    "energy": ({"below": 9}, values("energy_today_j", 8), values("energy_today_j", 9)),
}
ALWAYS_KNOWN = {"samples", "every"}  # the loop itself counts these
