"""Change detectors over one number a time, in bounded memory: ADWIN and Page-Hinkley.

They report a change at the same values of a stream as River's detectors of the same names and
options (River 0.26), and their state is made of JSON types.
"""

from __future__ import annotations

import math
from typing import Any, Protocol


class Detector(Protocol):
    """Takes a stream of finite numbers and says where its mean changed.

    Attributes
    ----------
    n
        Values since the detector began, or began again after a change.
    minimum
        Values before it says anything.
    mean
        Of the values it goes by; after a change ADWIN's is that of the newer ones.
    """

    n: int
    minimum: int

    @property
    def mean(self) -> float: ...  # noqa: D102

    def update(self, value: float) -> bool:
        """Take the next value; True when there has been a change."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what the detector knows, as JSON types."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        ...


class Adwin:
    """ADWIN2: a window that grows while its mean holds, and drops its older part when it does not.

    Values are summed up in rows of buckets; a bucket of row r stands for 2**r values, and a row
    holds at most `max_buckets`, so n values need ``O(max_buckets * log n)`` numbers.

    Source: Bifet and Gavalda, "Learning from time-changing data with adaptive windowing", SDM 2007;
    the variance of merged buckets is that of Babcock et al., PODS 2003.

    Parameters
    ----------
    delta
        Significance: chance of a false alarm that the bound allows for.
    clock
        Values between two looks for a change.
    max_buckets
        Buckets of a row before two of them merge.
    min_window_length
        Values that each part of the window must have to be compared.
    grace_period
        Values before the first look.
    """

    def __init__(
        self,
        *,
        delta: float = 0.002,
        clock: int = 32,
        max_buckets: int = 5,
        min_window_length: int = 5,
        grace_period: int = 10,
    ) -> None:
        self._delta, self._clock, self._buckets = delta, clock, max_buckets
        self._least, self.minimum = min_window_length, grace_period + 1
        self._clear()

    def _clear(self) -> None:
        self.n = self._width = 0
        self._total = self._variance = 0.0
        self._changed = False
        self._rows: list[list[tuple[float, float]]] = [[]]  # [row][oldest first] (sum, variance)

    @property
    def mean(self) -> float:
        """Mean of the window."""
        return self._total / self._width if self._width else 0.0

    @property
    def width(self) -> int:
        """Values in the window."""
        return self._width

    def update(self, value: float) -> bool:
        """Take the next value; True when the mean has changed. After that it begins again."""
        if self._changed:
            self._clear()
        self.n += 1
        self._insert(value)
        self._changed = False
        if self.n % self._clock == 0 and self._width >= self.minimum:
            while self._cut():
                self._changed = True
                self._drop_oldest()
        return self._changed

    def _insert(self, value: float) -> None:
        if self._width:
            away = value - self._total / self._width
            self._variance += self._width * away * away / (self._width + 1)
        self._width += 1
        self._total += value
        self._rows[0].append((value, 0.0))
        for r, row in enumerate(self._rows):
            if len(row) <= self._buckets:
                break
            if r + 1 == len(self._rows):
                self._rows.append([])
            size = float(2**r)
            (u, v), (w, z) = row[0], row[1]
            apart = u / size - w / size
            self._rows[r + 1].append((u + w, v + z + size * size * apart * apart / (2 * size)))
            del row[:2]

    def _drop_oldest(self) -> None:
        n = 2 ** (len(self._rows) - 1)
        total, variance = self._rows[-1].pop(0)
        self._width -= n
        self._total -= total
        away = total / n - self._total / self._width
        self._variance -= variance + n * self._width * away * away / (n + self._width)
        while len(self._rows) > 1 and not self._rows[-1]:
            self._rows.pop()

    def _cut(self) -> bool:
        """Whether the mean differs across some border between buckets, oldest border first."""
        older, newer = 0, self._width
        older_total, newer_total = 0.0, self._total
        spread = 2.0 * max(0.0, self._variance) / self._width  # rounding may leave it below 0
        log_term = math.log(2.0 * math.log(self._width) / self._delta)
        for r in range(len(self._rows) - 1, -1, -1):
            size = 2**r
            for total, _ in self._rows[r]:
                older, newer = older + size, newer - size
                older_total, newer_total = older_total + total, newer_total - total
                if older < self._least or newer < self._least:
                    continue
                m = 1.0 / (older - self._least + 1) + 1.0 / (newer - self._least + 1)
                epsilon = math.sqrt(m * spread * log_term) + 2.0 / 3.0 * log_term * m
                if abs(older_total / older - newer_total / newer) > epsilon:
                    return True
        return False

    def state(self) -> dict[str, Any]:
        """Return the window's buckets and sums."""
        return {
            "n": self.n,
            "width": self._width,
            "total": self._total,
            "variance": self._variance,
            "changed": self._changed,
            "rows": [[list(bucket) for bucket in row] for row in self._rows],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.n, self._width = int(state["n"]), int(state["width"])
        self._total, self._variance = float(state["total"]), float(state["variance"])
        self._changed = bool(state["changed"])
        self._rows = [[(float(u), float(v)) for u, v in row] for row in state["rows"]]


class PageHinkley:
    """Page-Hinkley: how far the sum of deviations from the running mean rose, or fell.

    Source: Page, "Continuous inspection schemes", Biometrika 41, 1954, in the fading form of
    Sebastiao and Fernandes, "Supporting the Page-Hinkley test with empirical mode decomposition for
    change detection", ISMIS 2017.

    Parameters
    ----------
    min_instances
        Values before it says anything.
    delta
        Deviation that counts as none.
    threshold
        Rise, or fall, of the sum that is a change: in units of the values.
    alpha
        What is left of the sum at each further value.
    mode
        "up": the mean rose, "down": it fell, "both".
    """

    def __init__(
        self,
        *,
        min_instances: int = 30,
        delta: float = 0.005,
        threshold: float = 50.0,
        alpha: float = 0.9999,
        mode: str = "both",
    ) -> None:
        self.minimum = min_instances
        self._delta, self._threshold, self._alpha, self._mode = delta, threshold, alpha, mode
        self._clear()

    def _clear(self) -> None:
        self.n = 0
        self._mean = self._up = self._down = 0.0
        self._lowest, self._highest = math.inf, -1.0
        self._changed = False

    @property
    def mean(self) -> float:
        """Mean of all values since it began."""
        return self._mean

    def update(self, value: float) -> bool:
        """Take the next value; True when the mean has changed. After that it begins again."""
        if self._changed:
            self._clear()
        self.n += 1
        self._mean += (value - self._mean) / self.n
        away = value - self._mean
        self._up = self._alpha * self._up + away - self._delta
        self._down = self._alpha * self._down + away + self._delta
        self._lowest = min(self._lowest, self._up)
        self._highest = max(self._highest, self._down)
        if self.n >= self.minimum:
            rose = self._mode != "down" and self._up - self._lowest > self._threshold
            fell = self._mode != "up" and self._highest - self._down > self._threshold
            self._changed = rose or fell
        return self._changed

    def state(self) -> dict[str, Any]:
        """Return the sums."""
        return {
            "n": self.n,
            "mean": self._mean,
            "sums": [self._up, self._down],
            "extremes": None if self.n == 0 else [self._lowest, self._highest],  # JSON has no inf
            "changed": self._changed,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.n, self._mean = int(state["n"]), float(state["mean"])
        self._up, self._down = (float(v) for v in state["sums"])
        extremes = state["extremes"] or (math.inf, -1.0)
        self._lowest, self._highest = float(extremes[0]), float(extremes[1])
        self._changed = bool(state["changed"])
