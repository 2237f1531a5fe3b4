"""Mel filters and the energies of frames behind them, shared by log-mel and mfcc."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLANEY_KNEE_HZ = 1000.0  # linear below, 200 / 3 Hz a mel; logarithmic above
SLANEY_KNEE = 15.0
SLANEY_STEP = math.log(6.4) / 27.0


def mel_filters(
    sample_rate: float, fft: int, mels: int, low_hz: float, high_hz: float, *,
    scale: str = "htk", norm: str = "none",
) -> NDArray[np.float64]:
    """Return triangular filters [fft // 2 + 1, mels], corners equally spaced on the mel scale.

    Parameters
    ----------
    scale
        "htk", 2595 log10(1 + f / 700), or "slaney" (Auditory Toolbox 1998).
    norm
        "none", peak 1, or "slaney", each of area 1 over Hz.
    """
    if scale == "htk":
        low, high = (2595.0 * math.log10(1.0 + hz / 700.0) for hz in (low_hz, high_hz))
        corners = 700.0 * (10.0 ** (np.linspace(low, high, mels + 2) / 2595.0) - 1.0)
    else:
        points = np.linspace(_slaney(low_hz), _slaney(high_hz), mels + 2)
        above = SLANEY_KNEE_HZ * np.exp(SLANEY_STEP * (points - SLANEY_KNEE))
        corners = np.where(points < SLANEY_KNEE, points * (200.0 / 3.0), above)
    hz = np.arange(fft // 2 + 1)[:, None] * (sample_rate / fft)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    with np.errstate(all="ignore"):  # corners that coincide make filters of NaN
        rise = (hz - left) / (centre - left)
        fall = (right - hz) / (right - centre)
    filters = np.ascontiguousarray(np.maximum(0.0, np.minimum(rise, fall)))
    empty = np.flatnonzero(~(filters > 0).any(axis=0))
    if empty.size:
        raise DataError(
            f"features: mel filter {int(empty[0])} covers no frequency; use fewer mels or more fft"
        )
    if norm == "slaney":
        filters *= 2.0 / (right - left)
    return filters


def _slaney(hz: float) -> float:
    if hz < SLANEY_KNEE_HZ:
        return hz * 3.0 / 200.0
    return SLANEY_KNEE + math.log(hz / SLANEY_KNEE_HZ) / SLANEY_STEP


class MelBank:
    """Mel energies of tapered frames; work runs in float64 inside buffers made once.

    Parameters
    ----------
    windows
        The frames [frames, n], a view of the clip's buffer.
    taper
        Weights [n].
    fft
        Transform length: frames are padded with zeros to it.
    filters
        As :func:`mel_filters` makes them.
    power
        Exponent of the magnitude: 2 or 1.
    """

    def __init__(
        self, windows: NDArray[np.float64], taper: NDArray[np.float64], fft: int,
        filters: NDArray[np.float64], power: int = 2,
    ) -> None:
        frames, length = windows.shape
        bins, mels = filters.shape
        self._taper, self._filters, self._amplitude = taper, filters, power == 1
        self._padded = np.zeros((frames, fft), np.float64)
        # One row at a time: a broadcast product would allocate in every call.
        self._rows = list(zip(windows, self._padded[:, :length], strict=True))
        self._spectrum = np.empty((frames, bins), np.complex128)
        self._power = np.empty((frames, bins), np.float64)
        self._square = np.empty_like(self._power)
        self.energy = np.empty((frames, mels), np.float64)

    def compute(self) -> NDArray[np.float64]:
        """Return the energies [frames, mels] of what the clip's buffer holds now."""
        for frame, row in self._rows:
            np.multiply(frame, self._taper, out=row)
        np.fft.rfft(self._padded, axis=1, out=self._spectrum)
        np.square(self._spectrum.real, out=self._power)
        np.square(self._spectrum.imag, out=self._square)
        np.add(self._power, self._square, out=self._power)
        if self._amplitude:
            np.sqrt(self._power, out=self._power)
        return np.matmul(self._power, self._filters, out=self.energy)
