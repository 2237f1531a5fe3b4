"""One figure of the device with where it comes from; and reading the small files of /sys."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure, or that it is not known.

    Attributes
    ----------
    value
        A number, truth value or name; None: not known.
    unit
        Of the number; "" where it has none.
    source
        What said so; or, where nothing is known, why.
    uncertainty
        Half-width of the figure as a share of it; None: not known.
    """

    value: Any
    unit: str
    source: str
    uncertainty: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return f"unknown ({self.source})"
        if isinstance(self.value, bool):
            text = "yes" if self.value else "no"
        else:
            text = f"{self.value:.4g}" if isinstance(self.value, float) else str(self.value)
        text += f" {self.unit}" if self.unit else ""
        within = "" if self.uncertainty is None else f", ±{100 * self.uncertainty:.0f} %"
        return f"{text} ({self.source}{within})"

    def to_json(self) -> dict[str, Any]:
        """Return the reading as JSON types."""
        return {"value": self.value, "unit": self.unit, "source": self.source,
                "uncertainty": self.uncertainty}


def unknown(unit: str, why: str) -> Reading:
    """A reading that is not known, and why."""
    return Reading(None, unit, why)


def text(path: Path, most: int = 4096) -> str | None:
    """First `most` bytes of a file without white space around; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(most).decode("utf-8", "replace").strip()
    except (OSError, ValueError):  # vanished, not ours to read, no name for a file
        return None


def there(folder: Path) -> bool:
    """Whether a folder is there and may be looked into."""
    try:
        return folder.is_dir()
    except (OSError, ValueError):
        return False


def number(path: Path) -> float | None:
    """Number in a small file; None where there is none."""
    said = text(path)
    try:
        value = float(said) if said else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def folders(root: Path, pattern: str) -> list[Path]:
    """Entries of a folder of /sys that match, sorted; none where there is no such folder."""
    try:
        return sorted(root.glob(pattern))
    except (OSError, ValueError):
        return []
