"""Times as people write them."""

from __future__ import annotations

from datetime import datetime

from edgeloop.errors import ConfigError


def parse_time(text: str, option: str) -> float:
    """Seconds since 1970 of a date, or of a date and time, in this machine's own zone."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        msg = f"{option} {text!r}: write 2026-11-28 or 2026-11-28T07:30, in the device's own zone"
        raise ConfigError(msg) from error
