"""What flows through the loop: items, late labels, and the protocol of the sources of both."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgeloop.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

Label = int | np.ndarray
TICK = 1.0  # seconds of silence after which a live source lets the loop look at the time


@dataclass(frozen=True, slots=True)
class Item:
    """One thing the device sensed.

    Attributes
    ----------
    x
        Raw samples, float32, any shape; every one finite.
    y
        Class number, float32 target, or None when nobody said.
    key
        Names the item in its stream: equal keys, equal item.
    meta
        Further fields of the record; the privacy filters empty this unless told otherwise.
    time
        Seconds of the sensor's clock at the first sample; None: the record does not say.
    """

    x: NDArray[np.float32]
    y: Label | None
    key: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    time: float | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """A label that arrives later than what it is about.

    Attributes
    ----------
    y
        As of :class:`Item`.
    key, time
        Names the item, or a moment (seconds of the sensor's clock) inside it; one of them is given.
    """

    y: Label
    key: str | None = None
    time: float | None = None


class Source(Protocol):
    """A stream of items. Bad records are yielded as errors, so that a stream survives them."""

    name: str
    replayable: bool  # items(start) gives the same items again, in another process too

    def items(self, start: int = 0) -> Iterator[Item | DataError | None]:
        """Yield what the source holds, leaving out the first `start` (bad records count too).

        A live one may yield None where nothing came for :data:`TICK`; that counts as no record.
        """
        ...


class Feed(Protocol):
    """A stream as it comes, with labels that arrive later among its items; else as a Source."""

    name: str
    replayable: bool

    def items(self, start: int = 0) -> Iterator[Item | Feedback | DataError | None]:
        """Yield what arrives, leaving out the first `start` records; None as a Source does."""
        ...


class Labels:
    """Turns what a record says about its class into a class number or a float target.

    Parameters
    ----------
    classes
        Names by number, or None when the program does not name its classes.
    count
        Number of classes; None: as many as there are names, or any.
    values
        Shape of a float32 target, for losses that compare numbers (mse, bce); None: classes.
    """

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        *,
        count: int | None = None,
        values: Sequence[int] | None = None,
    ) -> None:
        self._number = {name: i for i, name in enumerate(classes or ())}
        self._count = count or len(self._number) or 1 << 31
        self._values = None if values is None else tuple(values)

    def parse(self, value: Any, where: str) -> Label | None:
        """Return the label that `value` means; `where` names it in the error."""
        if value is None or (isinstance(value, str) and value == ""):
            return None
        if self._values is not None:
            target = as_floats(value, where)
            if target.size != math.prod(self._values):
                raise DataError(
                    f"{where}: target has shape {list(target.shape)}; the program's loss takes "
                    f"{list(self._values)}",
                    "target has another shape than the program's loss takes",
                )
            return target.reshape(self._values)
        if isinstance(value, str) and value in self._number:
            return self._number[value]
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = -1.0
        if not number.is_integer() or not 0 <= number < self._count:
            known = ", ".join(self._number) or f"whole numbers from 0 to {self._count - 1}"
            raise DataError(f"{where}: label {value!r} is not a class; the classes are {known}",
                            f"label is not a class; the classes are {known}")
        return int(number)


def as_floats(value: ArrayLike, where: str) -> NDArray[np.float32]:
    """Return `value` as float32; DataError naming `where` and the place of the first bad number."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: not an array of numbers ({error}); check the record",
                        "not an array of numbers") from error
    with np.errstate(over="ignore"):
        floats = array.astype(np.float32, copy=False)
    if not np.isfinite(floats).all():
        place = np.argwhere(~np.isfinite(floats))[0].tolist()
        column = f"at {place}" if place else "value"
        raise DataError(
            f"{where}: {column} is {array[tuple(place)]}, not a finite float32; repair the record, "
            'or set source.on_bad = "skip" to leave such records out',
            "holds a number that is no finite float32",
        )
    return floats
