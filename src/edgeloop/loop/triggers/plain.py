"""When an update starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Situation:
    """What a trigger may look at.

    Attributes
    ----------
    since
        Labelled samples since the last update.
    fresh
        Training samples among them that the ring still holds.
    gate
        Samples in the gate set.
    """

    since: int
    fresh: int
    gate: int


class Trigger(Protocol):
    """Decides after each sample: "collect" on, "wait" (something is short), or "train"."""

    def __call__(self, situation: Situation) -> str:
        """Decide."""
        ...


class SamplesTrigger:
    """Trains after `samples` labelled samples, once the gate set can judge the result."""

    def __init__(self, samples: int, gate_samples: int) -> None:
        self._samples, self._gate = samples, gate_samples

    def __call__(self, situation: Situation) -> str:
        """Decide."""
        if situation.since < self._samples:
            return "collect"
        if situation.fresh == 0 or situation.gate < self._gate:
            return "wait"
        return "train"
