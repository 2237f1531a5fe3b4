"""Feature pipelines: raw sensor window in, model input out, described by a JSON-able record.

A program carries the record of the pipeline that its model was trained with. The loop rebuilds
the pipeline from its own configuration and compares the two records, so that training and
serving cannot disagree.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgeloop.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray


class Features(Protocol):
    """A pipeline: one window in, one model input out, always the same for the same record."""

    def __call__(self, window: ArrayLike) -> NDArray[np.float32]:
        """Turn one window into one model input."""
        ...

    def batch(self, windows: ArrayLike) -> NDArray[np.float32]:
        """Turn windows [n, ...] into model inputs [n, ...]."""
        ...

    def spec(self) -> dict[str, Any]:
        """Return the complete record: JSON types only, with its "kind"."""
        ...


class Identity:
    """No pipeline: the model takes the samples as they come."""

    def __call__(self, window: ArrayLike) -> NDArray[np.float32]:
        """Return `window` as float32, same shape."""
        return np.asarray(window, np.float32)

    def batch(self, windows: ArrayLike) -> NDArray[np.float32]:
        """Return `windows` as float32, same shape."""
        return np.asarray(windows, np.float32)

    def spec(self) -> dict[str, Any]:
        """Return the record of this pipeline."""
        return {"kind": "none"}


class LogMel:
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
        for name, whole in (
            ("sample_rate", sample_rate),
            ("samples", samples),
            ("window", window),
            ("hop", hop),
            ("fft", fft),
            ("mels", mels),
        ):
            good = isinstance(whole, int) and not isinstance(whole, bool) and whole > 0
            _check(good, name, whole, "a whole number above 0")
        for name, real in (
            ("low_hz", low_hz),
            ("high_hz", high_hz),
            ("eps", eps),
            ("mean", mean),
            ("std", std),
        ):
            good = isinstance(real, int | float) and math.isfinite(real)
            _check(good, name, real, "a finite number")
        _check(window <= samples, "window", window, f"at most samples ({samples})")
        _check(window <= fft, "window", window, f"at most fft ({fft})")
        _check(
            0 <= low_hz < high_hz <= sample_rate / 2,
            "low_hz and high_hz",
            [low_hz, high_hz],
            f"0 <= low_hz < high_hz <= {sample_rate / 2} (half the sample rate)",
        )
        _check(eps > 0, "eps", eps, "above 0")
        _check(std > 0, "std", std, "above 0")
        self.samples, self.hop, self.fft = samples, hop, fft
        self.frames = 1 + (samples - window) // hop
        self.output_shape = (1, self.frames, mels)
        self._spec = {
            "kind": "log-mel",
            "sample_rate": sample_rate,
            "samples": samples,
            "window": window,
            "hop": hop,
            "fft": fft,
            "mels": mels,
            "low_hz": float(low_hz),
            "high_hz": float(high_hz),
            "eps": float(eps),
            "mean": float(mean),
            "std": float(std),
        }
        self._eps, self._mean, self._scale = float(eps), float(mean), 1.0 / float(std)
        self._hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        self._filters = _mel_filters(sample_rate, fft, mels, low_hz, high_hz)
        self._clip = np.zeros(samples, np.float64)
        # Overlapping views of the clip, [frames, window]: no copy.
        self._windows = np.lib.stride_tricks.sliding_window_view(self._clip, window)[::hop]
        self._padded = np.zeros((self.frames, fft), np.float64)
        self._spectrum = np.empty((self.frames, fft // 2 + 1), np.complex128)
        self._power = np.empty((self.frames, fft // 2 + 1), np.float64)
        self._square = np.empty_like(self._power)
        self._energy = np.empty((self.frames, mels), np.float64)

    def __call__(
        self, window: ArrayLike, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Compute the features of one clip.

        Parameters
        ----------
        window
            Float samples [samples], full scale at 1.
        out
            Array [1, frames, mels] to fill instead of allocating one.

        Raises
        ------
        DataError
            Wrong shape, integer samples, or a sample that is not finite.
        """
        clip = np.asarray(window)
        if clip.shape != (self.samples,):
            raise DataError(
                f"log-mel: a clip has shape {list(clip.shape)}; pass one of [{self.samples}] "
                "(edgeloop.data.clips.place pads or cuts)"
            )
        if clip.dtype.kind != "f":
            raise DataError(f"log-mel: samples are {clip.dtype}; pass floats, full scale at 1.0")
        self._clip[:] = clip
        # Not a dot product: BLAS would wake its threads, which takes 14 ms on a busy machine.
        if not (math.isfinite(self._clip.max()) and math.isfinite(self._clip.min())):
            raise DataError("log-mel: the clip holds NaN or infinity; check the sensor")
        frame = self._hann.shape[0]
        np.multiply(self._windows, self._hann, out=self._padded[:, :frame])
        np.fft.rfft(self._padded, axis=1, out=self._spectrum)
        np.square(self._spectrum.real, out=self._power)
        np.square(self._spectrum.imag, out=self._square)
        np.add(self._power, self._square, out=self._power)
        np.matmul(self._power, self._filters, out=self._energy)
        np.add(self._energy, self._eps, out=self._energy)
        np.log(self._energy, out=self._energy)
        np.subtract(self._energy, self._mean, out=self._energy)
        np.multiply(self._energy, self._scale, out=self._energy)
        if out is None:
            out = np.empty(self.output_shape, np.float32)
        out[0] = self._energy
        return out

    def batch(self, windows: ArrayLike) -> NDArray[np.float32]:
        """Compute the features of clips [n, samples] -> [n, 1, frames, mels]."""
        clips = np.asarray(windows)
        out = np.empty((len(clips), *self.output_shape), np.float32)
        for clip, row in zip(clips, out, strict=True):
            self(clip, out=row)
        return out

    def spec(self) -> dict[str, Any]:
        """Return the complete record of this pipeline."""
        return dict(self._spec)


KINDS: dict[str, Callable[..., Features]] = {"log-mel": LogMel, "none": Identity}


def from_spec(spec: Mapping[str, Any]) -> Features:
    """Build the pipeline that a record describes; a key left out takes its default.

    Raises
    ------
    DataError
        Unknown kind, unknown key, or a value out of range; the message names it.
    """
    options = dict(spec)
    kind = options.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"features: kind is {kind!r}; use one of {', '.join(sorted(KINDS))}")
    make = KINDS[kind]
    known = list(inspect.signature(make).parameters)
    unknown = sorted(key for key in options if key not in known)
    if unknown:
        allowed = f"the keys of {kind!r} are {', '.join(known)}" if known else "it has no keys"
        raise DataError(f"features: unknown key {', '.join(map(repr, unknown))}; {allowed}")
    return make(**options)


def _mel_filters(
    sample_rate: int, fft: int, mels: int, low_hz: float, high_hz: float
) -> NDArray[np.float64]:
    """Return triangular filters [fft // 2 + 1, mels], corners equally spaced on the mel scale."""
    low, high = (2595.0 * math.log10(1.0 + hz / 700.0) for hz in (low_hz, high_hz))
    corners = 700.0 * (10.0 ** (np.linspace(low, high, mels + 2) / 2595.0) - 1.0)
    hz = np.arange(fft // 2 + 1)[:, None] * (sample_rate / fft)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rise = (hz - left) / (centre - left)
    fall = (right - hz) / (right - centre)
    filters = np.ascontiguousarray(np.maximum(0.0, np.minimum(rise, fall)))
    empty = np.flatnonzero(~filters.any(axis=0))
    if empty.size:
        raise DataError(
            f"features: mel filter {int(empty[0])} covers no frequency; use fewer mels or more fft"
        )
    return filters


def _check(good: bool, name: str, value: object, rule: str) -> None:
    if not good:
        raise DataError(f"features: {name} is {value!r}; it must be {rule}")
