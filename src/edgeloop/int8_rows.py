"""Arrays as int8 with one scale for each row: what device-side rooms keep when they keep little."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_LARGEST_SCALE = np.nextafter(np.finfo(np.float32).max / np.float32(127), np.float32(0))


def to_int8_rows(a: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Round a float32 array [..., n] to 127 steps either way of each row's largest magnitude.

    Returns
    -------
    codes, scales
        int8 [..., n] and float32 [..., 1]; an element is off by half a scale at most. A row of
        zeros has scale 0.
    """
    scale = np.abs(a).max(axis=-1, keepdims=True, initial=0.0) / np.float32(127)
    # A scale that was rounded up must not make the largest float infinite on the way back.
    scale = np.where(np.isfinite(scale), np.minimum(scale, _LARGEST_SCALE), scale)
    with np.errstate(invalid="ignore"):  # a row that is not finite has a scale that is not
        codes = np.clip(np.rint(a / np.where(scale > 0, scale, np.float32(1))), -127, 127)
        return codes.astype(np.int8), scale


def from_int8_rows(codes: NDArray[np.int8], scales: NDArray[Any]) -> Floats:
    """Inverse of :func:`to_int8_rows`: code times scale, one rounding."""
    out: Floats = np.multiply(codes, scales, dtype=np.float32)
    return out
