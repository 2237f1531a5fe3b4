"""Statistics of each channel over time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.data.features.base import Example
from edgeloop.data.features.lanes import Lanes
from edgeloop.data.features.options import check, choice

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = (
    "mean", "std", "rms", "peak", "peak_to_peak", "crest", "skewness", "kurtosis", "zero_crossings",
)  # fmt: skip
STILL = 1e-13


class Statistics(Lanes):
    """Numbers that sum a channel up: [n, channels] -> [chosen, channels], in the order chosen.

    With m the mean and m_k the mean of (x - m)^k: mean; std, sqrt(m_2); rms, sqrt(mean x^2); peak,
    max |x|; peak_to_peak, max x - min x; crest, peak / rms; skewness, m_3 / m_2^1.5; kurtosis,
    m_4 / m_2^2 - 3 (`scipy.stats.skew` and `kurtosis` as they come, biased and in excess of the
    normal's); zero_crossings, how often the sign changes from one sample to the next (0 counts as
    positive). Of a channel that does not move (std up to 1e-13 peak: rounding), skewness and
    kurtosis are 0 where SciPy says NaN; of silence crest is 0.

    Parameters
    ----------
    choose
        Which of these, by name; absent: all, in the order above.
    channels_first
        Windows are [channels, n], not [n, channels].
    """

    kind = "statistics"
    raw = False

    def __init__(
        self, *, choose: Sequence[str] | None = None, channels_first: bool = False
    ) -> None:
        if choose is None:
            choose = NAMES
        good = isinstance(choose, list | tuple) and len(choose) > 0
        check(good, "choose", choose, f"a list of {', '.join(NAMES)}")
        self._choose = [choice(f"choose[{i}]", name, NAMES) for i, name in enumerate(choose)]
        super().__init__(choose=list(self._choose), channels_first=channels_first)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing."""
        yield {}, (4096, 3)
        yield {"choose": ["rms", "kurtosis"], "channels_first": True}, (2, 1501)
        yield {"choose": ["zero_crossings"]}, (1501,)

    def _count(self, n: int) -> int:
        del n
        return len(self._choose)

    def _prepare(self, n: int) -> None:
        self._centred, self._powers = np.zeros((2, n), np.float64)

    def _channel(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        n, centred, powers = len(x), self._centred, self._powers
        mean = float(np.add.reduce(x)) / n
        low, high = float(x.min()), float(x.max())
        peak = max(-low, high)
        np.square(x, out=powers)
        rms = math.sqrt(float(np.add.reduce(powers)) / n)
        np.subtract(x, mean, out=centred)
        np.square(centred, out=powers)
        m2 = float(np.add.reduce(powers)) / n
        np.multiply(powers, centred, out=centred)
        m3 = float(np.add.reduce(centred)) / n
        np.square(powers, out=powers)
        m4 = float(np.add.reduce(powers)) / n
        rounding = STILL * peak
        moves = m2 > rounding * rounding
        found = {
            "mean": mean,
            "std": math.sqrt(m2),
            "rms": rms,
            "peak": peak,
            "peak_to_peak": high - low,
            "crest": peak / rms if rms > 0 else 0.0,
            "skewness": m3 / m2 / math.sqrt(m2) if moves else 0.0,
            "kurtosis": m4 / m2 / m2 - 3.0 if moves else 0.0,
            "zero_crossings": self._crossings(x),
        }
        for i, name in enumerate(self._choose):
            y[i] = found[name]

    def _crossings(self, x: NDArray[np.float64]) -> float:
        # Signs as +1 and -1, whose products are -1 at a crossing: comparisons would allocate.
        signs, products = self._centred, self._powers[1:]
        np.add(x, 0.0, out=signs)  # -0 becomes 0
        np.copysign(1.0, signs, out=signs)
        np.multiply(signs[1:], signs[:-1], out=products)
        return (len(products) - float(np.add.reduce(products))) / 2
