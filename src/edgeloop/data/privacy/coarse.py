"""Times and places told only roughly."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from edgeloop.data.privacy.filters import DEPTH, WITHHELD
from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    from edgeloop.data.item import Item

KM = 40007.863 / 360  # of a degree of latitude: the meridian of WGS 84 is 40,007.863 km long
_UNITS = {"_ns": 1e9, "_us": 1e6, "_ms": 1e3}


class _Tables(ABC):
    """A filter that acts on a record's fields, and on every table inside them."""

    def __call__(self, item: Item) -> Item:
        """Return the item with its fields told roughly."""
        return replace(item, meta=self._walk(item.meta, 0))

    def _walk(self, value: Any, depth: int) -> Any:
        if not isinstance(value, Mapping | list | tuple):
            return value
        if depth > DEPTH:
            return WITHHELD
        if isinstance(value, Mapping):
            return self._coarse({k: self._walk(v, depth + 1) for k, v in value.items()})
        return [self._walk(v, depth + 1) for v in value]

    @abstractmethod
    def _coarse(self, table: dict[str, Any]) -> dict[str, Any]:
        """Change the fields of one table."""


class CoarseTime(_Tables):
    """Moves moments back to the last whole `span`; the item's own time as well.

    A number counts seconds, or what the end of its field's name says (``_ms``, ``_us``, ``_ns``). A
    text is ISO 8601 and keeps its offset, in which whole spans are counted from midnight of
    0001-01-01. What is neither becomes ``[time]``.

    Parameters
    ----------
    span
        Seconds, 1 or more.
    fields
        Names of fields that hold a moment, at any depth.
    """

    def __init__(self, span: float, fields: Collection[str] = ()) -> None:
        if not span >= 1:
            raise ConfigError(f"privacy.coarse_time: is {span} s; it must be at least 1 s")
        self._span, self._fields = span, frozenset(fields)

    def __call__(self, item: Item) -> Item:
        """Return the item with its moments told roughly."""
        made = super().__call__(item)
        return made if item.time is None else replace(made, time=self._floor(item.time, 1.0))

    def _coarse(self, table: dict[str, Any]) -> dict[str, Any]:
        return {k: self._moment(k, v) if k in self._fields else v for k, v in table.items()}

    def _moment(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        unit = _UNITS.get(name[-3:], 1.0)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._floor(value, unit) if _finite(value) else "[time]"
        try:
            moment = datetime.fromisoformat(value)
            midnight = datetime.combine(moment.date(), time(), moment.tzinfo)
            told = timedelta(days=moment.toordinal() - 1) + (moment - midnight)
            return (moment - told % timedelta(seconds=self._span)).isoformat()
        except (TypeError, ValueError, OverflowError):
            return "[time]"

    def _floor(self, value: float, unit: float) -> float:
        step = round(self._span * unit)
        return value - value % step


class CoarsePlace(_Tables):
    """Moves places to the middle of a grid's cell, `km` high and at least about as wide.

    Rows are `km` high; a row is cut into equal cells of at least `km` at its equatorial side. A
    pair of which one half is missing or no number becomes ``[place]``.

    Parameters
    ----------
    km
        Kilometres, 0.001 to 5000.
    fields
        Names of the fields with latitude and longitude (degrees), in turn, at any depth.
    """

    def __init__(self, km: float, fields: Sequence[str]) -> None:
        if not 0.001 <= km <= 5000:
            raise ConfigError(f"privacy.coarse_place_km: is {km}; it must be 0.001 to 5000")
        if not fields or len(fields) % 2:
            raise ConfigError(
                f"privacy.place_fields: {list(fields)} must name latitude and longitude in turn")
        self._rows = max(1, math.floor(180 * KM / km))
        self._km = km
        self._pairs = list(zip(fields[::2], fields[1::2], strict=True))

    def _coarse(self, table: dict[str, Any]) -> dict[str, Any]:
        for pair in self._pairs:
            there = [name for name in pair if table.get(name) is not None]
            if not there:
                continue
            place = [_degrees(table.get(name)) for name in pair]
            if place[0] is None or place[1] is None:
                table |= dict.fromkeys(there, "[place]")
            else:
                table |= zip(pair, self.cell(place[0], place[1]), strict=True)
        return table

    def cell(self, lat: float, lon: float) -> tuple[float, float]:
        """Return the middle of the cell that holds a place, in degrees to 5 decimals."""
        high = 180 / self._rows
        row = min(self._rows - 1, math.floor((min(90.0, max(-90.0, lat)) + 90) / high))
        south, north = row * high - 90, (row + 1) * high - 90
        widest = 1.0 if south < 0 < north else max(
            math.cos(math.radians(south)), math.cos(math.radians(north)))
        columns = max(1, math.floor(360 * KM * widest / self._km))
        wide = 360 / columns
        column = math.floor((lon + 180) % 360 / wide) % columns
        return round((south + north) / 2, 5), round((column + 0.5) * wide - 180, 5)


def _finite(value: float) -> bool:
    return abs(value) < 1e300  # an int that no float holds is none


def _degrees(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
