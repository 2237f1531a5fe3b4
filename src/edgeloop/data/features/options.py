"""Checks of a record's values: each returns the value as the record keeps it, or raises."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from edgeloop.errors import DataError

MOST = 1 << 28  # of anything that a record counts: 1 GiB of float32


def check(good: bool, name: str, value: object, rule: str) -> None:
    """DataError unless `good`; the message names the option, its value and the rule."""
    if not good:
        raise DataError(f"features: {name} is {value!r}; it must be {rule}")


def whole(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number of `least` or more."""
    good = isinstance(value, int) and not isinstance(value, bool) and value >= least
    check(good, name, value, f"a whole number above {least - 1}")
    check(value <= MOST, name, value, f"at most {MOST}")
    return int(value)


def real(name: str, value: Any) -> float:
    """Return a finite number as float."""
    good = isinstance(value, int | float) and not isinstance(value, bool)
    good = good and abs(value) <= sys.float_info.max
    check(good, name, value, "a finite number")
    return float(value)


def positive(name: str, value: Any) -> float:
    """Return a finite number above 0 as float."""
    number = real(name, value)
    check(number > 0, name, value, "above 0")
    return number


def flag(name: str, value: Any) -> bool:
    """Return true or false."""
    check(isinstance(value, bool), name, value, "true or false")
    return bool(value)


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """Return one of the words of `allowed`."""
    words = ", ".join(repr(word) for word in allowed)
    check(isinstance(value, str) and value in allowed, name, value, f"one of {words}")
    return str(value)


def wholes(name: str, value: Any, count: int | None = None, least: int = 1) -> list[int]:
    """Return a list of whole numbers, `count` of them where that is given."""
    many = "" if count is None else f"{count} "
    good = isinstance(value, list | tuple) and len(value) > 0 and count in (None, len(value))
    check(good, name, value, f"a list of {many}whole numbers")
    return [whole(f"{name}[{i}]", each, least) for i, each in enumerate(value)]


def reals(name: str, value: Any) -> float | list[float]:
    """Return one finite number, or a list of them (one for each channel)."""
    if isinstance(value, list | tuple):
        check(len(value) > 0, name, value, "a number, or a list with one for each channel")
        return [real(f"{name}[{i}]", each) for i, each in enumerate(value)]
    return real(name, value)


def band(low_hz: Any, high_hz: Any, sample_rate: float) -> tuple[float, float]:
    """Return the two edges of a band that fits below half the sample rate."""
    low, high = real("low_hz", low_hz), real("high_hz", high_hz)
    check(
        0 <= low < high <= sample_rate / 2,
        "low_hz and high_hz",
        [low_hz, high_hz],
        f"0 <= low_hz < high_hz <= {sample_rate / 2} (half the sample rate)",
    )
    return low, high
