"""Runs of entries in slices of bounded time, with a call in between."""

from __future__ import annotations

import time
from collections.abc import Callable

Run = Callable[[int, int], None]


class Slicer:
    """Cuts runs of entries at table indices so that no more than `seconds` pass between two calls.

    How long each step takes is measured in the first run, step by step, and corrected by every
    later one. A single step is not cut: one that takes longer is a slice of its own, and `longest`
    tells. Runs that follow each other share a slice: many short ones, such as micro-batches or a
    validation set, are interrupted as one long one is. Where a run is cut changes no result.

    Parameters
    ----------
    seconds
        Longest time of running between two calls.
    between
        Called before the step that would take longer. What it raises comes out of :meth:`settle`,
        once what was asked for is done: half a step would leave some of the weights changed.
    clock
        Seconds.

    Attributes
    ----------
    longest
        Longest time of running between two calls so far, in seconds.
    slices
        Runs, and parts of runs, so far.
    """

    def __init__(
        self, seconds: float, between: Callable[[], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.longest, self.slices = 0.0, 0
        self._seconds, self._between, self._clock = seconds, between, clock
        self._costs: dict[int, list[float]] = {}
        self._spent = 0.0  # since the last call
        self._raised: BaseException | None = None

    def run(self, entry: int, steps: int, run: Run) -> None:
        """Run steps 0 to `steps` of an entry; ``run(first, last)`` runs some of them."""
        costs = self._costs.setdefault(entry, [])
        first = 0
        while first < steps:
            last = self._end(costs, first, steps)
            if last == first:
                self._return()
                continue
            began = self._clock()
            run(first, last)
            took = self._clock() - began
            self._learn(costs, first, last, took)
            self._spent += took
            self.longest = max(self.longest, self._spent)
            self.slices += 1
            first = last

    def settle(self) -> None:
        """Raise what was raised in between, now that everything is whole."""
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def _return(self) -> None:
        self._spent = 0.0
        if self._raised is None:
            try:
                self._between()
            except BaseException as error:  # noqa: BLE001 - raised by settle
                self._raised = error

    def _end(self, costs: list[float], first: int, steps: int) -> int:
        """Where the slice that begins at `first` ends; `first`: nothing fits in what is left.

        A step of which nothing is known yet runs alone.
        """
        left = self._seconds - self._spent
        last = first
        while last < min(steps, len(costs)):
            left -= costs[last]
            if left < 0.0:
                break
            last += 1
        return max(last, first + 1) if self._spent == 0.0 else last

    @staticmethod
    def _learn(costs: list[float], first: int, last: int, took: float) -> None:
        if first == len(costs):
            costs.append(took)
            return
        # Half way to what was measured, shared as before: one slow slice does not mislead for long.
        expected = sum(costs[first:last])
        by = 0.5 + 0.5 * took / expected if expected > 0.0 else 1.0
        costs[first:last] = [cost * by for cost in costs[first:last]]
