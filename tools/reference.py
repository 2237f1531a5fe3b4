"""Writes docs/guide/loop-toml.md: every key of loop.toml, from the classes that read it.

    python tools/reference.py [FILE]     # default: docs/guide/loop-toml.md; "-" prints

A key's type, default and range come from its field or argument, its meaning from the docstring of
the class, so that the page cannot say other than the code. A key without a meaning is an error.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any

from edgeloop.data.features import KINDS as FEATURES
from edgeloop.data.sources import KINDS as SOURCES
from edgeloop.loop.config import Config
from edgeloop.loop.schema import Bytes, Joules, Seconds
from edgeloop.loop.triggers import reference as conditions

PAGE = Path(__file__).parents[1] / "docs/guide/loop-toml.md"
HEAD = """# Every key of loop.toml

Made from the classes that read the file by `python tools/reference.py`; a test compares them. Paths
start at the folder of the file. Durations are written with their unit (`"900 ms"`, `"2 h"`), sizes
too (`"48 MiB"`), energies too (`"50 J"`). An unknown key is an error that names it and the nearest
known one. How the parts play together: [the loop](loop.md).
"""
HIDDEN = ("options", "root", "name", "labels")
SECTION = r"^(?:Attributes|Parameters)\n-+\n(.*?)(?=^\w[^\n]*\n-+\n|\Z)"
_UNSAID = object()


def meanings(cls: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say of each attribute or parameter."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        text = inspect.cleandoc(base.__doc__ or "") if "__doc__" in vars(base) else ""
        for section in re.findall(SECTION, text, re.MULTILINE | re.DOTALL):
            entries = re.split(r"^(?=\S)", section, flags=re.MULTILINE)
            for entry in filter(str.strip, entries):
                names, _, rest = entry.partition("\n")
                said = re.sub(r"\s+", " ", rest).strip()
                for name in names.partition(":")[0].split(","):
                    found[name.strip()] = said
    return found


def of_class(cls: type, prefix: str) -> list[tuple[str, str, str, str]]:
    """Rows (key, type, default, meaning) of a dataclass of the configuration."""
    rows: list[tuple[str, str, str, str]] = []
    said, hints = meanings(cls), typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        if f.name in HIDDEN:
            continue
        inner = _only(hints[f.name])
        key = f"{prefix}.{f.name}" if prefix else f.name
        if dataclasses.is_dataclass(inner):
            rows += of_class(typing.cast("type", inner), key)
            continue
        default: Any = _UNSAID
        if f.default is not dataclasses.MISSING:
            default = f.default
        elif f.default_factory is not dataclasses.MISSING:
            default = f.default_factory()
        limits, choices = f.metadata.get("range"), f.metadata.get("choices")
        kind = " or ".join(f'`"{c}"`' for c in choices) if choices else _named(hints[f.name])
        if limits is not None and str(limits) != "at least -inf":
            kind += f", {limits}"
        meaning = _meaning(said, f.name, f"{cls.__name__}.{f.name}")
        rows.append((key, kind, _shown(default), meaning))
    return rows


def of_signature(make: Any, prefix: str) -> list[tuple[str, str, str, str]]:
    """Rows of the keyword arguments of a source or a feature pipeline."""
    said = meanings(make)
    rows = []
    for name, parameter in inspect.signature(make).parameters.items():
        if name in HIDDEN or "IO" in str(parameter.annotation):
            continue
        empty = parameter.default is inspect.Parameter.empty
        default = _UNSAID if empty else parameter.default
        kind = str(parameter.annotation).replace(" | None", "").replace("Sequence", "list")
        rows.append((f"{prefix}.{name}", _plain(kind), _shown(default),
                     _meaning(said, name, f"{make.__name__}({name})")))
    return rows


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    hints = typing.get_type_hints(Config)
    for f in dataclasses.fields(Config):
        if f.name in HIDDEN:
            continue
        cls = _only(hints[f.name])
        parts.append(f"\n## [{f.name}]\n")
        if dataclasses.is_dataclass(cls):
            parts.append(_summary(cls) + "\n")
            parts.append(_table(of_class(typing.cast("type", cls), f.name)))
        if f.name == "trigger":
            parts.append("\n### trigger.when\n\nConditions; how they combine: "
                         "[triggers](triggers.md).\n")
            parts.append(_table([
                (key.path, key.type, f"`{key.default}`" if key.default else "*required*",
                 key.description) for key in conditions()]))
        if f.name == "source":
            for kind, make in sorted(SOURCES.items()):
                parts.append(f'\n### source.kind = "{kind}"\n\n{_summary(make)}\n')
                parts.append(_table(of_signature(make, "source")))
        if f.name == "features":
            parts.append("\nLeft out, the program's record counts; given, it must equal that.\n")
            for kind, make in sorted(FEATURES.items()):
                parts.append(f'\n### features.kind = "{kind}"\n\n{_summary(make)}\n')
                parts.append(_table(of_signature(make, "features")))
    return "\n".join(parts).replace("\n\n\n", "\n\n").rstrip() + "\n"


def _summary(cls: Any) -> str:
    text = inspect.cleandoc(cls.__doc__ or "")
    plain = re.split(r"^\w[^\n]*\n-+\n", text, maxsplit=1, flags=re.MULTILINE)[0]
    return re.sub(r":\w+:`~?\.?([^`]*)`", r"`\1`", plain).strip()


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    if not rows:
        return "\nNo keys.\n"
    lines = ["\n| key | value | default | meaning |", "|---|---|---|---|"]
    lines += [
        "| `{}` | {} | {} | {} |".format(*(c.replace("|", "\\|") for c in row)) for row in rows]
    return "\n".join(lines) + "\n"


def _meaning(said: dict[str, str], name: str, where: str) -> str:
    if not said.get(name):
        raise SystemExit(f"{where}: its docstring does not say what it means")
    return said[name]


def _only(hint: Any) -> Any:
    """The type without "or None"."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(h for h in typing.get_args(hint) if h is not type(None))
    return hint


def _named(hint: Any) -> str:
    hint = _only(hint)
    known = {Seconds: "duration", Bytes: "size", Joules: "energy", Path: "path", str: "string",
             int: "whole number", float: "number", bool: "`true` or `false`"}
    if hint in known:
        return known[hint]
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is tuple and args[-1] is Ellipsis:
        return f"list of {_named(args[0])}s"
    if origin is tuple:
        return "[" + ", ".join(map(_named, args)) + "]"
    return "table"


def _plain(kind: str) -> str:
    words = {"str": "string", "int": "whole number", "float": "number", "bool": "`true` or `false`",
             "Path": "path"}
    return words.get(kind, kind.replace("[", " of ").replace("]", "").replace("str", "string"))


def _shown(value: Any) -> str:
    if value is _UNSAID:
        return "*required*"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Path | str):
        return f'`"{value}"`'
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, tuple | list):
        return f"`{list(value)}`"
    if isinstance(value, dict):
        return "none" if not value else f"`{value}`"
    return f"`{value}`"


if __name__ == "__main__":
    where = sys.argv[1] if len(sys.argv) > 1 else str(PAGE)
    if where == "-":
        print(page())
    else:
        Path(where).write_text(page(), encoding="utf-8")
