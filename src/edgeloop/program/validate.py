"""What sessions and the loop rely on in an artifact's metadata, checked once when it is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgeloop.program.table import TableTensor

_WITH_LOSS = ("train", "eval", "grad", "accumulate")
_LABELS: dict[str, type | tuple[type, ...]] = {
    "axis": int, "shift": int, "ignore_index": int, "output": str, "smoothing": (int, float),
    "class_weights": list,
}


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """ValueError when a key that edgeloop itself uses has a value of the wrong kind.

    ``batch``: positive; ``outputs``, ``classes``: lists of names or absent; ``labels``: an object
    whose ``classes`` is a positive number or null, or absent; so are its ``axis``, ``shift`` and
    ``ignore_index`` (integers), ``output`` (a name), ``smoothing`` (a number) and
    ``class_weights`` (a list of them, one for each class). Other keys are the user's.
    """
    _positive(metadata.get("batch", 1), "batch")
    for key in ("outputs", "classes"):
        names = metadata.get(key)
        if names is not None and not (
            isinstance(names, list) and all(isinstance(n, str) for n in names)
        ):
            raise ValueError(f"metadata '{key}' is not a list of names")
    labels = metadata.get("labels")
    if labels is not None:
        if not isinstance(labels, dict):
            raise ValueError("metadata 'labels' is not an object")
        if labels.get("classes") is not None:
            _positive(labels["classes"], "labels.classes")
        for key, kind in _LABELS.items():
            value = labels.get(key)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise ValueError(f"metadata 'labels.{key}' is {value!r}")
        weights = labels.get("class_weights")
        if weights is not None and (
            len(weights) != labels.get("classes")
            or not all(isinstance(w, int | float) and 0 <= w < math.inf for w in weights)
        ):
            raise ValueError("metadata 'labels.class_weights' is not one number for each class")


def check_entry(
    name: str, inputs: Mapping[str, TableTensor], outputs: Mapping[str, TableTensor]
) -> None:
    """ValueError when an entry with a loss lacks it, or its inputs differ in their first axis."""
    for n, t in inputs.items():
        if not t.shape:
            raise ValueError(f"input '{n}' of entry '{name}' has no first axis")
    if name.partition("@")[0] not in _WITH_LOSS:
        return
    if "loss" not in outputs:
        raise ValueError(f"entry '{name}' has no output 'loss'")
    rows = {t.shape[0] for n, t in inputs.items() if n != "norm"}
    if len(rows) > 1:
        raise ValueError(f"inputs of entry '{name}' differ in their first axis: {sorted(rows)}")


def _positive(value: Any, what: str) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"metadata '{what}' is {value!r}, not a positive number")
