"""Kinds that look along time, one channel by itself; tapers and levels that several share."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.features.base import Features, Shape
from edgeloop.data.features.options import choice, flag, positive
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Cosine series of each taper, as scipy.signal.get_window makes them for spectra (periodic).
TAPERS = {
    "hann": (0.5, -0.5),
    "hamming": (0.54, -0.46),
    "blackman": (0.42, -0.5, 0.08),
    "boxcar": (1.0,),
}
LEVELS = ("none", "ln", "db")


class Lanes(Features):
    """Base of what takes windows [n], [n, channels] or, `channels_first`, [channels, n].

    The axis of time becomes the axis of the results; channels stay where they are. One channel's
    buffers serve all of them.
    """

    def __init__(self, *, channels_first: bool, **options: Any) -> None:
        self._first = flag("channels_first", channels_first)
        super().__init__(**options, channels_first=self._first)

    @abstractmethod
    def _count(self, n: int) -> int:
        """Return how many numbers a channel of `n` samples gives; DataError: `n` does not do."""

    @abstractmethod
    def _channel(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """Fill the results `y` of one channel `x` [n]; `x` may be overwritten."""

    def _prepare(self, n: int) -> None:
        """Make the buffers for channels of `n` samples."""

    def _plan(self, shape: Shape) -> Shape:
        if len(shape) not in (1, 2):
            form = "[channels, n]" if self._first else "[n, channels]"
            raise DataError(
                f"{self.kind}: a window has shape {list(shape)}; pass [n] or {form}"
            )
        time = len(shape) - 1 if self._first else 0
        count = self._count(shape[time])
        self._x = np.zeros(shape[time], np.float64)
        self._y = np.zeros(count, np.float64)
        self._prepare(shape[time])
        return (*shape[:time], count, *shape[time + 1 :])

    def _run(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        for channel, result in zip(self._channels(x), self._channels(out), strict=True):
            np.copyto(self._x, channel)
            self._channel(self._x, self._y)
            np.copyto(result, self._y, casting="same_kind")

    def _channels(self, x: NDArray[Any]) -> NDArray[Any]:
        """View [channels, n] of a window."""
        return x[None] if x.ndim == 1 else x if self._first else x.T


def taper(name: str, n: int) -> NDArray[np.float64]:
    """Return the periodic taper of that name, [n]; of one sample it is 1, as in SciPy."""
    if n == 1:
        return np.ones(1)
    phase = 2 * np.pi * np.arange(n) / n
    return sum((a * np.cos(k * phase) for k, a in enumerate(TAPERS[name])), np.zeros(n))


class Level:
    """What becomes of a spectrum's numbers: as they are, or on a logarithmic scale.

    Parameters
    ----------
    log
        "none"; "ln", ``ln(max(x, eps))``; or "db", ``decibel * log10(max(x, eps))``.
    eps
        Smallest number that counts, above 0.
    decibel
        10 for powers, 20 for amplitudes.
    """

    def __init__(self, log: str, eps: float, decibel: float) -> None:
        self.log, self.eps = choice("log", log, LEVELS), positive("eps", eps)
        self._decibel = decibel

    def __call__(self, y: NDArray[np.float64]) -> None:
        """Replace the numbers of `y`."""
        if self.log == "none":
            return
        np.maximum(y, self.eps, out=y)
        if self.log == "ln":
            np.log(y, out=y)
        else:
            np.log10(y, out=y)
            np.multiply(y, self._decibel, out=y)


def one_sided(y: NDArray[np.float64], fft: int) -> None:
    """Double the bins of `y` that stand for two: all but 0 Hz and, for even `fft`, the last."""
    inner = y[1 : (fft + 1) // 2]
    np.multiply(inner, 2.0, out=inner)
