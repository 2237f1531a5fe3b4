"""Random draws that depend on a seed and on counters only, never on what was drawn before.

Every use names its own stream, so a run resumed in the middle draws what the uninterrupted run
drew. The words are SplitMix64's (Steele, Lea and Flood 2014) and only exact arithmetic follows, so
the draws are the same bits on every machine and under every NumPy. (numpy.random alone would cost
a device 7 MiB.)
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNIT = 2.0**-53
_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15


def unit_of(*parts: object) -> float:
    """Hash the parts to a number in [0, 1): the same parts, the same number."""
    return (_hash(*parts) >> 75) * _UNIT


class Draw:
    """The stream of random numbers named by `parts`, for example ``Draw(seed, "order", epoch)``."""

    def __init__(self, *parts: object) -> None:
        self._start = _hash(*parts) & _MASK
        self._count = 0

    def _words(self, count: int) -> NDArray[np.uint64]:
        """Return the next `count` random words."""
        first = (self._start + (self._count + 1) * _STEP) & _MASK
        self._count += count
        z = np.arange(count, dtype=np.uint64)
        z *= np.uint64(_STEP)
        z += np.uint64(first)
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        return z

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """One number in [low, high)."""
        return low + (high - low) * (float(self._words(1)[0] >> np.uint64(11)) * _UNIT)

    def below(self, n: int) -> int:
        """One whole number in [0, n)."""
        return int(self._words(1)[0]) * n >> 64

    def permutation(self, n: int) -> NDArray[np.intp]:
        """Return the numbers 0..n-1 in random order."""
        return np.argsort(self._words(n), kind="stable")

    def signs(self, rows: int, columns: int) -> NDArray[np.float64]:
        """Random +1 and -1, [rows, columns]."""
        words = self._words(rows * ((columns + 63) // 64)).astype("<u8")
        bits = np.unpackbits(words.view(np.uint8).reshape(rows, -1), axis=1)[:, :columns]
        return bits.astype(np.float64) * 2.0 - 1.0

    def noise(self, n: int) -> NDArray[np.float32]:
        """Bell-shaped noise [n], mean 0, variance 1: each the sum of four 16-bit uniforms."""
        parts = self._words(n).astype("<u8").view("<u2").reshape(n, 4)
        centred = parts.sum(axis=1, dtype=np.int64) - 2 * 65535
        # A uniform on 0..65535 has variance (65536^2 - 1) / 12; four of them, four times that.
        scaled: NDArray[np.float64] = centred * (1.0 / 37837.22705)
        return scaled.astype(np.float32)


def _hash(*parts: object) -> int:
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
