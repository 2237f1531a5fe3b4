"""Sizes and times as people write them."""

from __future__ import annotations

import re

from edgeloop.errors import EdgeLoopError

_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9,
          "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_JOULES = {"mj": 1e-3, "j": 1.0, "kj": 1e3, "mwh": 3.6, "wh": 3600.0}
_TEXT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def _parse(text: str, units: dict[str, float] | dict[str, int], what: str) -> float:
    m = _TEXT.fullmatch(text)
    if m is None or m[2].lower() not in units:
        raise EdgeLoopError(f"'{text}' is not a {what}; write a number and one of "
                            f"{', '.join(u for u in units if u)}")
    return float(m[1]) * units[m[2].lower()]


def parse_bytes(text: str | int) -> int:
    """Return bytes for 262144, "256 KiB" or "1.5MB"."""
    return text if isinstance(text, int) else round(_parse(text, _BYTES, "size"))


def parse_seconds(text: str | float) -> float:
    """Return seconds for 0.9, "900 ms" or "2 h"."""
    return float(text) if isinstance(text, int | float) else _parse(text, _SECONDS, "time")


def parse_joules(text: str) -> float:
    """Return joules for "50 J", "1.5 kJ" or "0.2 Wh" (mJ and mWh are thousandths)."""
    return _parse(text, _JOULES, "energy")


def format_bytes(n: int) -> str:
    """Return "1.50 MiB", "12.0 KiB" or "512 B"."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n >= size:
            return f"{n / size:.4g} {unit}"
    return f"{n} B"
