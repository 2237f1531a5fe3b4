"""Log-mel energies: the usual picture of a short sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.features.base import Example, Features, Shape, bytes_held
from edgeloop.data.features.mel import MelBank, mel_filters
from edgeloop.data.features.options import band, check, positive, real, whole
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Clips(Features):
    """Kinds that take audio clips of one length: float [samples], full scale at 1."""

    samples: int
    _bank: MelBank

    def buffer_bytes(self) -> int:
        """Bytes of the arrays that it holds."""
        return super().buffer_bytes() + bytes_held(self._bank)

    def _checked(self, x: NDArray[Any]) -> NDArray[Any]:
        if x.dtype.kind != "f":
            raise DataError(
                f"{self.kind}: samples are {x.dtype}; pass floats, full scale at 1.0"
            )
        return super()._checked(x)

    def _plan(self, shape: Shape) -> Shape:
        if shape != (self.samples,) or self.output_shape is None:
            raise DataError(
                f"{self.kind}: a clip has shape {list(shape)}; pass one of [{self.samples}] "
                "(edgeloop.data.clips.place pads or cuts)"
            )
        return self.output_shape


class LogMel(Clips):
    """Logarithmic mel energies of an audio clip: float32 [samples] -> float32 [1, frames, mels].

    Frames of `window` samples, `hop` apart, are weighted by a periodic Hann window, padded with
    zeros to `fft` samples and transformed; the power spectrum goes through triangular mel filters
    (HTK scale, peak 1) between `low_hz` and `high_hz`; the result is
    ``(log(energy + eps) - mean) / std``. Work runs in float64 inside buffers made once.

    Parameters
    ----------
    sample_rate
        Samples per second (Hz).
    samples
        Length of a clip, in samples.
    window, hop, fft
        Frame length, distance between frames, and transform length, in samples.
    mels
        Number of mel filters.
    low_hz, high_hz
        Lower edge of the lowest filter and upper edge of the highest (Hz).
    eps
        Added to each energy: a noise floor.
    mean, std
        Constants of the normalisation.
    """

    kind = "log-mel"
    raw = False

    def __init__(
        self,
        *,
        sample_rate: int = 16000,
        samples: int = 16000,
        window: int = 640,
        hop: int = 320,
        fft: int = 1024,
        mels: int = 10,
        low_hz: float = 20.0,
        high_hz: float = 7600.0,
        eps: float = 1e-6,
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        for name, value in (
            ("sample_rate", sample_rate),
            ("samples", samples),
            ("window", window),
            ("hop", hop),
            ("fft", fft),
            ("mels", mels),
        ):
            whole(name, value)
        check(window <= samples, "window", window, f"at most samples ({samples})")
        check(window <= fft, "window", window, f"at most fft ({fft})")
        low, high = band(low_hz, high_hz, sample_rate)
        self._eps, self._mean = positive("eps", eps), real("mean", mean)
        self._scale = 1.0 / positive("std", std)
        super().__init__(
            sample_rate=sample_rate, samples=samples, window=window, hop=hop, fft=fft, mels=mels,
            low_hz=low, high_hz=high, eps=self._eps, mean=self._mean, std=float(std),
        )
        self.samples, self.hop, self.fft = samples, hop, fft
        self.frames = 1 + (samples - window) // hop
        self.input_shape, self.output_shape = (samples,), (1, self.frames, mels)
        self._clip = np.zeros(samples, np.float64)
        # Overlapping views of the clip, [frames, window]: no copy.
        windows = np.lib.stride_tricks.sliding_window_view(self._clip, window)[::hop]
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        self._bank = MelBank(windows, hann, fft, mel_filters(sample_rate, fft, mels, low, high))

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing."""
        yield {"mels": 40}, (16000,)
        yield {"samples": 4001, "window": 400, "hop": 160, "fft": 512, "mean": -3.0, "std": 2.0}, (
            4001,)

    def _run(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        np.copyto(self._clip, x)
        energy = self._bank.compute()
        np.add(energy, self._eps, out=energy)
        np.log(energy, out=energy)
        np.subtract(energy, self._mean, out=energy)
        np.multiply(energy, self._scale, out=energy)
        out[0] = energy
