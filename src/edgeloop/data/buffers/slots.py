"""Room for samples, allocated once, as f32, f16 or int8."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgeloop.data.buffers.sketch import Sketch
    from edgeloop.data.item import Label

STORAGES = ("f32", "f16", "int8")
_DTYPES = {"f32": "<f4", "f16": "<f2", "int8": "|i1"}
_LARGEST_F16 = 65504.0
_BESIDE = 8 + 4 + 1  # class, loss, whether in use


class Slots:
    """Room for `capacity` samples, allocated once; remembers which slots changed.

    Parameters
    ----------
    shape
        Of a sample, its views in front where it has any.
    storage
        "f32": as given. "f16": rounded half to even, cut off at 65504. "int8": rounded half to
        even to 127 steps of the sample's largest magnitude, one f32 scale a sample.
    sketch
        Makes a signature of each sample's first view; None: there are none.

    Attributes
    ----------
    x
        Samples as they are stored, [capacity, *shape]; of slots not in use anything.
    scale
        int8 only, [capacity].
    loss
        Of the live version on each sample; NaN: not known.
    """

    def __init__(
        self, capacity: int, shape: Sequence[int], *, storage: str = "f32",
        sketch: Sketch | None = None,
    ) -> None:
        self.capacity, self.storage = capacity, storage
        self.x: NDArray[Any] = np.zeros((capacity, *shape), _DTYPES[storage])
        self.scale = np.zeros(capacity if storage == "int8" else 0, np.float32)
        self.y: list[Label] = [0] * capacity
        self.key: list[str] = [""] * capacity
        self.loss = np.full(capacity, np.nan, np.float32)
        self.changed: set[int] = set()
        self._classes = np.zeros(capacity, np.int64)
        self._used = np.zeros(capacity, bool)
        self._sketch = sketch
        # Columns, so that distances are sums of rows: the same bits on every machine.
        self._signatures = np.zeros((0 if sketch is None else sketch.width, capacity), np.float32)
        self._work = np.zeros(0 if storage == "f32" else math.prod(shape), np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; labels and keys are Python objects beside them."""
        held = (self.x, self.scale, self.loss, self._classes, self._used, self._signatures)
        return sum(a.nbytes for a in held) + self._work.nbytes

    def put(self, slot: int, x: NDArray[np.float32], y: Label, key: str) -> None:
        """Overwrite one slot, rounding as the storage does."""
        if self.storage == "f32":
            self.x[slot] = x
        else:
            self._round(slot, x)
        self._note(slot, y, key)
        if self._sketch is not None:
            self._sketch(self._first(slot), self._signatures[:, slot])

    def copy(self, slot: int, other: Slots, theirs: int) -> None:
        """Overwrite one slot by another memory's, bit for bit where both store alike."""
        if other.storage != self.storage:
            self.put(slot, other.view(theirs), other.y[theirs], other.key[theirs])
        else:
            self.x[slot] = other.x[theirs]
            self.scale[slot : slot + 1] = other.scale[theirs : theirs + 1]
            self._note(slot, other.y[theirs], other.key[theirs])
            if self._sketch is not None:
                self._signatures[:, slot] = other._signatures[:, theirs]
        self.loss[slot] = other.loss[theirs]

    def read(self, slot: int, out: NDArray[np.float32], view: int | None = None) -> None:
        """Write a sample, or one view of it, into `out` as float32."""
        x = self.x[slot] if view is None else self.x[slot, view]
        if self.storage == "int8":
            np.multiply(x, self.scale[slot], out=out, dtype=np.float32)
        else:
            out[...] = x

    def view(self, slot: int, view: int | None = None) -> NDArray[np.float32]:
        """Return a sample, or one view of it, as float32: the held one, or a copy if narrower."""
        x: NDArray[Any] = self.x[slot] if view is None else self.x[slot, view]
        if self.storage == "f32":
            return x
        out = np.empty(x.shape, np.float32)
        self.read(slot, out, view)
        return out

    def first(self, count: int) -> NDArray[np.float32]:
        """Return the samples of the first `count` slots as float32: those held, or a copy."""
        if self.storage == "f32":
            return self.x[:count]
        out = np.empty((count, *self.x.shape[1:]), np.float32)
        for slot in range(count):
            self.read(slot, out[slot])
        return out

    def stored(self, slot: int) -> NDArray[Any]:
        """Return one array that holds a sample as it is stored, for :meth:`restore`."""
        held: NDArray[Any] = self.x[slot]
        if self.storage != "int8":
            return held
        scale = self.scale[slot : slot + 1].astype("<f4")
        return np.concatenate([scale.view(np.uint8), held.reshape(-1).view(np.uint8)])

    def restore(self, slot: int, stored: NDArray[Any], y: Label, key: str) -> None:
        """Overwrite one slot by what :meth:`stored` gave, bit for bit."""
        if self.storage == "int8":
            self.scale[slot] = stored[:4].view("<f4")[0]
            self.x[slot] = stored[4:].view(np.int8).reshape(self.x.shape[1:])
        else:
            self.x[slot] = stored
        self._note(slot, y, key)
        if self._sketch is not None:
            self._sketch(self._first(slot), self._signatures[:, slot])

    def nearest(self, signature: NDArray[np.float32], y: Label) -> tuple[float, int]:
        """Distance to the nearest signature of the same class, and its slot; (inf, -1): none."""
        return self._nearest(signature, self._of_class(y))

    def nearest_other(self, slot: int) -> tuple[float, int]:
        """As :meth:`nearest`, from a held sample to the others."""
        alike = self._of_class(self.y[slot])
        return self._nearest(self._signatures[:, slot], alike[alike != slot])

    def holds_like(
        self, x: NDArray[np.float32], signature: NDArray[np.float32], y: Label, relative: float
    ) -> bool:
        """Whether a sample of the same class is within `relative` times the length of x [*shape].

        Signatures of samples that near are less than twice as far apart (above that: a chi-square
        of 32 degrees above 128, odds of 1e-13, where many numbers differ); those are compared in
        full.
        """
        assert self._sketch is not None
        bound = (relative * self._sketch.length(x)) ** 2
        for slots, squares in self._sketch.squares(
                self._signatures, signature, self._of_class(y)):
            for slot in slots[squares <= 4.0 * bound]:
                if self._sketch.square(x, self._first(int(slot))) <= bound:
                    return True
        return False

    def _of_class(self, y: Label) -> NDArray[np.intp]:
        """Slots that hold samples of the class of `y`, ascending."""
        alike: NDArray[np.bool_] = (self._classes == class_of(y)) & self._used
        return alike.nonzero()[0]

    def _nearest(
        self, signature: NDArray[np.float32], which: NDArray[np.intp]
    ) -> tuple[float, int]:
        assert self._sketch is not None
        best, slot = math.inf, -1
        for slots, squares in self._sketch.squares(self._signatures, signature, which):
            at = int(squares.argmin())
            if squares[at] < best:
                best, slot = float(squares[at]), int(slots[at])
        return math.sqrt(best), slot

    def _first(self, slot: int) -> NDArray[np.float32]:
        """First view of a sample, flat, as float32; valid until the next call."""
        assert self._sketch is not None
        flat: NDArray[Any] = self.x[slot].reshape(-1)[: self._sketch.size]
        if self.storage == "f32":
            return flat
        out = self._work[: self._sketch.size]
        if self.storage == "int8":
            np.multiply(flat, self.scale[slot], out=out, dtype=np.float32)
        else:
            out[...] = flat
        return out

    def _note(self, slot: int, y: Label, key: str) -> None:
        self.y[slot], self.key[slot] = y, key
        self._classes[slot] = class_of(y)
        self._used[slot] = True
        self.loss[slot] = np.nan
        self.changed.add(slot)

    def _round(self, slot: int, x: NDArray[np.float32]) -> None:
        work = self._work.reshape(self.x.shape[1:])
        if self.storage == "f16":
            np.clip(x, -_LARGEST_F16, _LARGEST_F16, out=work)
        else:
            np.abs(x, out=work)
            # Not below the smallest normal number: a step of that keeps every code within 127.
            step = max(np.float32(work.max(initial=0.0)) / np.float32(127.0),
                       np.finfo(np.float32).tiny)
            self.scale[slot] = step
            np.divide(x, step, out=work)
            np.rint(work, out=work)
        self.x[slot] = work


def decoded(stored: NDArray[Any]) -> NDArray[np.float32]:
    """Return what :meth:`Slots.stored` gave as float32, whatever the storage; int8 flat."""
    if stored.dtype == np.uint8:
        flat: NDArray[np.float32] = stored[4:].view(np.int8) * stored[:4].view("<f4")
        return flat
    return stored.astype(np.float32, copy=False)


def slots_bytes(capacity: int, shape: Sequence[int], storage: str, signature: int) -> int:
    """Bytes that :class:`Slots` allocates; `signature`: numbers in each (0: there are none)."""
    size = math.prod(shape)
    each = size * np.dtype(_DTYPES[storage]).itemsize + 4 * (storage == "int8")
    return capacity * (each + _BESIDE + 4 * signature) + 4 * size * (storage != "f32")


def class_of(y: Label) -> int:
    """Class number of a label; every float target is class 0."""
    return y if isinstance(y, int) else 0
