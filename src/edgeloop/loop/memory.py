"""The loop's disjoint sets of samples, and how they go into the state file and come back."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.buffers import Reservoir, Ring
from edgeloop.data.rng import unit_of
from edgeloop.store import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgeloop.data.item import Label
    from edgeloop.loop.config import Config
    from edgeloop.store import Store

TRAIN, VALIDATION, GATE = "train", "validation", "gate"


class Memory:
    """New samples, rehearsal, validation and gate set; allocated once.

    A sample's set depends on its key and the seed alone, so a sample that comes twice never trains
    what it judges. Training samples hold several views, [views, *shape].
    """

    def __init__(self, config: Config, shape: Sequence[int]) -> None:
        views, seed = config.train.augment.views, config.train.seed
        self._shares = (config.gate.share, config.train.validation)
        self._seed = seed
        self.fresh = Ring(config.buffer.capacity, (views, *shape))
        self.rehearsal = Reservoir(
            config.buffer.rehearsal, (views, *shape), seed=seed, name="rehearsal"
        )
        self.validation = Reservoir(config.buffer.validation, shape, seed=seed, name="validation")
        self.gate = Reservoir(config.gate.size, shape, seed=seed, name="gate")
        self._fresh_dropped = False
        self._sets: dict[str, Ring | Reservoir] = {
            TRAIN: self.fresh,
            "rehearsal": self.rehearsal,
            VALIDATION: self.validation,
            GATE: self.gate,
        }

    def role(self, key: str) -> str:
        """Return the set that the sample of this key belongs to."""
        u = unit_of(self._seed, "role", key)
        gate, validation = self._shares
        return GATE if u < gate else VALIDATION if u < gate + validation else TRAIN

    def add_fresh(self, x: NDArray[np.float32], y: Label, key: str) -> None:
        """Add a training sample; what falls out of a full ring is offered to rehearsal."""
        if len(self.fresh) == self.fresh.capacity:
            self._remember(self.fresh.oldest())
        self.fresh.push(x, y, key)

    def retire(self) -> None:
        """Hand the new samples to rehearsal: an update has used them."""
        for slot in self.fresh.slots():
            self._remember(slot)
        self.fresh.clear()
        self._fresh_dropped = True

    def _remember(self, slot: int) -> None:
        ring = self.fresh
        self.rehearsal.offer(ring.x[slot], ring.y[slot], ring.key[slot])

    def save(self, store: Store, source: str) -> dict[str, Any]:
        """Write the slots that changed; return the rest of the state as JSON types.

        ``source``: where samples that are new come from.
        """
        if self._fresh_dropped:
            store.drop_samples(TRAIN)
            self._fresh_dropped = False
        for name, slots in self._sets.items():
            # The number in front makes the key unique and gives the slot back.
            store.put_samples(
                [
                    Sample(name, slots.x[i], slots.y[i], f"{i:06d}:{slots.key[i]}")
                    for i in sorted(slots.changed)
                ]
            )
            store.arrived([slots.key[i] for i in sorted(slots.changed)], source)
            slots.changed.clear()
        return self._layout() | {name: slots.state() for name, slots in self._sets.items()}

    def load(self, store: Store, state: dict[str, Any]) -> None:
        """Read back what :meth:`save` wrote; other sizes than then keep as much as fits."""
        same = state["layout"] == self._layout()["layout"]
        for name, slots in self._sets.items():
            samples = store.samples(name)
            if not same:
                store.drop_samples(name)
            for sample in samples:
                number, _, key = sample.key.partition(":")
                x = _views(sample.x, slots.x.shape[1:])
                if same:
                    slots.put(int(number), x, sample.y, key)
                elif isinstance(slots, Ring):
                    slots.push(x, sample.y, key)
                else:
                    slots.offer(x, sample.y, key)
            if same:
                slots.load(state[name])
                slots.changed.clear()

    def _layout(self) -> dict[str, Any]:
        return {"layout": {name: list(slots.x.shape) for name, slots in self._sets.items()}}


def unsettled(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state of :meth:`Memory.save` whose samples are sorted in anew when it is loaded.

    For samples that are gone: the others move up, and what is left of a class counts as all that
    there ever was of it.
    """
    return state | {"layout": {}}


class BaseMemory:
    """Samples of the base task that came with the model: some to rehearse, some as anchors."""

    def __init__(self, capacity: int, shape: Sequence[int], *, anchor: float, seed: int) -> None:
        self.rehearsal = Reservoir(capacity, (1, *shape), seed=seed, name="base")
        self.anchors = Reservoir(capacity, shape, seed=seed, name="anchors")
        self._share, self._seed = anchor, seed

    def add(self, x: NDArray[np.float32], y: Label, key: str) -> None:
        """Put a sample into the one set or the other."""
        if unit_of(self._seed, "anchor", key) < self._share:
            self.anchors.offer(x, y, key)
        else:
            self.rehearsal.offer(x[np.newaxis], y, key)

    def digest(self) -> str:
        """Hash of the anchors: another set of them means another score to hold."""
        digest = hashlib.sha256()
        for slot in self.anchors.slots():
            digest.update(self.anchors.x[slot].tobytes() + repr(self.anchors.y[slot]).encode())
        return digest.hexdigest()


def _views(x: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Repeat or cut the views of a stored sample so that it fills `shape`."""
    if x.shape == shape:
        return x
    chosen: NDArray[np.float32] = x[np.arange(shape[0]) % x.shape[0]]
    return chosen
