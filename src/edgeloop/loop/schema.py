"""From TOML tables to dataclasses: units, ranges, and errors that carry the key's path."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NewType, TypeVar

from edgeloop.errors import ConfigError, EdgeLoopError
from edgeloop.units import parse_bytes, parse_joules, parse_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

Seconds = NewType("Seconds", float)
Bytes = NewType("Bytes", int)
Joules = NewType("Joules", float)

T = TypeVar("T")
N = TypeVar("N", int, float)


@dataclasses.dataclass(frozen=True)
class Range:
    """Bounds of a number, both allowed."""

    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"at least {self.low:g}"
        return f"between {self.low:g} and {self.high:g}"


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file; ConfigError when that fails."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML ({error})") from error


def seconds(value: Any, where: str) -> Seconds:
    """Parse a duration such as "900 ms"."""
    if not isinstance(value, str):  # a bare number does not say its unit
        raise ConfigError(f'{where}: is {value!r}; write a number and a unit, such as "900 ms"')
    return Seconds(_positive(parse_seconds, value, where))


def size(value: Any, where: str) -> Bytes:
    """Parse a size such as "48 MiB", or a number of bytes."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ConfigError(f'{where}: is {value!r}; write a size, such as "48 MiB"')
    return Bytes(_positive(parse_bytes, value, where))


def energy(value: Any, where: str) -> Joules:
    """Parse an energy such as "50 J"."""
    if not isinstance(value, str):
        raise ConfigError(f'{where}: is {value!r}; write a number and a unit, such as "50 J"')
    return Joules(_positive(parse_joules, value, where))


def table(cls: type[T], data: Any, where: str, *, reserved: dict[str, Any] | None = None) -> T:
    """Build the dataclass `cls` from a table.

    Parameters
    ----------
    where
        Path of the table, such as ``loop.toml: train.``; errors put the key behind it.
    reserved
        Fields that do not come from the table, with their values.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{where.rstrip('. ')}: is {data!r}; it must be a table")
    reserved = reserved or {}
    hints = typing.get_type_hints(cls)
    known = (f for f in dataclasses.fields(cls) if f.init)  # type: ignore[arg-type]
    fields = {f.name: f for f in known if f.name not in reserved}
    made: dict[str, Any] = dict(reserved)
    # A table with "options" hands unknown keys on: its kind knows them.
    options = fields.pop("options", None)
    rest = {key: value for key, value in data.items() if key not in fields}
    if options is not None:
        made["options"] = rest
    elif rest:
        key = next(iter(rest))
        close = difflib.get_close_matches(key, fields, 1)
        hint = f'did you mean "{close[0]}"?' if close else f"known are {', '.join(fields)}"
        raise ConfigError(f"{where}{key}: unknown key, {hint}")
    for name, field in fields.items():
        if name in data:
            made[name] = convert(hints[name], data[name], f"{where}{name}", field.metadata)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}{name}: is missing; set it")
    return cls(**made)


def convert(hint: Any, value: Any, where: str, meta: typing.Mapping[str, Any]) -> Any:
    """Turn the TOML value of a field with this type hint and metadata into what the field holds."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return table(hint, value, f"{where}.")
    if hint is Seconds:
        return seconds(value, where)
    if hint is Bytes:
        return size(value, where)
    if hint is Joules:
        return energy(value, where)
    origin = typing.get_origin(hint) or hint
    if origin is tuple:
        return _sequence(typing.get_args(hint), value, where)
    if origin is Path:
        good, wanted = isinstance(value, str) and value != "", "a path"
    elif origin is float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        good, wanted = good and math.isfinite(value), "a number"
    elif origin is int:
        good, wanted = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    else:
        good, wanted = (
            isinstance(value, origin),
            {dict: "a table", bool: "true or false"}.get(origin, "a string"),
        )
    limits = meta.get("range")
    if good and limits is not None and not limits.low <= value <= limits.high:
        good, wanted = False, str(limits)
    choices = meta.get("choices")
    if good and choices is not None and value not in choices:
        good, wanted = False, " or ".join(f'"{c}"' for c in choices)
        close = difflib.get_close_matches(str(value), choices, 1)
        wanted += f'; did you mean "{close[0]}"?' if close else ""
    if not good:
        raise ConfigError(f"{where}: is {value!r}; it must be {wanted}")
    return origin(value) if origin in (Path, float) else value


def _sequence(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{where}: is {value!r}; it must be a list")
    if args[-1] is Ellipsis:
        return tuple(convert(args[0], v, f"{where}[{i}]", {}) for i, v in enumerate(value))
    if len(value) != len(args):
        raise ConfigError(f"{where}: has {len(value)} entries; it must have {len(args)}")
    return tuple(
        convert(a, v, f"{where}[{i}]", {}) for i, (a, v) in enumerate(zip(args, value, strict=True))
    )


def _positive(parse: Callable[[Any], N], value: Any, where: str) -> N:
    try:
        number = parse(value)
    except EdgeLoopError as error:
        raise ConfigError(f"{where}: {error}") from error
    if number <= 0:
        raise ConfigError(f"{where}: is {value!r}; it must be above 0")
    return number
