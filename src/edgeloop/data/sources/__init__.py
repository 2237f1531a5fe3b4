"""Where items come from, a file each: sound, images, CSV, NPZ, recordings, lines, MQTT, nowhere."""

from __future__ import annotations

import difflib
import inspect
import re
from typing import TYPE_CHECKING, Any

from edgeloop.data.sources import plugins
from edgeloop.data.sources.csv import CsvSource
from edgeloop.data.sources.images import ImagesSource
from edgeloop.data.sources.iterable import IterableSource
from edgeloop.data.sources.lines import LinesSource
from edgeloop.data.sources.mqtt import MqttSource
from edgeloop.data.sources.npz import NpzSource
from edgeloop.data.sources.recording import RecordingSource
from edgeloop.data.sources.silent import SilentSource
from edgeloop.data.sources.wav import WavSource
from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgeloop.data.item import Feed, Labels

KINDS: dict[str, Callable[..., Feed]] = {
    "csv": CsvSource,
    "images": ImagesSource,
    "mqtt": MqttSource,
    "none": SilentSource,
    "npz": NpzSource,
    "recording": RecordingSource,
    "stdin": LinesSource,
    "wav": WavSource,
}

__all__ = [
    "KINDS",
    "CsvSource",
    "ImagesSource",
    "IterableSource",
    "LinesSource",
    "MqttSource",
    "NpzSource",
    "RecordingSource",
    "SilentSource",
    "WavSource",
    "make_source",
]


def make_source(
    table: Mapping[str, Any], *, labels: Labels, root: Path, where: str = "source"
) -> Feed:
    """Build the source that a table of the configuration describes.

    Parameters
    ----------
    table
        "kind" and the keyword arguments of that kind; relative paths start at `root`. A kind that
        is not known here may be one of another distribution, see `plugins`.
    where
        Names the table in errors, such as ``loop.toml: source``.

    Raises
    ------
    ConfigError
        Unknown kind or key, a key missing, or a value of the wrong type.
    """
    options = dict(table)
    kind = options.pop("kind", None)
    make = None
    if isinstance(kind, str):
        make = KINDS.get(kind) or plugins.find(kind, f"{where}.kind")
    if make is None:
        names = ", ".join(sorted({*KINDS, *plugins.names()}))
        raise ConfigError(f"{where}.kind: is {kind!r}; use one of {names}")
    # An argument whose type TOML cannot express is for callers in code.
    known = {
        key: (parameter, _TYPES[_kind_of(parameter)])
        for key, parameter in inspect.signature(make).parameters.items()
        if _kind_of(parameter) in _TYPES
    }
    for key, value in options.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f'did you mean "{close[0]}"?' if close else f"known are {', '.join(known)}"
            raise ConfigError(f"{where}.{key}: unknown key, {hint}")
        wanted = known[key][1]
        # To Python, true is a number; to a reader of TOML it is not.
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            names = " or ".join(t.__name__ for t in wanted)
            raise ConfigError(f"{where}.{key}: is {value!r}; it must be of type {names}")
    for key, (parameter, _) in known.items():
        if parameter.default is inspect.Parameter.empty and key not in options:
            raise ConfigError(f"{where}.{key}: is missing; a {kind!r} source needs it")
    for key, value in options.items():
        if _kind_of(known[key][0]).startswith("Path"):
            options[key] = root / value
    return make(labels=labels, **options)


def _kind_of(parameter: inspect.Parameter) -> str:
    """Annotation of an argument, without its modules and what stands in brackets."""
    said = parameter.annotation
    text = said if isinstance(said, str) else inspect.formatannotation(said)
    return re.sub(r"(\w+\.)+", "", text).partition("[")[0]


_TYPES: dict[str, tuple[type, ...]] = {
    "Path": (str,),
    "Path | None": (str,),
    "str": (str,),
    "str | None": (str,),
    "bool": (bool,),
    "int": (int,),
    "int | None": (int,),
    "float": (int, float),
    "float | None": (int, float),
    "Sequence": (list,),
}
