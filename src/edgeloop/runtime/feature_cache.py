"""What a program computes below its cut, kept for many samples: f32, f16 or int8.

Each sample's features are computed once and read in every epoch. They are the same as long as the
program and the sample are; who changes a sample (augmentation) drops its features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeloop.errors import BudgetError, InputError, ProgramError
from edgeloop.int8_rows import from_int8_rows, to_int8_rows
from edgeloop.program.table import NUMPY

if TYPE_CHECKING:
    from edgeloop.program import Program
    from edgeloop.runtime.session import Session

Array = npt.NDArray[Any]
KEEPS = ("f32", "f16", "int8")
_LARGEST_F16 = 65504.0


def cut_of(program: Program) -> dict[str, Any]:
    """Return what a program says of its cut; ProgramError where it has none."""
    cut: dict[str, Any] | None = program.metadata.get("cut")
    if cut is None or "features" not in program.entries:
        raise ProgramError(
            "the program has no cut: compile it with entries=(..., 'features', 'train_from', "
            "'eval_from'), or edgeloop compile --cut"
        )
    return cut


def sample_bytes(program: Program, keep: str = "f32") -> int:
    """Bytes that one sample's features take; int8 has a scale (f32) for each row."""
    return sum(
        math.prod(shape) * np.dtype(kind).itemsize
        for v in cut_of(program)["values"].values()
        for kind, shape in _parts(v["dtype"], tuple(v["shape"][1:]), keep)
    )


def _parts(dtype: str, shape: tuple[int, ...], keep: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Types and shapes that hold one sample of a value; integers stay as they are."""
    if keep not in KEEPS:
        raise InputError(f"keep={keep!r}: choose one of {', '.join(KEEPS)}")
    if dtype != "f32" or keep == "f32":
        yield NUMPY[dtype], shape
    elif keep == "f16":
        yield "<f2", shape
    else:
        yield "|i1", shape
        yield "<f4", (*shape[:-1], 1)


class FeatureCache:
    """Features of ``samples`` samples, numbered from 0, in memory allocated here, once.

    Parameters
    ----------
    program
        With a cut (entries ``features`` and ``train_from``).
    keep
        "f32": as computed. "f16": rounded (cut off at its largest number). "int8": rounded to 127
        steps of the largest magnitude of each row (last axis). Rounding is a function of the
        features alone, so features computed again are the same again.
    budget
        Largest ``nbytes``; None: no limit.

    Raises
    ------
    ProgramError
        The program has no cut.
    BudgetError
        They do not fit ``budget``.
    """

    def __init__(
        self, program: Program, samples: int, *, keep: str = "f32", budget: int | None = None
    ) -> None:
        each = sample_bytes(program, keep)
        self.nbytes = samples * each
        if budget is not None and self.nbytes > budget:
            raise BudgetError(
                f"the features of {samples} samples take {self.nbytes} bytes as {keep} ({each} "
                f"each), the budget is {budget}: keep fewer samples, or keep='int8'",
                needed=self.nbytes,
            )
        self.keep, self._hash = keep, program.hash
        self._held: dict[str, list[Array]] = {
            name: [np.empty((samples, *shape), kind)
                   for kind, shape in _parts(v["dtype"], tuple(v["shape"][1:]), keep)]
            for name, v in cut_of(program)["values"].items()
        }
        self._known = np.zeros(samples, bool)

    def __len__(self) -> int:
        return len(self._known)

    def missing(self, rows: Sequence[int] | Array) -> list[int]:
        """Those of ``rows`` whose features are not held."""
        return [int(i) for i in rows if not self._known[i]]

    def fill(self, session: Session, x: Any, rows: Sequence[int] | Array) -> None:
        """Compute and hold the features of samples x [n, ...] (or a dict) under these numbers.

        Raises
        ------
        InputError
            The session runs another program, or as ``session.features``.
        """
        if session.program.hash != self._hash:
            raise InputError("the cache belongs to another program: its features mean nothing to "
                             "this session; make a new cache")
        self.put(rows, session.features(x))

    def put(self, rows: Sequence[int] | Array, features: Array | Mapping[str, Array]) -> None:
        """Hold what ``session.features`` returned, under these numbers."""
        at = np.asarray(rows, np.intp)
        for name, a in self._named(features).items():
            held = self._held[name]
            if a.shape != (len(at), *held[0].shape[1:]):
                raise InputError(f"features '{name}' have shape {list(a.shape)}; "
                                 f"{[len(at), *held[0].shape[1:]]} is needed")
            for part, coded in zip(held, _coded(a, held[0].dtype), strict=True):
                part[at] = coded
        self._known[at] = True

    def rows(self, rows: Sequence[int] | Array) -> Any:
        """Return the features of these samples as ``step_from`` takes them, in f32.

        Raises
        ------
        InputError
            Features that are not held, or were dropped.
        """
        if absent := self.missing(rows):
            raise InputError(f"the features of sample {absent[0]} are not held; fill them first")
        at = np.asarray(rows, np.intp)
        out = {name: _decoded([part[at] for part in held]) for name, held in self._held.items()}
        return next(iter(out.values())) if len(out) == 1 else out

    def drop(self, rows: Sequence[int] | Array | None = None) -> None:
        """Forget features of samples that changed; None: of all."""
        self._known[... if rows is None else np.asarray(rows, np.intp)] = False

    def _named(self, features: Array | Mapping[str, Array]) -> dict[str, Array]:
        if not isinstance(features, Mapping):
            features = {next(iter(self._held)): features}
        if set(features) != set(self._held):
            raise InputError(f"features are {sorted(features)}; the cut has {sorted(self._held)}")
        return {name: np.asarray(a) for name, a in features.items()}


def _coded(a: Array, kind: np.dtype[Any]) -> list[Array]:
    if kind == np.float16:
        return [np.clip(a, -_LARGEST_F16, _LARGEST_F16)]
    if kind != np.int8:
        return [a]
    return list(to_int8_rows(a))


def _decoded(parts: list[Array]) -> Array:
    if len(parts) == 2:
        return from_int8_rows(parts[0], parts[1])
    return parts[0].astype(np.float32) if parts[0].dtype == np.float16 else parts[0]
