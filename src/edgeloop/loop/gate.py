"""The gate: a candidate goes live only when paired tests say that it is better, and safe."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgeloop.data.rng import Draw

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLIPS = 4095  # random sign flips; with the observed one the smallest p is 1 / 4096
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Evidence:
    """Scores per sample, more is better (see :func:`edgeloop.loop.learner.scores`).

    Attributes
    ----------
    live, candidate
        On the gate set, [n] each, same samples.
    anchor_shipped, anchor_candidate
        Mean score on the base task of the shipped model and of the candidate; None: no anchors.
    anchor_relative
        The anchor scores are losses: the tolerance is relative.
    """

    live: NDArray[np.float64]
    candidate: NDArray[np.float64]
    anchor_shipped: float | None = None
    anchor_candidate: float | None = None
    anchor_relative: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate decided, and the numbers it rests on."""

    promote: bool
    reason: str
    samples: int
    p: float
    before: float
    after: float
    anchor_before: float | None
    anchor_after: float | None

    def numbers(self) -> dict[str, Any]:
        """Return the verdict as JSON types."""
        return asdict(self)


class Gate(Protocol):
    """Judges a candidate."""

    def winnable(self, live: NDArray[np.float64]) -> bool:
        """Whether any candidate could pass beside a live version with these scores [n]."""
        ...

    def __call__(self, evidence: Evidence, *, seed: int, better: bool = True) -> Verdict:
        """Judge; without `better` it is enough not to be worse."""
        ...


class PairedGate:
    """Better on the gate set at `confidence`, and not worse on the anchors than allowed.

    The test on the gate set is one-sided and paired, with the null hypothesis that the candidate
    is no better. So with useless training data at most 1 - `confidence` of updates go live.
    """

    def __init__(self, min_samples: int, confidence: float, max_anchor_loss: float) -> None:
        self._min = min_samples
        self._alpha = 1.0 - confidence
        self._tolerance = max_anchor_loss

    def winnable(self, live: NDArray[np.float64]) -> bool:
        """Whether any candidate could pass beside a live version with these scores [n].

        False when the live version is wrong on so few samples that getting all of them right
        would still not be significant.
        """
        if not np.isin(live, (0.0, 1.0)).all():
            return True
        return paired_p(1.0 - live, seed=0) <= self._alpha

    def __call__(self, evidence: Evidence, *, seed: int, better: bool = True) -> Verdict:
        """Judge; `seed` picks the random sign flips, where they are needed.

        Without `better` the candidate brings something of its own, as a release of the fleet does:
        it passes unless its mean score on the gate set is lower than the live version's.
        """
        e = evidence
        p = paired_p(e.candidate - e.live, seed)
        good, reason = True, "better" if better else "no worse"
        if len(e.live) < self._min:
            good, reason = False, f"gate set has {len(e.live)} samples, needs {self._min}"
        elif not better and e.candidate.mean() < e.live.mean():
            good, reason = False, "worse than what was learnt here"
        elif better and p > self._alpha:
            good, reason = False, f"not better at this confidence (p = {p:.3f})"
        elif not self._safe(e):
            good, reason = False, "worse on the base task"
        return Verdict(
            promote=good,
            reason=reason,
            samples=len(e.live),
            p=p,
            before=float(e.live.mean()) if len(e.live) else 0.0,
            after=float(e.candidate.mean()) if len(e.live) else 0.0,
            anchor_before=e.anchor_shipped,
            anchor_after=e.anchor_candidate,
        )

    def _safe(self, e: Evidence) -> bool:
        if e.anchor_shipped is None or e.anchor_candidate is None:
            return True
        allowed = self._tolerance * (abs(e.anchor_shipped) if e.anchor_relative else 1.0)
        # The slack is rounding of the means only.
        return e.anchor_candidate >= e.anchor_shipped - allowed - 1e-9


def paired_p(gain: NDArray[np.float64], seed: int) -> float:
    """One-sided p-value of paired differences [n], null hypothesis: no gain.

    Right-or-wrong differences (all -1, 0, +1) take the exact sign test, which is McNemar's exact
    test; others a sign-flip permutation test of the mean.
    """
    gain = gain[gain != 0.0]
    n = len(gain)
    if n == 0 or not np.isfinite(gain).all():
        return 1.0
    if (np.abs(gain) == 1.0).all():
        wins = int((gain > 0).sum())
        return float(sum(math.comb(n, k) for k in range(wins, n + 1)) / 2**n)
    observed = gain.sum()
    # Sums of the same numbers in another order may differ in the last bits: count those as ties.
    bound = observed - 1e-12 * np.abs(gain).sum()
    reached = 1
    for start in range(0, FLIPS, _CHUNK):
        rows = min(_CHUNK, FLIPS - start)
        reached += int((Draw(seed, "flips", start).signs(rows, n) @ gain >= bound).sum())
    return reached / (FLIPS + 1)
