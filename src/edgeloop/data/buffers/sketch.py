"""Signatures: a few numbers that tell how far apart two samples are, and what is novel by them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.data.rng import Draw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from edgeloop.data.buffers.slots import Slots
    from edgeloop.data.item import Label

WIDTH = 32
UNSEEN = 10.0  # novelty of a class of which nothing is held
_BLOCK = 64  # slots compared at a time
_PROBES = 64  # held samples whose nearest neighbours give the typical distance


class Sketch:
    """A random projection to 32 numbers that keeps distances (feature hashing).

    The numbers of a sample are put into a random order, given random signs and added up into 32
    sums (Weinberger et al. 2009; a sparse Johnson-Lindenstrauss projection, one sign a number
    instead of 32). The squared distance of two signatures is that of the samples on average, with
    a standard deviation of about a quarter of it where many numbers differ. Samples of up to 32
    numbers keep their distances, but for rounding.

    Parameters
    ----------
    size
        Numbers in a sample (one view).
    """

    def __init__(self, size: int, *, seed: int) -> None:
        draw = Draw(seed, "sketch")
        self.size, self.width = size, min(size, WIDTH)
        self._order = draw.permutation(size)
        self._signs = draw.signs(1, size)[0].astype(np.float32)
        self._sums = np.zeros((-(-size // self.width), self.width), np.float32)
        self._difference = np.zeros((self.width, _BLOCK), np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        held = (self._order, self._signs, self._sums, self._difference)
        return sum(a.nbytes for a in held)

    def __call__(self, x: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Write the signature of x (any shape, `size` numbers) into `out` [width]."""
        flat = self._sums.reshape(-1)[: self.size]
        np.take(x.reshape(-1), self._order, out=flat, mode="clip")
        np.multiply(flat, self._signs, out=flat)
        np.add.reduce(self._sums, axis=0, out=out)

    def length(self, x: NDArray[np.float32]) -> float:
        """Euclidean length of x."""
        flat = self._sums.reshape(-1)[: self.size]
        np.square(x.reshape(-1), out=flat)
        return math.sqrt(flat.sum())

    def square(self, x: NDArray[np.float32], other: NDArray[np.float32]) -> float:
        """Squared distance of two samples."""
        flat = self._sums.reshape(-1)[: self.size]
        np.subtract(x.reshape(-1), other, out=flat)
        np.square(flat, out=flat)
        return float(flat.sum())

    def squares(
        self, signatures: NDArray[np.float32], signature: NDArray[np.float32],
        which: NDArray[np.intp],
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Yield squared distances of a signature [width] to some of many [width, n], in blocks.

        `which`: columns; each block comes with its own.
        """
        for begin in range(0, len(which), _BLOCK):
            columns = which[begin : begin + _BLOCK]
            difference = self._difference.reshape(-1)[: self.width * len(columns)]
            difference = difference.reshape(self.width, -1)
            np.take(signatures, columns, axis=1, out=difference, mode="clip")
            np.subtract(difference, signature[:, np.newaxis], out=difference)
            np.square(difference, out=difference)
            yield columns, np.add.reduce(difference, axis=0)


def sketch_bytes(size: int) -> int:
    """Bytes that a :class:`Sketch` allocates."""
    width = min(size, WIDTH)
    return size * (np.dtype(np.intp).itemsize + 4) + 4 * width * (-(-size // width) + _BLOCK)


class Novelty:
    """How far a sample is from what is held, in typical distances.

    The distance to the nearest held sample of its class, over the median of the same distance among
    (up to 64 of) the held samples themselves. A class of which nothing is held counts 10.

    Attributes
    ----------
    typical
        That median; 0: not known, and every sample of a held class counts 1.
    """

    def __init__(self) -> None:
        self.typical = 0.0

    def __call__(self, signature: NDArray[np.float32], y: Label, held: Slots) -> float:
        """Novelty of a sample by its signature, at least 0."""
        distance, slot = held.nearest(signature, y)
        if slot < 0:
            return UNSEEN
        if distance == 0.0:
            return 0.0
        return distance / self.typical if self.typical else 1.0

    def refresh(self, held: Slots, slots: list[int]) -> None:
        """Measure the typical distance among the samples in `slots`."""
        distances = []
        for slot in slots[:: -(-len(slots) // _PROBES) or 1]:
            distance, other = held.nearest_other(slot)
            if other >= 0:
                distances.append(distance)
        self.typical = sorted(distances)[len(distances) // 2] if distances else 0.0
