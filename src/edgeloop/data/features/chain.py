"""Pipelines of several steps, each taking what the one before gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.features.base import Example, Features, Shape
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Chain(Features):
    """Steps one after another; each does what it does alone, float32 in between.

    Where a step's shape follows from its record, what comes behind it is checked at once; the rest
    when the first window, or :meth:`plan`, says the shape.

    Parameters
    ----------
    steps
        The pipelines, in order (records of them, in a record); none of them a chain.
    """

    kind = "chain"

    def __init__(self, *, steps: Sequence[Features]) -> None:
        if not steps:
            raise DataError('features: steps is empty; name one, or use kind = "none"')
        for i, step in enumerate(steps):
            if isinstance(step, Chain):
                raise DataError(f"features: steps[{i}] is a chain; write its steps here")
        self.steps = tuple(steps)
        super().__init__()
        self.stateful = any(step.stateful for step in steps)
        self.raw = all(step.raw for step in steps)
        self.samples = steps[0].samples
        self._between: list[NDArray[np.float32]] = []
        shape = steps[0].input_shape
        if shape is not None:
            self.plan(shape)
            return
        for i, step in enumerate(steps):
            with _named(i, step):
                shape = step.output_shape if shape is None else step.plan(shape)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing."""
        yield {
            "steps": [
                {"kind": "scale", "factor": 9.80665},
                {"kind": "psd", "sample_rate": 25600.0, "log": "db"},
                {"kind": "normalise", "by": "running", "keep": [-1]},
                {"kind": "transpose", "axes": [1, 0]},
            ]
        }, (4096, 3)
        yield {
            "steps": [
                {"kind": "place", "length": 16000},
                {"kind": "mfcc"},
                {"kind": "crop", "length": 12, "start": 1, "axis": -1},
                {"kind": "normalise", "by": "window", "keep": [-1]},
            ]
        }, (15000,)

    def _checked(self, x: NDArray[Any]) -> NDArray[Any]:
        with _named(0, self.steps[0]):
            return self.steps[0]._checked(x)  # noqa: SLF001 - a chain is made of its own kind

    def _plan(self, shape: Shape) -> Shape:
        shapes = [shape]
        for i, step in enumerate(self.steps):
            with _named(i, step):
                shapes.append(step.plan(shapes[-1]))
        self._between = [np.zeros(each, np.float32) for each in shapes[1:-1]]
        return shapes[-1]

    def _run(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        for step, given, made in self._walk(x, out):
            step._run(given, made)  # noqa: SLF001

    def _observe(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        for step, given, made in self._walk(x, out):
            step._observe(given, made)  # noqa: SLF001

    def _walk(
        self, x: NDArray[Any], out: NDArray[np.float32]
    ) -> Iterator[tuple[Features, NDArray[Any], NDArray[np.float32]]]:
        """Yield each step with what it is given and the array that it fills."""
        for step, made in zip(self.steps, (*self._between, out), strict=True):
            yield step, x, made
            x = made

    def buffer_bytes(self) -> int:
        """Bytes of the arrays that the steps hold, and of those between them."""
        between = sum(each.nbytes for each in self._between)
        return between + sum(step.buffer_bytes() for step in self.steps)

    def spec(self) -> dict[str, Any]:
        """Return the complete records of all steps."""
        return {"kind": self.kind, "steps": [step.spec() for step in self.steps]}

    def state(self) -> dict[str, Any]:
        """Return the state of each step; {} where no step learns."""
        return {"steps": [step.state() for step in self.steps]} if self.stateful else {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave; DataError, and no change: not such a state."""
        if not self.stateful:
            super().load_state(state)
            return
        given = state.get("steps")
        good = isinstance(given, list) and all(isinstance(each, Mapping) for each in given)
        if not good or set(state) != {"steps"} or len(given or ()) != len(self.steps):
            raise DataError(
                f"chain: not a state of {len(self.steps)} steps; load it into the pipeline that it "
                "came from"
            )
        before = self.state()["steps"]
        try:
            for i, (step, each) in enumerate(zip(self.steps, given or (), strict=True)):
                with _named(i, step):
                    step.load_state(each)
        except DataError:
            for step, each in zip(self.steps, before, strict=True):
                step.load_state(each)
            raise


@contextmanager
def _named(i: int, step: Features) -> Iterator[None]:
    """Say which step an error is about."""
    try:
        yield
    except DataError as error:
        raise named(i, step.kind, error) from error


def named(i: int, kind: object, error: DataError) -> DataError:
    """Return the error of one step as one of the chain."""
    text = str(error).removeprefix("features: ").removeprefix(f"{kind}: ")
    return DataError(f"features: steps[{i}] ({kind}): {text}")
