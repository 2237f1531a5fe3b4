"""Sample memories of fixed size: a ring for what is new, a reservoir for what to remember."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.rng import Draw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from edgeloop.data.item import Label


class Slots:
    """Room for `capacity` samples, allocated once; remembers which slots changed."""

    def __init__(self, capacity: int, shape: Sequence[int]) -> None:
        self.capacity = capacity
        self.x: NDArray[np.float32] = np.zeros((capacity, *shape), np.float32)
        self.y: list[Label] = [0] * capacity
        self.key: list[str] = [""] * capacity
        self.changed: set[int] = set()

    def put(self, slot: int, x: NDArray[np.float32], y: Label, key: str) -> None:
        """Overwrite one slot."""
        self.x[slot] = x
        self.y[slot] = y
        self.key[slot] = key
        self.changed.add(slot)


class Ring(Slots):
    """The newest samples in order of arrival; a push into a full ring drops the oldest.

    Attributes
    ----------
    overruns
        Samples dropped by pushes so far.
    """

    def __init__(self, capacity: int, shape: Sequence[int]) -> None:
        super().__init__(capacity, shape)
        self._next = 0
        self._count = 0
        self.overruns = 0

    def __len__(self) -> int:
        return self._count

    def push(self, x: NDArray[np.float32], y: Label, key: str) -> None:
        """Add a sample at the end."""
        if self._count == self.capacity:
            self.overruns += 1
        else:
            self._count += 1
        self.put(self._next, x, y, key)
        self._next = (self._next + 1) % self.capacity

    def oldest(self) -> int:
        """Slot of the oldest sample; the ring must not be empty."""
        return (self._next - self._count) % self.capacity

    def pop(self) -> int:
        """Take the oldest sample out and return its slot, valid until the next push."""
        slot = self.oldest()
        self._count -= 1
        return slot

    def slots(self) -> list[int]:
        """Slots in use, oldest first."""
        return [(self._next - self._count + i) % self.capacity for i in range(self._count)]

    def clear(self) -> None:
        """Forget every sample."""
        self._count = 0
        self._next = 0
        self.changed.clear()

    def state(self) -> dict[str, Any]:
        """Return everything but the samples, as JSON types."""
        return {"next": self._next, "count": self._count, "overruns": self.overruns}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` gave; the slots are put back separately."""
        self._next, self._count = state["next"], state["count"]
        self.overruns = state["overruns"]


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
    """

    def __init__(self, capacity: int, shape: Sequence[int], *, seed: int, name: str) -> None:
        super().__init__(capacity, shape)
        self._seed, self._name = seed, name
        self._offered: Counter[int] = Counter()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def offer(self, x: NDArray[np.float32], y: Label, key: str) -> int | None:
        """Offer a sample; return the slot it went to, or None when it was not kept."""
        if self.capacity == 0:
            return None
        mine = class_of(y)
        number = self._offered.total()
        self._offered[mine] += 1
        if self._count < self.capacity:
            slot = self._count
            self._count += 1
        else:
            draw = Draw(self._seed, self._name, number)
            held = self.held()
            most = max(held.values())
            if held[mine] < most:
                largest = sorted(c for c, n in held.items() if n == most)
                victim = largest[draw.below(len(largest))]
            elif draw.below(self._offered[mine]) < held[mine]:
                victim = mine
            else:
                return None
            of_class = [i for i in self.slots() if class_of(self.y[i]) == victim]
            slot = of_class[draw.below(len(of_class))]
        self.put(slot, x, y, key)
        return slot

    def held(self) -> Counter[int]:
        """Count the samples in memory by class."""
        return Counter(class_of(self.y[i]) for i in self.slots())

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
        return {"count": self._count, "offered": sorted(self._offered.items())}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` gave; the slots are put back separately."""
        self._count = state["count"]
        self._offered = Counter({int(c): int(n) for c, n in state["offered"]})


def class_of(y: Label) -> int:
    """Class number of a label; every float target is class 0."""
    return y if isinstance(y, int) else 0
