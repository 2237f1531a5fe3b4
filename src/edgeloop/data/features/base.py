"""What every kind of feature pipeline does alike: check, plan its buffers, fill an array."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgeloop.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Shape = tuple[int, ...]
Example = tuple[dict[str, Any], Shape]


class Features(ABC):
    """A pipeline: one window in, one model input out, always the same for the same record.

    Buffers are made for the first window's shape (or by :meth:`plan`) and kept: windows of equal
    shape that follow allocate nothing, when `out` is given.

    Attributes
    ----------
    kind
        Its name in a record.
    raw
        The window, or most of it, can be told from the result.
    stateful
        :meth:`observe` moves it; what it learnt is then in :meth:`state`.
    samples
        Length of the clips that it takes, where its record fixes that; None: any window.
    input_shape, output_shape
        Of the windows that it is planned for and of their results; None before the first.
    """

    kind: ClassVar[str]
    raw: bool = True
    stateful: bool = False
    samples: int | None = None
    input_shape: Shape | None = None
    output_shape: Shape | None = None

    def __init__(self, **options: Any) -> None:
        self._spec: dict[str, Any] = {"kind": self.kind, **options}

    @classmethod
    @abstractmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing; the first is 4 KiB or more."""

    @abstractmethod
    def _plan(self, shape: Shape) -> Shape:
        """Make buffers for windows of `shape`; the result's shape, or DataError: it has none."""

    @abstractmethod
    def _run(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Fill `out` from the window `x`, both of the planned shapes."""

    def _observe(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        """As :meth:`_run`, after learning from `x`."""
        self._run(x, out)

    def plan(self, shape: Shape) -> Shape:
        """Make the buffers for windows of `shape` and return the shape of their results.

        Raises
        ------
        DataError
            The record does not fit windows of that shape.
        """
        if shape != self.input_shape or self.output_shape is None:
            if math.prod(shape) == 0:
                raise DataError(f"{self.kind}: a window has shape {list(shape)}; it holds nothing")
            self.input_shape = None  # a plan that fails half-way has to be made again
            with np.errstate(all="ignore"):
                self.output_shape = self._plan(shape)
            self.input_shape = shape
        return self.output_shape

    def __call__(
        self, window: ArrayLike, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Compute the features of one window; nothing is learnt from it.

        Parameters
        ----------
        window
            Numbers of the shape that the record, or else the first window, says.
        out
            Float32 array of the result's shape to fill instead of allocating one; not the window.

        Raises
        ------
        DataError
            Wrong shape, not real numbers, NaN or infinity, or a result beyond float32.
        """
        return self._compute(window, out, learn=False)

    def observe(
        self, window: ArrayLike, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """As a call, after running statistics took the window in; where there are none, a call."""
        return self._compute(window, out, learn=True)

    def _compute(
        self, window: ArrayLike, out: NDArray[np.float32] | None, *, learn: bool
    ) -> NDArray[np.float32]:
        x = self._checked(_array(self.kind, window))
        shape = self.plan(x.shape)
        if out is None:
            out = np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32:
            raise DataError(
                f"{self.kind}: out is {out.dtype} of {list(out.shape)}; pass float32 of "
                f"{list(shape)}"
            )
        # What overflows is caught in the result.
        with np.errstate(all="ignore"):
            (self._observe if learn else self._run)(x, out)
        if not _finite(out):
            raise DataError(
                f"{self.kind}: the result is beyond float32; check the sensor, or scale its samples"
            )
        return out

    def _checked(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the window; DataError when it is not of finite real numbers."""
        if x.dtype.kind not in "fiub":
            raise DataError(f"{self.kind}: samples are {x.dtype}; pass real numbers")
        if x.size and x.dtype.kind == "f" and not _finite(x):
            raise DataError(f"{self.kind}: the window holds NaN or infinity; check the sensor")
        return x

    def batch(self, windows: ArrayLike) -> NDArray[np.float32]:
        """Compute the features of windows [n, ...] -> [n, ...], n of 1 or more."""
        each = _array(self.kind, windows)
        if each.ndim == 0 or len(each) == 0:
            raise DataError(f"{self.kind}: a batch has shape {list(each.shape)}; pass [n, ...]")
        out = np.empty((len(each), *self.plan(each.shape[1:])), np.float32)
        for window, row in zip(each, out, strict=True):
            self(window, out=row)
        return out

    def buffer_bytes(self) -> int:
        """Bytes of the arrays that it holds; what it is planned for, so plan it first."""
        return bytes_held(self)

    def spec(self) -> dict[str, Any]:
        """Return the complete record: JSON types only, with its "kind"."""
        return copy.deepcopy(self._spec)

    def state(self) -> dict[str, Any]:
        """Return what was learnt from windows, as JSON types; {} where there is nothing."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave.

        Raises
        ------
        DataError
            Not a state of a pipeline with this record; nothing has changed then.
        """
        if state:
            raise DataError(f"{self.kind}: learns nothing from windows, yet is given a state; "
                            "load it into the pipeline that it came from")


def bytes_held(holder: object) -> int:
    """Bytes of the arrays that an object's attributes hold, each memory once."""
    arrays = [value for value in vars(holder).values() if isinstance(value, np.ndarray)]
    owners = [each.base if isinstance(each.base, np.ndarray) else each for each in arrays]
    return sum({id(owner): owner.nbytes for owner in owners}.values())


def _finite(x: NDArray[Any]) -> bool:
    # Not a dot product: BLAS would wake its threads, which takes 14 ms on a busy machine.
    return math.isfinite(x.max()) and math.isfinite(x.min())


def _array(kind: str, value: ArrayLike) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{kind}: not an array of numbers ({error}); check the window") from error
