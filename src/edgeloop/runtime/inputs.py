"""Checks of what a caller hands to a session, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop import _core
from edgeloop.errors import InputError
from edgeloop.program.table import TableTensor

Array = npt.NDArray[Any]
_KINDS = {"f32": "fiub", "i32": "iub", "u8": "iub"}
_NUMPY = {"f32": np.float32, "i32": np.int32, "u8": np.uint8}
_RANGE = {"i32": (-(2**31), 2**31 - 1), "u8": (0, 255)}


def as_rows(
    value: Any, tensor: TableTensor, name: str, bound: int = 0, ignore: int | None = None
) -> Array:
    """Return ``value`` [n, ...] as a dense array of the tensor's type, checked.

    With ``bound`` integers (labels, token ids) must lie in 0..bound-1, or be ``ignore``.

    Raises
    ------
    InputError
        Wrong kind of numbers, wrong shape after the first axis, out of the type's range, or NaN
        or infinite; the message names the input and the row.
    """
    try:
        a = np.asarray(value)
    except ValueError as e:
        raise InputError(f"input '{name}' is not an array: rows differ in length") from e
    if a.dtype.kind not in _KINDS[tensor.dtype]:
        raise InputError(
            f"input '{name}' has type {a.dtype}; {_NUMPY[tensor.dtype].__name__} is needed"
        )
    if a.ndim != len(tensor.shape) or a.shape[1:] != tensor.shape[1:]:
        want = "[n" + "".join(f", {d}" for d in tensor.shape[1:]) + "]"
        raise InputError(f"input '{name}' has shape {list(a.shape)}; {want} is needed")
    if tensor.dtype == "f32":
        if a.dtype != np.float32:
            with np.errstate(over="ignore"):  # too large for f32: infinite, refused below
                a = a.astype(np.float32)
        a = np.ascontiguousarray(a)
        bad = _core.first_nonfinite(a) if a.size else -1
        if bad >= 0:
            at = np.unravel_index(bad, a.shape)
            raise InputError(
                f"input '{name}' is {a[at]} at row {at[0]}, position {list(map(int, at[1:]))}; "
                "remove or repair the row"
            )
        return a
    low, high = (0, bound - 1) if bound else _RANGE[tensor.dtype]
    if a.size and (a.min() < low or a.max() > high):
        wrong = (a < low) | (a > high)
        if ignore is not None:
            wrong &= a != ignore
        if wrong.any():
            at = np.unravel_index(int(np.argmax(wrong)), a.shape)
            inside = f", position {list(map(int, at[1:]))}" if a.ndim > 1 else ""
            also = "" if ignore is None else f", or {ignore} where it is to be ignored"
            raise InputError(
                f"'{name}' is {a[at]} at row {at[0]}{inside}; it must be in {low}..{high}{also}"
            )
    return np.ascontiguousarray(a, _NUMPY[tensor.dtype])


def check_weights(weight: Array, name: str) -> None:
    """InputError when a weight is negative or all of them are zero."""
    if weight.min() < 0 or weight.max() == 0:
        raise InputError(f"'{name}' must not be negative, nor zero for every row")


def check_probabilities(targets: Array, name: str) -> None:
    """InputError when a target of binary cross-entropy lies outside 0 to 1."""
    wrong = (targets < 0) | (targets > 1)
    if wrong.any():
        at = np.unravel_index(int(np.argmax(wrong)), targets.shape)
        raise InputError(f"'{name}' is {targets[at]} at row {at[0]}; bce needs 0 to 1")


def by_name(
    x: Any, names: tuple[str, ...], what: str = "inputs", whose: str = "model"
) -> dict[str, Any]:
    """Return inputs of the model (or loss) by name: a dict as it is, else the only input.

    Raises
    ------
    InputError
        Names differ from the model's, or one array for a model with several inputs.
    """
    if isinstance(x, Mapping):
        if set(x) != set(names):
            raise InputError(f"{what} are {sorted(map(str, x))}; the {whose} has {sorted(names)}")
        return dict(x)
    if len(names) != 1:
        raise InputError(f"the {whose} has {len(names)} {what}; pass a dict with {sorted(names)}")
    return {names[0]: x}


def row_count(arrays: Mapping[str, Array]) -> int:
    """Return the common number of rows; InputError when they differ or there are none."""
    counts = {name: len(a) for name, a in arrays.items()}
    n = next(iter(counts.values()))
    if len(set(counts.values())) > 1:
        raise InputError(f"inputs differ in their number of rows: {counts}")
    if n == 0:
        raise InputError(f"input '{next(iter(counts))}' has no rows")
    return n
