"""The /sys of a small gateway on a battery that is charged at night, as a folder."""

from __future__ import annotations

from pathlib import Path

DAY = 86400.0


class Tree:
    """Writes the files that a device of the soak reads; times are seconds of the week.

    The battery falls from 100 % to 8 % between six in the morning and five in the afternoon, and is
    charged from ten to two; the board is warm in the afternoon, too hot for an hour on two days.
    """

    def __init__(self, root: Path, day: float = DAY) -> None:
        self.root, self.day = root, day
        battery = root / "class/power_supply/BAT0"
        mains = root / "class/power_supply/AC"
        zone = root / "class/thermal/thermal_zone0"
        for folder in (battery, mains, zone):
            folder.mkdir(parents=True)
        (battery / "type").write_text("Battery\n")
        (battery / "present").write_text("1\n")
        (mains / "type").write_text("Mains\n")
        (zone / "type").write_text("cpu-thermal\n")
        self._battery, self._mains, self._zone = battery, mains, zone
        self.write(0.0)

    def at(self, second: float) -> tuple[float, bool, float]:
        """Battery in percent, whether it is charged, and degrees Celsius."""
        days, part = divmod(second / self.day, 1.0)
        hour = 24.0 * part
        charged = hour < 2.0 or hour >= 22.0
        if charged:
            percent = 8.0 + 92.0 * ((hour - 22.0) % 24.0) / 4.0
        else:
            percent = 100.0 - 92.0 * min(1.0, max(0.0, (hour - 6.0) / 11.0))
        hot = int(days) in (2, 4) and 14.0 <= hour < 15.0
        return percent, charged, 85.0 if hot else 45.0 + 10.0 * (12.0 <= hour < 18.0)

    def write(self, second: float) -> None:
        """Let the files say how it is now."""
        percent, charged, degrees = self.at(second)
        for path, text in (
            (self._battery / "capacity", f"{percent:.0f}"),
            (self._battery / "status", "Charging" if charged else "Discharging"),
            (self._mains / "online", f"{charged:d}"),
            (self._zone / "temp", f"{degrees * 1000:.0f}"),
        ):
            # Whole at once, as the kernel gives it.
            aside = path.with_suffix(".new")
            aside.write_text(text + "\n")
            aside.replace(path)
