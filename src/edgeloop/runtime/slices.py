"""A run of an entry in slices of bounded time, with a call in between."""

from __future__ import annotations

import time
from collections.abc import Callable

Run = Callable[[int, int], None]


class Slicer:
    """Cuts runs of entries at table indices so that no slice takes longer than `seconds`.

    How long each step takes is measured in the first run, step by step, and corrected by every
    later one. A single step is not cut: one that takes longer is a slice of its own, and `longest`
    tells. Where a run is cut changes no result.

    Parameters
    ----------
    seconds
        Longest slice.
    between
        Called after each slice but the last of a run. What it raises comes out when the run is
        over: half a step would leave some of the weights changed.
    clock
        Seconds.

    Attributes
    ----------
    longest
        Longest slice so far, in seconds.
    slices
        Slices so far.
    """

    def __init__(
        self, seconds: float, between: Callable[[], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.longest, self.slices = 0.0, 0
        self._seconds, self._between, self._clock = seconds, between, clock
        self._costs: dict[int, list[float]] = {}

    def run(self, entry: int, steps: int, run: Run) -> None:
        """Run steps 0 to `steps` of an entry; ``run(first, last)`` runs some of them."""
        costs = self._costs.setdefault(entry, [])
        raised: BaseException | None = None
        first = 0
        while first < steps:
            last = self._end(costs, first, steps)
            began = self._clock()
            run(first, last)
            took = self._clock() - began
            self._learn(costs, first, last, took)
            self.longest = max(self.longest, took)
            self.slices += 1
            first = last
            if first < steps and raised is None:
                try:
                    self._between()
                except BaseException as error:  # noqa: BLE001 - raised when the run is over
                    raised = error
        if raised is not None:
            raise raised

    def _end(self, costs: list[float], first: int, steps: int) -> int:
        """Where the slice that begins at `first` ends; one step where nothing is known yet."""
        left = self._seconds
        last = first
        while last < min(steps, len(costs)):
            left -= costs[last]
            if left < 0.0 and last > first:
                break
            last += 1
        return max(last, first + 1)

    @staticmethod
    def _learn(costs: list[float], first: int, last: int, took: float) -> None:
        if first == len(costs):
            costs.append(took)
            return
        # Half way to what was measured, shared as before: one slow slice does not mislead for long.
        expected = sum(costs[first:last])
        by = 0.5 + 0.5 * took / expected if expected > 0.0 else 1.0
        costs[first:last] = [cost * by for cost in costs[first:last]]
