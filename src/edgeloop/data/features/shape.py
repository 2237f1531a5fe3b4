"""Kinds that move numbers or multiply them, and compute nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.features.base import Example, Features, Shape
from edgeloop.data.features.options import check, choice, real, whole, wholes
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Identity(Features):
    """No pipeline: the model takes the samples as they come, as float32, of any shape."""

    kind = "none"

    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing."""
        yield {}, (4096, 3)
        yield {}, (1501,)

    def _plan(self, shape: Shape) -> Shape:
        return shape

    def _run(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        np.copyto(out, x, casting="same_kind")


class Scale(Features):
    """x factor + offset, of any shape.

    Parameters
    ----------
    factor
        What each number is multiplied with.
    offset
        What is added then, in the result's unit.
    """

    kind = "scale"

    def __init__(self, *, factor: float = 1.0, offset: float = 0.0) -> None:
        self._factor, self._offset = real("factor", factor), real("offset", offset)
        super().__init__(factor=self._factor, offset=self._offset)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing."""
        yield {"factor": 9.80665, "offset": -1.0}, (4096, 3)
        yield {"factor": -0.5}, (1501,)

    def _plan(self, shape: Shape) -> Shape:
        self._work = np.zeros(shape, np.float64)
        return shape

    def _run(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        np.copyto(self._work, x)
        np.multiply(self._work, self._factor, out=self._work)
        np.add(self._work, self._offset, out=self._work)
        np.copyto(out, self._work, casting="same_kind")


class Place(Features):
    """Pads or cuts one axis to a fixed length: [n, ...] -> [length, ...].

    Parameters
    ----------
    length
        Length of the result along `axis`, in samples.
    at
        Where a shorter window goes, and which part of a longer one is kept: "centre" (what is odd
        falls to the end), "start" or "end".
    axis
        The axis; below 0 it counts from the last.
    fill
        What stands around a shorter window.
    """

    kind = "place"

    def __init__(
        self, *, length: int, at: str = "centre", axis: int = 0, fill: float = 0.0
    ) -> None:
        self._length = whole("length", length)
        self._at = choice("at", at, ("centre", "start", "end"))
        self._axis, self._fill = _axis(axis), real("fill", fill)
        super().__init__(length=length, at=at, axis=axis, fill=self._fill)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing."""
        yield {"length": 5000}, (4096, 3)
        yield {"length": 1000, "at": "end"}, (1501,)
        yield {"length": 1600, "at": "start", "axis": -1, "fill": 0.5}, (2, 1501)

    def _plan(self, shape: Shape) -> Shape:
        axis = _of(self.kind, self._axis, shape)
        n, length = shape[axis], self._length
        spare = {"start": 0, "centre": abs(length - n) // 2, "end": abs(length - n)}[self._at]
        # As edgeloop.data.clips.place: what is odd falls behind when padding, and when cutting too.
        part = slice(spare, spare + min(n, length))
        whole_axes = (slice(None),) * axis
        self._from = (*whole_axes, part if n > length else slice(None))
        self._to = (*whole_axes, slice(None) if n > length else part)
        return (*shape[:axis], length, *shape[axis + 1 :])

    def _run(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        out.fill(self._fill)
        np.copyto(out[self._to], x[self._from], casting="same_kind")


class Crop(Features):
    """Cuts `length` indices from `start` on out of one axis: [n, ...] -> [length, ...].

    Parameters
    ----------
    length
        Indices kept.
    start
        The first of them.
    axis
        The axis; below 0 it counts from the last.
    """

    kind = "crop"

    def __init__(self, *, length: int, start: int = 0, axis: int = 0) -> None:
        self._length, self._start = whole("length", length), whole("start", start, 0)
        self._axis = _axis(axis)
        super().__init__(length=length, start=start, axis=axis)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing."""
        yield {"length": 4000, "start": 96}, (4096, 3)
        yield {"length": 1, "axis": -1}, (2, 1501)

    def _plan(self, shape: Shape) -> Shape:
        axis = _of(self.kind, self._axis, shape)
        end = self._start + self._length
        if end > shape[axis]:
            raise DataError(
                f"crop: takes {self._start} to {end - 1} of axis {self._axis}, a window has shape "
                f'{list(shape)}; crop less (kind "place" pads)'
            )
        self._part = (*(slice(None),) * axis, slice(self._start, end))
        return (*shape[:axis], self._length, *shape[axis + 1 :])

    def _run(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        np.copyto(out, x[self._part], casting="same_kind")


class Transpose(Features):
    """Axes in another order.

    Parameters
    ----------
    axes
        Axis of the window that each axis of the result is, such as [1, 0].
    """

    kind = "transpose"

    def __init__(self, *, axes: Sequence[int]) -> None:
        self._axes = wholes("axes", axes, least=0)
        check(sorted(self._axes) == list(range(len(axes))), "axes", axes, "each axis once")
        super().__init__(axes=list(self._axes))

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing."""
        yield {"axes": [1, 0]}, (4096, 3)
        yield {"axes": [2, 0, 1]}, (40, 41, 3)

    def _plan(self, shape: Shape) -> Shape:
        if len(shape) != len(self._axes):
            raise DataError(
                f"transpose: axes is {self._axes}, a window has shape {list(shape)}; name each of "
                "its axes"
            )
        return tuple(shape[axis] for axis in self._axes)

    def _run(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        np.copyto(out, x.transpose(self._axes), casting="same_kind")


class Reshape(Features):
    """The same numbers in rows of other lengths.

    Parameters
    ----------
    shape
        Of the result, such as [1, 513, 3].
    """

    kind = "reshape"

    def __init__(self, *, shape: Sequence[int]) -> None:
        sizes = wholes("shape", shape)
        super().__init__(shape=sizes)
        self.output_shape = tuple(sizes)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing."""
        yield {"shape": [1, 3, 4096]}, (4096, 3)
        yield {"shape": [1501]}, (1501, 1)

    def _plan(self, shape: Shape) -> Shape:
        made = tuple(self._spec["shape"])
        if math.prod(made) != math.prod(shape):
            raise DataError(
                f"reshape: shape is {list(made)}, a window has {list(shape)}; both must hold as "
                "many numbers"
            )
        return made

    def _run(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        np.copyto(out, x.reshape(out.shape), casting="same_kind")


def _axis(axis: object) -> int:
    check(isinstance(axis, int) and not isinstance(axis, bool), "axis", axis, "a whole number")
    assert isinstance(axis, int)
    return axis


def _of(kind: str, axis: int, shape: Shape) -> int:
    """Return `axis` counted from the first; DataError when a window of `shape` has none such."""
    if not -len(shape) <= axis < len(shape):
        raise DataError(
            f"{kind}: axis is {axis}, a window has shape {list(shape)}; name one of its axes"
        )
    return axis % len(shape)
