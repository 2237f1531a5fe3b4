"""Mel-frequency cepstral coefficients, as librosa.feature.mfcc defines them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.features.base import Example
from edgeloop.data.features.log_mel import Clips
from edgeloop.data.features.mel import MelBank, mel_filters
from edgeloop.data.features.options import band, check, choice, flag, positive, real, whole

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Mfcc(Clips):
    """Cepstral coefficients of an audio clip: float32 [samples] -> float32 [1, frames, count].

    Frames of `fft` samples, `hop` apart, are weighted by a periodic Hann window of `window` samples
    in their middle and transformed; |spectrum| ** `power` goes through triangular mel filters; the
    level is ``10 log10(max(energy, eps))`` in dB, and the orthonormal DCT-II of each frame's levels
    gives its coefficients, of which the first `coefficients` are kept. Equal to the transpose of
    ``librosa.feature.mfcc(y, sr=sample_rate, n_mfcc=coefficients, n_fft=fft, win_length=window,
    hop_length=hop, n_mels=mels, fmin=low_hz, fmax=high_hz, htk=scale == "htk", norm="slaney" or
    None, power=power, center=centre, lifter=lifter)`` but for `top_db`, which librosa sets to 80.

    Parameters
    ----------
    sample_rate
        Samples per second (Hz).
    samples
        Length of a clip, in samples.
    window, hop, fft
        Length of the Hann window, distance between frames, and length of a frame, in samples.
    mels
        Number of mel filters.
    coefficients
        Number of coefficients kept, at most `mels`.
    low_hz, high_hz
        Lower edge of the lowest filter and upper edge of the highest (Hz).
    scale
        Of the mel filters: "htk", 2595 log10(1 + f / 700), or "slaney", linear below 1 kHz.
    norm
        Height of the filters: "none", peak 1, or "slaney", area 1 over Hz.
    power
        2 for energies, 1 for magnitudes.
    centre
        Frame k is centred at sample k * `hop`, with zeros around the clip; false: it starts there.
    eps
        Smallest energy that counts: a noise floor.
    top_db
        Levels further below the clip's highest than this (dB) are raised to it; absent: they stay.
    lifter
        Coefficient k is multiplied by ``1 + lifter / 2 sin(pi (k + 1) / lifter)``; 0: it is not.
    """

    kind = "mfcc"
    raw = False

    def __init__(
        self,
        *,
        sample_rate: int = 16000,
        samples: int = 16000,
        window: int = 640,
        hop: int = 320,
        fft: int = 1024,
        mels: int = 40,
        coefficients: int = 13,
        low_hz: float = 20.0,
        high_hz: float = 7600.0,
        scale: str = "htk",
        norm: str = "none",
        power: int = 2,
        centre: bool = False,
        eps: float = 1e-10,
        top_db: float | None = None,
        lifter: float = 0.0,
    ) -> None:
        for name, value in (
            ("sample_rate", sample_rate),
            ("samples", samples),
            ("window", window),
            ("hop", hop),
            ("fft", fft),
            ("mels", mels),
            ("coefficients", coefficients),
            ("power", power),
        ):
            whole(name, value)
        check(window <= fft, "window", window, f"at most fft ({fft})")
        if not flag("centre", centre):
            check(fft <= samples, "fft", fft, f"at most samples ({samples}) unless centre is true")
        check(coefficients <= mels, "coefficients", coefficients, f"at most mels ({mels})")
        check(power in (1, 2), "power", power, "1 or 2")
        low, high = band(low_hz, high_hz, sample_rate)
        check(real("lifter", lifter) >= 1 or lifter == 0, "lifter", lifter, "0, or 1 or more")
        self._eps = positive("eps", eps)
        self._top = None if top_db is None else positive("top_db", top_db)
        super().__init__(
            sample_rate=sample_rate, samples=samples, window=window, hop=hop, fft=fft, mels=mels,
            coefficients=coefficients, low_hz=low, high_hz=high,
            scale=choice("scale", scale, ("htk", "slaney")),
            norm=choice("norm", norm, ("none", "slaney")),
            power=power, centre=centre, eps=self._eps, top_db=self._top, lifter=float(lifter),
        )
        edge = fft // 2 if centre else 0
        self.samples = samples
        padded = np.zeros(samples + 2 * edge, np.float64)
        self._clip = padded[edge : edge + samples]
        before = (fft - window) // 2
        windows = np.lib.stride_tricks.sliding_window_view(padded, fft)[::hop]
        # Zeros of the taper are left out: only the phase changes, and the power has none.
        windows = windows[:, before : before + window]
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        filters = mel_filters(sample_rate, fft, mels, low, high, scale=scale, norm=norm)
        self._bank = MelBank(windows, hann, fft, filters, power)
        self._basis = _dct(mels, coefficients)
        if lifter:
            rise = np.sin(np.pi * np.arange(1, coefficients + 1) / lifter)
            self._basis *= 1 + lifter / 2 * rise
        self._cepstrum = np.empty((len(windows), coefficients), np.float64)
        self.input_shape, self.output_shape = (samples,), (1, len(windows), coefficients)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing."""
        yield {}, (16000,)
        yield {
            "samples": 4001, "window": 400, "hop": 160, "fft": 512, "scale": "slaney",
            "norm": "slaney", "power": 1, "centre": True, "top_db": 60.0, "lifter": 22.0,
        }, (4001,)

    def _run(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        np.copyto(self._clip, x)
        level = self._bank.compute()
        np.maximum(level, self._eps, out=level)
        np.log10(level, out=level)
        np.multiply(level, 10.0, out=level)
        if self._top is not None:
            np.maximum(level, float(level.max()) - self._top, out=level)
        np.matmul(level, self._basis, out=self._cepstrum)
        out[0] = self._cepstrum


def _dct(count: int, kept: int) -> NDArray[np.float64]:
    """Return the orthonormal DCT-II of `count` numbers as a matrix [count, kept]."""
    n, k = np.arange(count)[:, None], np.arange(kept)
    basis: NDArray[np.float64] = np.cos(np.pi / count * (n + 0.5) * k) * math.sqrt(2.0 / count)
    basis[:, 0] = math.sqrt(1.0 / count)
    return basis
