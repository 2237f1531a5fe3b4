"""A memory of what was offered long ago, balanced by class."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.buffers.slots import Slots, class_of
from edgeloop.data.rng import Draw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from edgeloop.data.buffers.sketch import Sketch
    from edgeloop.data.item import Label

POLICIES = ("balanced", "loss", "recent")
# Part of the mean loss added to each: a loss of 0 is replaced 11 times as often as the mean.
_FLOOR = 0.1


class Reservoir(Slots):
    """A class-balanced random memory of everything offered (Chrysakis and Moens 2020).

    While there is room every sample is kept. After that a sample of a rare class replaces a random
    one of the largest class, and a sample of a largest class replaces one of its own with the
    probability that keeps that class uniform over all it ever offered. Float targets count as one
    class, which makes this plain reservoir sampling.

    Parameters
    ----------
    name, seed
        Name the stream of random draws; draw number n depends on these and n alone.
    policy
        Which sample of a class is replaced: "balanced", any of them alike; "loss", with a
        probability inverse to `loss`, so that what the live version gets wrong stays longer (as
        loss-aware balanced reservoir sampling, Buzzega et al. 2020). A sample whose loss is not
        known yet counts as the mean of its class. "recent": no reservoir, every sample is taken and
        the oldest of its class goes, for streams that drift.

    Attributes
    ----------
    frozen
        While True nothing that is offered is taken.
    """

    def __init__(
        self, capacity: int, shape: Sequence[int], *, seed: int, name: str, storage: str = "f32",
        sketch: Sketch | None = None, policy: str = "balanced",
    ) -> None:
        super().__init__(capacity, shape, storage=storage, sketch=sketch)
        self._seed, self._name, self._policy = seed, name, policy
        self.frozen = False
        self._offered: Counter[int] = Counter()
        self._count = 0
        self._came = [0] * capacity  # number of each sample among all offered

    def __len__(self) -> int:
        return self._count

    def offer(self, x: NDArray[np.float32], y: Label, key: str) -> int | None:
        """Offer a sample; return the slot it went to, or None when it was not kept."""
        slot = self._slot_for(y)
        if slot is not None:
            self.put(slot, x, y, key)
            self._came[slot] = self._offered.total()
        return slot

    def adopt(self, other: Slots, theirs: int) -> int | None:
        """Offer a sample that another memory holds, with its loss; as :meth:`offer`."""
        slot = self._slot_for(other.y[theirs])
        if slot is not None:
            self.copy(slot, other, theirs)
            self._came[slot] = self._offered.total()
        return slot

    def _slot_for(self, y: Label) -> int | None:
        """Count a sample of this label as offered; return the slot to put it into, if any."""
        if self.capacity == 0 or self.frozen:
            return None
        mine = class_of(y)
        number = self._offered.total()
        self._offered[mine] += 1
        if self._count < self.capacity:
            self._count += 1
            return self._count - 1
        draw = Draw(self._seed, self._name, number)
        held = self.held()
        most = max(held.values())
        if held[mine] < most:
            largest = sorted(c for c, n in held.items() if n == most)
            victim = largest[draw.below(len(largest))]
        elif self._policy == "recent" or draw.below(self._offered[mine]) < held[mine]:
            victim = mine
        else:
            return None
        of_class = np.flatnonzero(self._classes == victim)
        if self._policy == "recent":
            return int(min(of_class, key=self._came.__getitem__))
        if self._policy == "loss":
            return int(of_class[self._least_needed(of_class, draw)])
        return int(of_class[draw.below(len(of_class))])

    def _least_needed(self, slots: NDArray[np.intp], draw: Draw) -> int:
        """Draw a place among `slots` with a probability inverse to its loss."""
        loss = self.loss[slots].astype(np.float64)
        known = np.isfinite(loss)
        mean = float(loss[known].mean()) if known.any() else 0.0
        if mean <= 0.0:
            return draw.below(len(slots))
        loss[~known] = mean
        edges = np.cumsum(1.0 / (loss.clip(0.0) + _FLOOR * mean))
        return min(int(np.searchsorted(edges, draw.uniform() * edges[-1], "right")), len(slots) - 1)

    def held(self) -> Counter[int]:
        """Count the samples in memory by class."""
        return Counter(self._classes[: self._count].tolist())

    def slots(self) -> range:
        """Slots in use."""
        return range(self._count)

    def balanced(self, at_least: int) -> Iterator[int]:
        """Yield slots with the classes as equal as `at_least` samples allow.

        Each class gives at most c samples, the smallest c that reaches `at_least` in all, and never
        fewer than the rarest class has.
        """
        held = self.held()
        cap = min(held.values(), default=0)
        while cap < max(held.values(), default=0) and (
            sum(min(n, cap) for n in held.values()) < at_least
        ):
            cap += 1
        given: Counter[int] = Counter()
        for slot in self.slots():
            mine = class_of(self.y[slot])
            if given[mine] < cap:
                given[mine] += 1
                yield slot

    def state(self) -> dict[str, Any]:
        """Return everything but the samples, as JSON types."""
        state: dict[str, Any] = {"count": self._count, "offered": sorted(self._offered.items())}
        if self._policy == "loss":
            losses = self.loss[: self._count].tolist()
            state["loss"] = [loss if math.isfinite(loss) else None for loss in losses]
        if self._policy == "recent":
            state["came"] = self._came[: self._count]
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` gave; the slots are put back separately, before."""
        self._count = state["count"]
        self._offered = Counter({int(c): int(n) for c, n in state["offered"]})
        self._used[:] = False
        self._used[: self._count] = True
        for slot, loss in enumerate(state.get("loss", ())):
            self.loss[slot] = np.nan if loss is None else loss
        self._came[: self._count] = state.get("came", [0] * self._count)
