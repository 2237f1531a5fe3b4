"""The newest samples, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeloop.data.buffers.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from edgeloop.data.buffers.sketch import Sketch
    from edgeloop.data.item import Label


class Ring(Slots):
    """The newest samples in order of arrival; a push into a full ring drops the oldest.

    Attributes
    ----------
    overruns
        Samples dropped by pushes so far.
    """

    def __init__(
        self, capacity: int, shape: Sequence[int], *, storage: str = "f32",
        sketch: Sketch | None = None,
    ) -> None:
        super().__init__(capacity, shape, storage=storage, sketch=sketch)
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
        self._used[slot] = False
        self.changed.discard(slot)
        return slot

    def slots(self) -> list[int]:
        """Slots in use, oldest first."""
        return [(self._next - self._count + i) % self.capacity for i in range(self._count)]

    def clear(self) -> None:
        """Forget every sample."""
        self._count = 0
        self._next = 0
        self._used[:] = False
        self.changed.clear()

    def state(self) -> dict[str, Any]:
        """Return everything but the samples, as JSON types."""
        return {"next": self._next, "count": self._count, "overruns": self.overruns}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` gave; the slots are put back separately."""
        self._next, self._count = state["next"], state["count"]
        self.overruns = state["overruns"]
        self._used[:] = False
        self._used[self.slots()] = True
