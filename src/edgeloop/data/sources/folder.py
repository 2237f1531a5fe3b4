"""Files of a folder in an order that is the same on every machine, and what names their class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeloop.data.clips import label_of
from edgeloop.data.rng import Draw
from edgeloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pathlib import Path

LABELS = ("name", "folder", "none")
ORDERS = ("random", "name")


def check(kind: str, label: str, order: str) -> None:
    """Raise ConfigError where one of the options is not one of its words."""
    for key, value, allowed in (("label", label, LABELS), ("order", order, ORDERS)):
        if value not in allowed:
            raise ConfigError(f"{kind} source: {key} is {value!r}; use one of {allowed}")


def files_of(path: Path, endings: tuple[str, ...], *, draw: Draw | None) -> list[Path]:
    """Return the files below a folder, by name or, with `draw`, shuffled.

    Raises
    ------
    DataError
        There is none.
    """
    # Sorted by name first: the order of a directory differs between machines.
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in endings and f.is_file())
    if not files:
        raise DataError(
            f"{path}: holds no {' or '.join(endings)} files; point source.path at a folder of them"
        )
    return files if draw is None else [files[i] for i in draw.permutation(len(files))]


def said_of(file: Path, label: str) -> str | None:
    """Return what a file's name or folder says of its class, as `label` tells."""
    if label == "none":
        return None
    return label_of(file) if label == "name" else file.parent.name
