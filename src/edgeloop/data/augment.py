"""Augmentation on the fly: shifted, scaled and noisy views of a sample.

View v of item k under a seed is the same wherever and whenever it is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.data.rng import Draw

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Augment:
    """Random changes of a sample; the time axis is the first one.

    Attributes
    ----------
    shift
        Largest move along time, in samples, either way; zeros come in at the end left free.
    gain_db
        Range of the factor, in decibels.
    snr_db
        Range of the ratio of signal power to added noise, in decibels; None adds none.
    """

    shift: int = 0
    gain_db: tuple[float, float] = (0.0, 0.0)
    snr_db: tuple[float, float] | None = None

    def __call__(self, x: NDArray[np.float32], *seed: object) -> NDArray[np.float32]:
        """Return a changed copy of `x`; `seed` (numbers and names) picks the change."""
        draw = Draw(*seed)
        out = np.zeros_like(x)
        # Every draw happens whether used or not: switching one change on leaves the others alone.
        move = draw.below(2 * self.shift + 1) - self.shift
        gain = np.float32(10.0 ** (draw.uniform(*self.gain_db) / 20.0))
        ratio = draw.uniform(*(self.snr_db or (0.0, 0.0)))
        if x.ndim == 0 or abs(move) >= x.shape[0]:
            move = 0
        if move > 0:
            out[move:] = x[:-move]
        elif move < 0:
            out[:move] = x[-move:]
        else:
            out[...] = x
        out *= gain
        if self.snr_db is not None and x.size:
            power = float(np.square(out, dtype=np.float64).mean())
            scale = np.float32(np.sqrt(power * 10.0 ** (-ratio / 10.0)))
            out += scale * draw.noise(x.size).reshape(x.shape)
        return out
