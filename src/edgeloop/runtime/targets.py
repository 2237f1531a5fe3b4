"""What a caller hands over besides the model's inputs: targets by name, as the loss takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeloop.errors import InputError
from edgeloop.runtime import inputs
from edgeloop.runtime.bound import Array, Bound


def checked(
    y: Any, entry: Bound, metadata: Mapping[str, Any], ignore: int | None
) -> dict[str, Array]:
    """Return the targets of an entry by name, as arrays of the right type and valid values.

    One target is an array, or a dict that names it; several are a dict; none is None.

    Raises
    ------
    InputError
        Wrong names, shapes, types or values.
    """
    if not entry.targets:
        if y is not None:
            raise InputError("the program's loss has no targets: call without y")
        return {}
    if y is None:
        raise InputError(f"the program's loss needs {' and '.join(entry.targets)}: pass y")
    given = inputs.by_name(y, entry.targets, "targets", "loss")
    out = {}
    for name, value in given.items():
        bound = entry.classes if name == entry.labels else 0
        out[name] = inputs.as_rows(
            value, entry.tensors[name], name, bound, ignore if bound else None)
    loss = metadata.get("loss")
    for name, a in out.items():
        if loss == "bce":
            inputs.check_probabilities(a, name)
        if loss == "cosine_embedding" and not (np.abs(a) == 1).all():
            raise InputError(f"'{name}' must be 1 (alike) or -1 in every row")
    return out


def check_rows(n: int, entry: Bound, metadata: Mapping[str, Any]) -> None:
    """InputError when n rows are no whole groups, or a loss of whole batches gets less than one."""
    group = int(metadata.get("rows_per_group") or 1)
    if n % group:
        raise InputError(f"{n} rows; the loss takes groups of {group} neighbouring rows")
    if metadata.get("whole_batches") and n % entry.rows:
        raise InputError(
            f"{n} rows; the loss is one number for a whole batch of {entry.rows}, so that no step "
            "can have fewer rows"
        )
