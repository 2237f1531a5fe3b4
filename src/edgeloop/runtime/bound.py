"""An entry over a session's memory: views of its inputs and outputs, and how rows get there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.errors import InputError, ProgramError
from edgeloop.program import Entry
from edgeloop.runtime.work import Work

Array = npt.NDArray[Any]
WEIGHT, NORM = "sample_weight", "norm"


class Bound:
    """An entry with NumPy views of its io tensors."""

    def __init__(self, entry: Entry, view: Any, metadata: Mapping[str, Any]) -> None:
        self.name, self.index, self.steps = entry.name, entry.index, entry.steps
        self.tensors = entry.inputs
        self.inputs: dict[str, Array] = {n: view(t) for n, t in entry.inputs.items()}
        self.outputs: dict[str, Array] = {n: view(t) for n, t in entry.outputs.items()}
        targets = metadata.get("targets")
        if targets is None:  # a program of a loss with one target does not list it
            targets = next(([n] for n in ("labels", "targets") if n in entry.inputs), [])
        self.targets = tuple(n for n in targets if n in entry.inputs)
        own = metadata.get("loss") == "onnx"  # its integers need not be classes
        self.labels = next(
            (n for n in self.targets if entry.inputs[n].dtype == "i32" and not own), "")
        extra = {*self.targets, WEIGHT, NORM}
        self.model_inputs = tuple(n for n in entry.inputs if n not in extra)
        self.classes = 0  # not yet known
        self.work: Work | None = None  # not yet known
        self.rows = min((entry.inputs[n].shape[0] for n in self.model_inputs), default=0)

    def check_rows(self) -> None:
        """ProgramError unless every output but the loss has a row for each row of the input."""
        for name, a in self.outputs.items():
            if name != "loss" and (a.ndim == 0 or len(a) != self.rows):
                raise ProgramError(
                    f"output '{name}' of entry '{self.name}' has shape {list(a.shape)}, not one "
                    f"row for each of {self.rows} rows: the model must keep its batch axis first"
                )

    def batches(self, n: int) -> Iterator[tuple[int, int]]:
        """Yield (first row, rows) of each run over n rows."""
        for begin in range(0, n, self.rows):
            yield begin, min(self.rows, n - begin)

    def weigh(
        self, arrays: Mapping[str, Array], begin: int, count: int, counts: Array | None = None
    ) -> float:
        """Return what rows weigh in the mean, together."""
        counted = np.ones(count) if counts is None else counts[begin : begin + count]
        if WEIGHT in arrays:
            counted = arrays[WEIGHT][begin : begin + count] * counted
        return float(counted.sum(dtype=np.float64))

    def fill(
        self, arrays: Mapping[str, Array], begin: int, count: int, counts: Array | None = None,
        total: float | None = None,
    ) -> None:
        """Write rows into io; missing rows repeat the first one with weight 0.

        ``counts``: what each row weighs in the mean besides its sample weight; default 1.
        ``total``: by what the sum over the rows is divided; default what they weigh.
        A repeated row cannot make anything non-finite that was not already (zeros could: log).
        """
        for name, a in arrays.items():
            slot = self.inputs[name]
            slot[:count] = a[begin : begin + count]
            if count < len(slot):
                slot[count:] = 0 if name == WEIGHT else a[begin]
        if WEIGHT in self.inputs and WEIGHT not in arrays:
            self.inputs[WEIGHT][:count] = 1
            self.inputs[WEIGHT][count:] = 0
        if NORM in self.inputs:
            self.inputs[NORM].reshape(-1)[0] = (
                self.weigh(arrays, begin, count, counts) if total is None else total)


def pick(variants: list[Bound], shapes: Mapping[str, tuple[int, ...]]) -> Bound:
    """Return the variant whose shapes fit, the smallest batch that holds all rows if any does."""
    fits = [
        e for e in variants
        if all(tuple(e.tensors[n].shape[1:]) == tuple(s[1:]) for n, s in shapes.items())
    ]
    if not fits:
        known = [{n: list(e.tensors[n].shape) for n in e.model_inputs} for e in variants]
        raise InputError(f"no shape variant fits inputs {dict(shapes)}; the program has {known}")
    rows = max((s[0] for s in shapes.values() if s), default=0)
    large = [e for e in fits if e.rows >= rows]
    return min(large, key=lambda e: e.rows) if large else max(fits, key=lambda e: e.rows)
