"""From tables of loop.toml to conditions, with errors that carry the path of the key."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import types
import typing
from typing import Any, NamedTuple

from edgeloop.errors import ConfigError
from edgeloop.loop.schema import Bytes, Seconds, convert, table
from edgeloop.loop.triggers.clock import Every, Idle, Schedule
from edgeloop.loop.triggers.condition import AllOf, AnyOf, Condition, Not
from edgeloop.loop.triggers.device import (
    Battery,
    Charging,
    Energy,
    Network,
    Storage,
    StorageNotLow,
    Temperature,
)
from edgeloop.loop.triggers.learning import Confidence, Drift, Loss, Novel, PerClass, Samples

CONDITIONS: dict[str, type[Condition]] = {
    cls.kind: cls
    for cls in (
        Samples, Novel, PerClass, Drift, Loss, Confidence, Schedule, Every, Idle, Charging,
        Battery, Temperature, Network, Storage, StorageNotLow, Energy,
    )
}
DEPTH = 8  # tables inside each other: what is deeper nobody can read, and recursion has an end
_GROUPS = {"all": AllOf, "any": AnyOf}
_TYPES = {int: "whole number", float: "number", str: "text", Seconds: "time", Bytes: "size"}


class Key(NamedTuple):
    """One key of a condition, as the reference page shows it. `default` "": must be given."""

    path: str
    type: str
    default: str
    description: str


def condition(data: Any, where: str, depth: int = 0) -> Condition:
    """Build the condition of a table; several keys in one table: all of them.

    A value that is no table stands for a condition's first key; true: its defaults.

    Parameters
    ----------
    where
        Path of the table, such as ``loop.toml: trigger.when``; errors put the key behind it.

    Raises
    ------
    ConfigError
        A key is unknown, missing, of the wrong type or out of range, or tables are too deep.
    """
    if depth >= DEPTH:
        raise ConfigError(f"{where}: is {depth} tables deep; at most {DEPTH} are allowed")
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: is {data!r}; it must be a table, such as {{samples = 32}}")
    if not data:
        raise ConfigError(f"{where}: is empty; name a condition, such as samples = 32")
    made = [_one(key, value, f"{where}.{key}", depth + 1) for key, value in data.items()]
    return made[0] if len(made) == 1 else AllOf(*made)


def _one(key: str, value: Any, where: str, depth: int) -> Condition:
    if key == "not":
        return Not(condition(value, where, depth))
    if key in _GROUPS:
        if not isinstance(value, list) or not value:
            raise ConfigError(f"{where}: is {value!r}; it must be a list of conditions")
        return _GROUPS[key](
            *(condition(part, f"{where}[{i}]", depth) for i, part in enumerate(value))
        )
    if key not in CONDITIONS:
        known = (*CONDITIONS, "all", "any", "not")
        close = difflib.get_close_matches(key, known, 1)
        hint = f'did you mean "{close[0]}"?' if close else f"known are {', '.join(known)}"
        raise ConfigError(f"{where}: unknown condition, {hint}")
    cls = CONDITIONS[key]
    if value is True:
        value = {}
    elif value is False:
        raise ConfigError(f"{where}: is false; leave it out, or write not = {{{key} = true}}")
    for name, own in cls.keys.items():
        if isinstance(value, dict) and name in value:
            raise ConfigError(f'{where}.{name}: unknown key, did you mean "{own}"?')
    try:
        return _single(cls, key, value, where)
    except ConfigError as error:
        text = str(error)
        if text.startswith(where):
            for name, own in cls.keys.items():
                text = text.replace(f"{where}.{name}:", f"{where}.{own}:")
            raise ConfigError(text) from error
        # What the condition itself refuses begins with its kind, which ends the path here.
        raise ConfigError(f"{where.removesuffix(key)}{error}") from error


def _single(cls: type[Condition], key: str, value: Any, where: str) -> Condition:
    if isinstance(value, dict):
        turned = {key: name for name, key in cls.keys.items()}
        return table(cls, {turned.get(k, k): v for k, v in value.items()}, f"{where}.")
    fields = [field for field in dataclasses.fields(cls) if field.init]
    if not fields:
        raise ConfigError(f"{where}: is {value!r}; write {key} = true")
    first = fields[0]
    hint = typing.get_type_hints(cls)[first.name]
    return cls(**{first.name: convert(hint, value, where, first.metadata)})


def reference() -> list[Key]:
    """Return every key of every condition, in order, for the reference page."""
    made: list[Key] = []
    for kind, cls in CONDITIONS.items():
        hints, texts = typing.get_type_hints(cls), _attributes(cls)
        fields = [field for field in dataclasses.fields(cls) if field.init]
        if not fields:
            made.append(Key(f"trigger.when.{kind}", "true", "", _first_line(cls)))
        for field in fields:
            key = cls.keys.get(field.name, field.name)
            must = field.default is dataclasses.MISSING
            default = "" if must else _default(field.default)
            made.append(Key(f"trigger.when.{kind}.{key}", _type(hints[field.name], field.metadata),
                            default, texts[field.name]))
    groups: dict[str, type[Condition]] = {**_GROUPS, "not": Not}
    for kind, group in groups.items():
        kindly = "table" if kind == "not" else "list of tables"
        made.append(Key(f"trigger.when.{kind}", kindly, "", _first_line(group)))
    return made


def _first_line(cls: type[Condition]) -> str:
    return inspect.cleandoc(cls.__doc__ or "").split("\n", 1)[0]


def _attributes(cls: type[Condition]) -> dict[str, str]:
    """Return the "Attributes" section of a docstring as name: text."""
    section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes\n----------\n")[2]
    found = re.findall(r"^(\w+)\n((?:    .*\n?)+)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "[" + ", ".join(_default(v) for v in value) + "]"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


def _type(hint: Any, meta: typing.Mapping[str, Any]) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if choices := meta.get("choices"):
        return " | ".join(f'"{c}"' for c in choices)
    if typing.get_origin(hint) is tuple:
        return f"list of {_TYPES[typing.get_args(hint)[0]]}"
    return _TYPES[hint] + (f", {meta['range']}" if "range" in meta else "")
