"""How warm the device is: thermal zones, hwmon sensors, or what psutil finds."""

from __future__ import annotations

from pathlib import Path

from edgeloop.device.readings import Reading, folders, number, text, unknown

_LOWEST, _HIGHEST = -60.0, 200.0  # beyond that a sensor is broken or not connected
# Sensors of something that training does not warm, and one that always says 100 (Jetson's PMIC).
_OTHERS = ("nvme", "drivetemp", "iwlwifi", "battery", "bat", "max1617", "wifi", "modem", "pmic")


def temperature(sysfs: Path) -> Reading:
    """Return the hottest of the sensors that matter, in degrees Celsius."""
    found: list[tuple[float, str]] = []
    for zone in folders(sysfs / "class/thermal", "thermal_zone*"):
        kind = text(zone / "type") or zone.name
        _add(found, number(zone / "temp"), kind)
    for chip in folders(sysfs / "class/hwmon", "hwmon*"):
        name = text(chip / "name") or chip.name
        for sensor in folders(chip, "temp*_input"):
            label = text(chip / sensor.name.replace("_input", "_label"))
            _add(found, number(sensor), f"{name} {label}" if label else name)
    if found:
        degrees, source = max(found)
        return Reading(degrees, "°C", source)
    if sysfs != Path("/sys"):
        return unknown("°C", f"no sensor below {sysfs}")
    return _psutil()


def _add(found: list[tuple[float, str]], millidegrees: float | None, source: str) -> None:
    if millidegrees is None or source.lower().startswith(_OTHERS):
        return
    degrees = millidegrees / 1000.0
    if _LOWEST < degrees < _HIGHEST:
        found.append((degrees, source))


def _psutil() -> Reading:
    try:
        import psutil
    except ImportError:
        return unknown("°C", "no sensor in /sys; pip install 'edgeloop[power]' may know others")
    found: list[tuple[float, str]] = []
    for name, sensors in getattr(psutil, "sensors_temperatures", dict)().items():
        for sensor in sensors:
            _add(found, sensor.current * 1000.0, f"{name} (psutil)")
    if not found:
        return unknown("°C", "no sensor in /sys, nor does psutil find one")
    degrees, source = max(found)
    return Reading(degrees, "°C", source)
