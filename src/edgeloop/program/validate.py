"""What sessions and the loop rely on in an artifact's metadata, checked once when it is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgeloop.program.table import TableTensor

_WITH_LOSS = ("train", "eval", "grad", "accumulate", "train_from", "eval_from")
_LABELS: dict[str, type | tuple[type, ...]] = {
    "axis": int, "shift": int, "ignore_index": int, "output": str, "smoothing": (int, float),
    "class_weights": list,
}


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """ValueError when a key that edgeloop itself uses has a value of the wrong kind.

    ``batch``, ``rows_per_group``, ``micro_batch``: positive; ``outputs``, ``classes``,
    ``targets``: lists of names or absent; ``labels``: an object whose ``classes`` is a positive
    number or null, or absent; so are its ``axis``, ``shift`` and ``ignore_index`` (integers),
    ``output`` (a name), ``smoothing`` (a number) and ``class_weights`` (a list of them, one for
    each class). ``modules`` and ``scales``: objects as the compiler writes them, or absent.
    ``inputs``: an object of objects whose ``bound`` is a positive number or absent. ``cut``:
    absent, or an object whose ``values`` have a ``shape`` and a ``dtype``. ``streams``: absent, or
    an object. Other keys are the user's.
    """
    _positive(metadata.get("batch", 1), "batch")
    _positive(metadata.get("rows_per_group") or 1, "rows_per_group")
    _positive(metadata.get("micro_batch") or 1, "micro_batch")
    for key in ("outputs", "classes", "targets"):
        names = metadata.get(key)
        if names is not None and not (
            isinstance(names, list) and all(isinstance(n, str) for n in names)
        ):
            raise ValueError(f"metadata '{key}' is not a list of names")
    for name, described in _object(metadata.get("inputs", {}), "inputs").items():
        if "bound" in _object(described, f"inputs.{name}"):
            _positive(described["bound"], f"inputs.{name}.bound")
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
    _check_modules(metadata.get("modules"), metadata.get("scales"))
    _object(metadata.get("streams") or {}, "streams")
    cut = metadata.get("cut")
    for name, v in _object(_object(cut or {}, "cut").get("values", {}), "cut.values").items():
        shape = _object(v, f"cut.values.{name}").get("shape")
        if v.get("dtype") not in ("f32", "i32") or not isinstance(shape, list) or not shape or (
            not all(isinstance(n, int) and n > 0 for n in shape)
        ):
            raise ValueError(f"metadata 'cut.values.{name}' has no shape or type")


def _check_modules(modules: Any, scales: Any) -> None:
    """What layers were in the framework that the model came from, and the scales of LoRA."""
    for key, found in (("modules", modules), ("scales", scales)):
        if not isinstance(found, dict | None):
            raise ValueError(f"metadata '{key}' is not an object")  # noqa: TRY004
    for name, m in (modules or {}).items():
        shape = m.get("shape") if isinstance(m, dict) else None
        if not isinstance(shape, list) or not all(isinstance(n, int) and n > 0 for n in shape):
            raise ValueError(f"metadata 'modules': '{name}' has no shape")
        for key in ("groups", "calls"):
            _positive(m.get(key, 1), f"modules.{name}.{key}")
    if not all(isinstance(v, float | int) for v in (scales or {}).values()):
        raise ValueError("metadata 'scales' holds something that is no number")


def check_entry(
    name: str, inputs: Mapping[str, TableTensor], outputs: Mapping[str, TableTensor]
) -> None:
    """ValueError when an entry with a loss lacks it, or its inputs differ in their first axis."""
    for n, t in inputs.items():
        if t.dtype not in ("f32", "i32", "u8"):
            raise ValueError(f"input '{n}' of entry '{name}' has type {t.dtype}")
        if not t.shape:
            raise ValueError(f"input '{n}' of entry '{name}' has no first axis")
    if name.partition("@")[0] not in _WITH_LOSS:
        return
    if "loss" not in outputs:
        raise ValueError(f"entry '{name}' has no output 'loss'")
    rows = {t.shape[0] for n, t in inputs.items() if n != "norm"}
    if len(rows) > 1:
        raise ValueError(f"inputs of entry '{name}' differ in their first axis: {sorted(rows)}")


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise ValueError(f"metadata '{what}' is not an object")


def _positive(value: Any, what: str) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"metadata '{what}' is {value!r}, not a positive number")
