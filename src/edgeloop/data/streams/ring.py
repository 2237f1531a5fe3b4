"""Where samples wait between a sensor that does not wait and a loop that is sometimes busy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(slots=True)
class Chunk:
    """What one `read` gave: rows of one block. One object for each ring, filled anew every time.

    Attributes
    ----------
    first, count
        Number of the first row among all that were ever written, and how many there are.
    stamp, at
        Seconds that the newest stamped block since the last read carried, and the number of its
        first row; None where there was none.
    broken
        The samples before it were lost or never sensed: these do not join the ones read before.
    note
        What was written with the block.
    """

    first: int = 0
    count: int = 0
    stamp: float | None = None
    at: int = 0
    broken: bool = False
    note: Any = None


class SampleRing:
    """A ring of samples for one producer and one consumer thread; nobody ever waits for the other.

    When it is full the oldest samples go. The producer says what it is about to overwrite before
    it does so; the consumer copies first and looks afterwards whether what it copied still stood
    (a sequence lock). The time line is a row number and a stamp for each block; a stamp later than
    the samples since the last one account for means that samples are missing.

    Parameters
    ----------
    capacity, channels
        Samples held at most, and numbers in each.
    rate
        Samples a second, by which stamps are judged.
    tolerance
        Half sample periods that two stamps may be off against each other.
    drift
        Relative error of the sensor's clock that is no gap either (2e-4: 200 ppm).

    Attributes
    ----------
    overruns
        Samples that were dropped because the ring was full, as far as the consumer has come.
    missing
        Samples that were never written, by the stamps.
    """

    def __init__(
        self,
        capacity: int,
        channels: int,
        *,
        rate: float,
        tolerance: float = 1.0,
        drift: float = 2e-4,
    ) -> None:
        if capacity < 1 or channels < 1 or not rate > 0:
            raise ConfigError(
                f"ring of {capacity} samples of {channels} channels at {rate} Hz: each must be "
                "above 0"
            )
        self.overruns = self.missing = 0
        self._rate, self._tolerance, self._drift = rate, tolerance, drift
        self._x = np.zeros((capacity, channels), np.float32)
        blocks = capacity // 16 + 64  # many small blocks must not need more room than samples
        self._at = np.zeros(blocks, np.int64)
        self._stamp = np.zeros(blocks, np.float64)
        self._broken = np.zeros(blocks, np.bool_)
        self._notes: list[Any] = [None] * blocks
        # The producer's: everything below *_head stands, all that lies a capacity below *_limit
        # may be half overwritten.
        self._head = self._limit = self._block_head = self._block_limit = 0
        self._last: tuple[int, float] | None = None
        self._cut = False
        # The consumer's
        self._tail = self._block = 0
        self._chunk = Chunk()
        self._lost = False

    @property
    def channels(self) -> int:
        """Numbers in a sample."""
        return int(self._x.shape[1])

    @property
    def written(self) -> int:
        """Samples written so far."""
        return self._head

    @property
    def taken(self) -> int:
        """Samples read or lost so far."""
        return self._tail

    # The producer's side

    def write(
        self, block: NDArray[np.float32], time: float | None = None, note: Any = None
    ) -> None:
        """Append `block` [n, channels] whose first sample was sensed at `time` (seconds)."""
        n, capacity, blocks = len(block), len(self._x), len(self._at)
        if n == 0:
            return
        head, place = self._head, self._block_head % blocks
        self._block_limit = self._block_head + 1
        self._at[place] = head
        self._stamp[place] = math.nan if time is None else time
        self._broken[place] = self._breaks(head, time) or self._cut
        self._notes[place] = note
        self._cut = False
        self._limit = head + n
        kept = min(n, capacity)
        begin = (head + n - kept) % capacity
        one = min(kept, capacity - begin)
        self._x[begin : begin + one] = block[n - kept : n - kept + one]
        self._x[: kept - one] = block[n - kept + one :]
        self._block_head += 1
        self._head = head + n

    def cut(self) -> None:
        """Say that what is written next does not follow what was written last."""
        self._cut = True

    def _breaks(self, index: int, time: float | None) -> bool:
        """Compare a stamp with the last one; counts what is missing between them."""
        if time is None:
            return False
        last, self._last = self._last, (index, time)
        if last is None:
            return False
        rows = index - last[0]
        late = (time - last[1]) * self._rate - rows  # in samples
        rounding = 4 * math.ulp(time) * self._rate
        if abs(late) <= self._tolerance / 2 + self._drift * rows + rounding:
            return False
        if late > 0:
            self.missing += max(1, round(late))
        return True

    # The consumer's side

    def read(self, out: NDArray[np.float32]) -> Chunk | None:
        """Copy the next rows of one block into `out` [n, channels]; None when none wait.

        The chunk is valid until the next call.
        """
        chunk = self._chunk
        while True:
            head, written = self._head, self._block_head  # samples before blocks: see write()
            self._skip(max(0, self._limit - len(self._x) - self._tail))
            if self._tail >= head:
                return None
            if not self._locate(chunk, written):
                continue
            end = min(head, self._tail + len(out))
            if self._block < written:
                end = min(end, int(self._at[self._block % len(self._at)]))
            chunk.first, chunk.count = self._tail, end - self._tail
            self._copy(out, self._tail, chunk.count)
            if self._overwritten():
                continue
            self._tail = end
            chunk.broken |= self._lost
            self._lost = False
            return chunk

    def _locate(self, chunk: Chunk, written: int) -> bool:
        """Go on to the block that holds the next row; False when it was overwritten meanwhile."""
        blocks = len(self._at)
        if self._block < self._block_limit - blocks:
            # More blocks than the ring can name: their samples go as if they had been overwritten.
            self._block = self._block_limit - blocks
            self._skip(max(0, int(self._at[self._block % blocks]) - self._tail))
            return False
        chunk.stamp, chunk.broken = None, False
        block = self._block
        while block < written and self._at[block % blocks] <= self._tail:
            place = block % blocks
            stamp = float(self._stamp[place])
            if not math.isnan(stamp):
                chunk.stamp, chunk.at = stamp, int(self._at[place])
            chunk.broken |= bool(self._broken[place])
            chunk.note = self._notes[place]
            block += 1
        if self._block < self._block_limit - blocks:
            return False
        self._lost |= chunk.broken  # stays true, should the rows have to be read again
        self._block = block
        return True

    def _copy(self, out: NDArray[np.float32], first: int, count: int) -> None:
        begin = first % len(self._x)
        one = min(count, len(self._x) - begin)
        out[:one] = self._x[begin : begin + one]
        out[one:count] = self._x[: count - one]

    def _overwritten(self) -> bool:
        """Whether the next row, or its block, may have changed while it was copied."""
        return (
            self._limit - len(self._x) > self._tail
            or self._block_limit - len(self._at) > self._block
        )

    def _skip(self, rows: int) -> None:
        if rows:
            self._tail += rows
            self.overruns += rows
            self._lost = True
