"""Spectra of each channel: Welch's power density, and the magnitudes of one transform."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.data.features.base import Example
from edgeloop.data.features.lanes import TAPERS, Lanes, Level, one_sided, taper
from edgeloop.data.features.options import check, choice, positive, whole
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Psd(Lanes):
    """Power spectral density by Welch's method (1967): [n, channels] -> [fft // 2 + 1, channels].

    Segments of `window` samples, `hop` apart, lose their mean, are weighted by a taper w, padded
    with zeros to `fft` samples and transformed; |X|^2 is averaged over the segments and doubled but
    for 0 Hz and half the sample rate. Equal to ``scipy.signal.welch(x, sample_rate, taper, window,
    window - hop, fft, detrend, scaling=scaling)``.

    Parameters
    ----------
    sample_rate
        Samples per second (Hz).
    window
        Length of a segment, in samples.
    hop
        Distance between segments, in samples; absent: half of `window`.
    fft
        Transform length, in samples; absent: `window`.
    taper
        "hann", "hamming", "blackman" or "boxcar" (none).
    detrend
        "constant" takes each segment's mean away; "none" leaves it.
    scaling
        "density", |X|^2 / (sample_rate sum w^2), unit^2 / Hz; or "spectrum", |X|^2 / (sum w)^2,
        unit^2.
    log
        "none"; "ln", ln(max(p, eps)); or "db", 10 log10(max(p, eps)).
    eps
        Smallest power that counts where `log` is used.
    channels_first
        Windows are [channels, n], not [n, channels].
    """

    kind = "psd"
    raw = False

    def __init__(
        self,
        *,
        sample_rate: float = 16000.0,
        window: int = 1024,
        hop: int | None = None,
        fft: int | None = None,
        taper: str = "hann",
        detrend: str = "constant",
        scaling: str = "density",
        log: str = "none",
        eps: float = 1e-12,
        channels_first: bool = False,
    ) -> None:
        self._rate, self._window = positive("sample_rate", sample_rate), whole("window", window)
        self._hop = max(window // 2, 1) if hop is None else whole("hop", hop)
        self._fft = window if fft is None else whole("fft", fft)
        check(self._window <= self._fft, "window", window, f"at most fft ({fft})")
        self._taper = choice("taper", taper, tuple(TAPERS))
        self._mean = choice("detrend", detrend, ("constant", "none")) == "constant"
        self._density = choice("scaling", scaling, ("density", "spectrum")) == "density"
        self._level = Level(log, eps, 10.0)
        super().__init__(
            sample_rate=self._rate, window=window, hop=self._hop, fft=self._fft, taper=taper,
            detrend=detrend, scaling=scaling, log=log, eps=self._level.eps,
            channels_first=channels_first,
        )

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing."""
        yield {"sample_rate": 25600.0, "log": "db"}, (4096, 3)
        yield {"window": 255, "hop": 100, "scaling": "spectrum", "taper": "hamming"}, (2000,)
        yield {"window": 200, "fft": 256, "detrend": "none", "log": "ln", "channels_first": True}, (
            2, 2000)

    def _count(self, n: int) -> int:
        if n < self._window:
            raise DataError(
                f"psd: a window has {n} samples, fewer than one segment of {self._window}; make "
                "`window` smaller, or the windows longer"
            )
        return self._fft // 2 + 1

    def _prepare(self, n: int) -> None:
        self._starts = range(0, n - self._window + 1, self._hop)
        self._weights = taper(self._taper, self._window)
        norm = self._rate * np.square(self._weights).sum() if self._density else (
            self._weights.sum() ** 2)
        self._scale = 1.0 / (float(norm) * len(self._starts))
        self._frame = np.zeros(self._fft, np.float64)
        self._spectrum = np.zeros(self._fft // 2 + 1, np.complex128)
        self._power = np.zeros(self._fft // 2 + 1, np.float64)

    def _channel(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        frame = self._frame[: self._window]
        y.fill(0.0)
        for start in self._starts:
            segment = x[start : start + self._window]
            mean = float(np.add.reduce(segment)) / len(segment) if self._mean else 0.0
            np.subtract(segment, mean, out=frame)
            np.multiply(frame, self._weights, out=frame)
            np.fft.rfft(self._frame, out=self._spectrum)
            np.square(self._spectrum.real, out=self._power)
            np.add(y, self._power, out=y)
            np.square(self._spectrum.imag, out=self._power)
            np.add(y, self._power, out=y)
        np.multiply(y, self._scale, out=y)
        one_sided(y, self._fft)
        self._level(y)


class Fft(Lanes):
    """Magnitudes of one transform: [n, channels] -> [fft // 2 + 1, channels].

    The window, less its mean, is weighted by a taper w, padded with zeros to `fft` samples and
    transformed; ``|numpy.fft.rfft|`` is left as it is, or scaled by 2 / sum w (1 / sum w at 0 Hz
    and half the sample rate) so that a sine of amplitude a gives a.

    Parameters
    ----------
    fft
        Transform length, in samples; absent: the window's length.
    taper
        "hann", "hamming", "blackman" or "boxcar" (none).
    detrend
        "constant" takes the window's mean away; "none" leaves it.
    scaling
        "amplitude", the window's unit, or "none".
    log
        "none"; "ln", ln(max(a, eps)); or "db", 20 log10(max(a, eps)).
    eps
        Smallest magnitude that counts where `log` is used.
    channels_first
        Windows are [channels, n], not [n, channels].
    """

    kind = "fft"
    raw = False

    def __init__(
        self,
        *,
        fft: int | None = None,
        taper: str = "hann",
        detrend: str = "constant",
        scaling: str = "amplitude",
        log: str = "none",
        eps: float = 1e-12,
        channels_first: bool = False,
    ) -> None:
        self._fft = None if fft is None else whole("fft", fft)
        self._taper = choice("taper", taper, tuple(TAPERS))
        self._mean = choice("detrend", detrend, ("constant", "none")) == "constant"
        self._amplitude = choice("scaling", scaling, ("amplitude", "none")) == "amplitude"
        self._level = Level(log, eps, 20.0)
        super().__init__(
            fft=self._fft, taper=taper, detrend=detrend, scaling=scaling, log=log,
            eps=self._level.eps, channels_first=channels_first,
        )

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing."""
        yield {"log": "db"}, (4096, 3)
        yield {"fft": 2048, "scaling": "none", "taper": "boxcar", "detrend": "none"}, (1501,)
        yield {"taper": "blackman", "log": "ln", "channels_first": True}, (2, 1501)

    def _count(self, n: int) -> int:
        fft = self._fft or n
        if n > fft:
            raise DataError(
                f"fft: a window has {n} samples, more than fft ({fft}); make fft larger"
            )
        return fft // 2 + 1

    def _prepare(self, n: int) -> None:
        self._weights = taper(self._taper, n)
        self._scale = 1.0 / float(self._weights.sum())
        self._frame = np.zeros(self._fft or n, np.float64)
        self._spectrum = np.zeros(len(self._frame) // 2 + 1, np.complex128)

    def _channel(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        frame = self._frame[: len(x)]
        mean = float(np.add.reduce(x)) / len(x) if self._mean else 0.0
        np.subtract(x, mean, out=frame)
        np.multiply(frame, self._weights, out=frame)
        np.fft.rfft(self._frame, out=self._spectrum)
        np.abs(self._spectrum, out=y)
        if self._amplitude:
            np.multiply(y, self._scale, out=y)
            one_sided(y, len(self._frame))
        self._level(y)
