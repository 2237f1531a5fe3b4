"""Batteries and mains, from /sys/class/power_supply (kernel: Documentation/ABI)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeloop.device.readings import Reading, folders, number, text, there, unknown

_MAINS = ("Mains", "USB", "Wireless")  # beginnings of types: there are USB_PD, USB_DCP, ...


@dataclass(frozen=True, slots=True)
class Supplies:
    """How the device is fed.

    Attributes
    ----------
    present
        Whether it has a battery of its own.
    percent
        Charge of all its batteries together, weighted by what each holds when full.
    charging, plugged
        Whether one of them takes charge; whether mains or USB power is there.
    watts
        What the batteries give, 0 while none of them is discharging.
    """

    present: Reading
    percent: Reading
    charging: Reading
    plugged: Reading
    watts: Reading


def supplies(sysfs: Path) -> Supplies:
    """Read all power supplies; batteries of mice and the like (scope "Device") do not count."""
    root = sysfs / "class/power_supply"
    if not there(sysfs / "class"):
        none = f"no {sysfs}/class"
        return Supplies(*(unknown(u, none) for u in ("", "%", "", "", "W")))
    batteries, mains, silent = [], [], []
    for folder in folders(root, "*"):
        kind = text(folder / "type")
        if not kind and there(folder):
            silent.append(folder)
        if kind == "Battery" and text(folder / "scope") != "Device" and (
                number(folder / "present") != 0.0):
            batteries.append(folder)
        elif (kind or "").startswith(_MAINS):
            mains.append(folder)
    if silent and not batteries:  # it may be the battery
        why = f"{silent[0].name}: no type"
        return Supplies(*(unknown(u, why) for u in ("", "%", "", "", "W")))
    online = [number(folder / "online") for folder in mains]
    if not batteries:
        # Nothing that could run empty: what feeds it is the mains, whatever that is called.
        said = "mains, no battery"
        return Supplies(Reading(False, "", said), unknown("%", said), unknown("", said),
                        Reading(True, "", said), unknown("W", said))
    names = ", ".join(folder.name for folder in batteries)
    states = [text(folder / "status") for folder in batteries]
    known = [state for state in states if state]
    charging = (Reading("Charging" in known, "", names) if known
                else unknown("", f"{names}: no status"))
    if any(value is not None for value in online):
        plugged = Reading(any(online), "", ", ".join(folder.name for folder in mains))
    elif "Charging" in known or "Discharging" in known:
        plugged = Reading("Discharging" not in known, "", f"{names}: status")
    else:
        plugged = unknown("", "no mains supply says whether it is online")
    return Supplies(Reading(True, "", names), _percent(batteries), charging, plugged,
                    _watts(batteries, states))


def _percent(batteries: list[Path]) -> Reading:
    said = [number(folder / "capacity") for folder in batteries]
    for folder, percent in zip(batteries, said, strict=True):
        if percent is None or not 0.0 <= percent <= 100.0:
            return unknown("%", f"{folder.name}: no capacity")
    weights = [1.0] * len(batteries)
    for unit in ("charge_full", "energy_full"):  # of one unit, or they cannot be compared
        full = [number(folder / unit) for folder in batteries]
        if all(most is not None and most > 0.0 for most in full):
            weights = [most or 1.0 for most in full]
    held = sum(w * (p or 0.0) for w, p in zip(weights, said, strict=True))
    return Reading(held / sum(weights), "%", ", ".join(f.name for f in batteries), 0.02)


def _watts(batteries: list[Path], states: list[str | None]) -> Reading:
    total = 0.0
    for folder, state in zip(batteries, states, strict=True):
        if state != "Discharging":
            continue
        power = number(folder / "power_now")  # microwatts
        if power is None:
            volts, amperes = (number(folder / f"{n}_now") for n in ("voltage", "current"))
            if volts is None or amperes is None:
                return unknown("W", f"{folder.name}: neither power_now nor current_now")
            power = volts * abs(amperes) * 1e-6
        total += abs(power) * 1e-6
    if None in states:
        return unknown("W", "a battery has no status")
    return Reading(total, "W", "batteries, the whole machine", 0.05)
