"""Envelope spectra: the rhythm of the impacts that a worn bearing makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.data.features.base import Example
from edgeloop.data.features.lanes import TAPERS, Lanes, Level, one_sided, taper
from edgeloop.data.features.options import band, choice, positive
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Envelope(Lanes):
    """Spectrum of the envelope of a band: [n, channels] -> [n // 2 + 1, channels].

    What lies outside of `low_hz` to `high_hz` is set to 0 in the window's transform; the envelope
    is the magnitude of the analytic signal of the rest (``abs(scipy.signal.hilbert(band))``); less
    its mean and weighted by a taper w it is transformed, and |X| 2 / sum w says by how much the
    envelope swings at k sample_rate / n Hz. A fault of a bearing shows there at its own frequency
    (Randall and Antoni 2011).

    Parameters
    ----------
    sample_rate
        Samples per second (Hz).
    low_hz, high_hz
        Edges of the band, both inside it (Hz): where the structure rings.
    taper
        "hann", "hamming", "blackman" or "boxcar" (none), for the envelope's transform.
    log
        "none"; "ln", ln(max(a, eps)); or "db", 20 log10(max(a, eps)).
    eps
        Smallest magnitude that counts where `log` is used.
    channels_first
        Windows are [channels, n], not [n, channels].
    """

    kind = "envelope"
    raw = False

    def __init__(
        self,
        *,
        sample_rate: float = 16000.0,
        low_hz: float = 2000.0,
        high_hz: float = 6000.0,
        taper: str = "hann",
        log: str = "none",
        eps: float = 1e-12,
        channels_first: bool = False,
    ) -> None:
        self._rate = positive("sample_rate", sample_rate)
        self._low, self._high = band(low_hz, high_hz, self._rate)
        self._taper = choice("taper", taper, tuple(TAPERS))
        self._level = Level(log, eps, 20.0)
        super().__init__(
            sample_rate=self._rate, low_hz=self._low, high_hz=self._high, taper=taper, log=log,
            eps=self._level.eps, channels_first=channels_first,
        )

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing."""
        yield {"sample_rate": 25600.0, "high_hz": 8000.0}, (4096, 3)
        yield {"low_hz": 0.0, "high_hz": 8000.0, "log": "db"}, (1600,)
        yield {"taper": "boxcar", "log": "ln", "channels_first": True}, (2, 1501)

    def _count(self, n: int) -> int:
        hz = np.arange(n // 2 + 1) * (self._rate / n)
        if not ((hz >= self._low) & (hz <= self._high)).any():
            raise DataError(
                f"envelope: no bin of a window of {n} samples lies between {self._low} and "
                f"{self._high} Hz; make the band wider, or the windows longer"
            )
        return n // 2 + 1

    def _prepare(self, n: int) -> None:
        bins = n // 2 + 1
        hz = np.arange(bins) * (self._rate / n)
        # 2 inside the band makes the inverse of the positive half the analytic signal.
        self._mask = np.where((hz >= self._low) & (hz <= self._high), 1.0, 0.0)
        one_sided(self._mask, n)
        self._weights = taper(self._taper, n)
        self._scale = 1.0 / float(self._weights.sum())
        self._half = np.zeros(bins, np.complex128)
        self._whole = np.zeros(n, np.complex128)  # its negative half stays 0
        self._analytic = np.zeros(n, np.complex128)

    def _channel(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        half, positive_half = self._half, self._whole[: len(self._half)]
        np.fft.rfft(x, out=half)
        np.multiply(half.real, self._mask, out=positive_half.real)
        np.multiply(half.imag, self._mask, out=positive_half.imag)
        np.fft.ifft(self._whole, out=self._analytic)
        np.abs(self._analytic, out=x)
        np.subtract(x, float(np.add.reduce(x)) / len(x), out=x)
        np.multiply(x, self._weights, out=x)
        np.fft.rfft(x, out=half)
        np.abs(half, out=y)
        np.multiply(y, self._scale, out=y)
        one_sided(y, len(x))
        self._level(y)
