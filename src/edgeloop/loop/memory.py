"""The loop's disjoint sets of samples, and how they go into the state file and come back."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.buffers import Novelty, Reservoir, Ring, Sketch, class_of, decoded
from edgeloop.data.rng import unit_of
from edgeloop.loop.sizes import signed, sizes_of
from edgeloop.store import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from edgeloop.data.item import Label
    from edgeloop.loop.config import Config
    from edgeloop.store import Store

TRAIN, VALIDATION, GATE = "train", "validation", "gate"
# Remembered samples from which on novelty is measured against them, not against the new ones.
REMEMBERED = 8


@dataclass
class Counts:
    """Samples that came.

    Attributes
    ----------
    since, novel, by_class
        Labelled samples since the last :meth:`clear`, novel ones among them, and all by class.
    duplicates
        Near-duplicates that were not kept, in all.
    """

    since: int = 0
    novel: int = 0
    by_class: Counter[int] = field(default_factory=Counter)
    duplicates: int = 0

    def clear(self) -> None:
        """Begin to count anew: an update starts."""
        self.since = self.novel = 0
        self.by_class.clear()

    def state(self) -> dict[str, Any]:
        """Return the counts as JSON types."""
        return vars(self) | {"by_class": sorted(self.by_class.items())}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        self.since, self.novel = state["since"], state["novel"]
        self.by_class = Counter({int(c): int(n) for c, n in state["by_class"]})
        self.duplicates = state["duplicates"]


class Memory:
    """New samples, rehearsal, validation and gate set; allocated once.

    A sample's set depends on its key and the seed alone, so a sample that comes twice never trains
    what it judges. Training samples hold several views, [views, *shape]. The gate set is f32
    whatever the storage: it is small, and what is served sees unrounded inputs.

    Attributes
    ----------
    counts
        What came since the last update; for triggers.
    pinned
        How many of the oldest new samples are the lesson of an update under way; None: no lesson
        is held fast.
    """

    def __init__(self, config: Config, shape: Sequence[int]) -> None:
        views, seed, b = config.train.augment.views, config.train.seed, config.buffer
        sizes = sizes_of(config, shape)
        self._shares = (config.gate.share, config.train.validation)
        self._seed, self._near, self._threshold = seed, b.near_duplicate, b.novelty_threshold
        self._sketch = Sketch(math.prod(shape), seed=seed) if signed(b) else None
        self._signature = np.zeros(0 if self._sketch is None else self._sketch.width, np.float32)
        self._novelty = Novelty()
        self.fresh = Ring(sizes.capacity, (views, *shape), storage=b.storage, sketch=self._sketch)
        self.rehearsal = Reservoir(
            sizes.rehearsal, (views, *shape), seed=seed, name="rehearsal", storage=b.storage,
            sketch=self._sketch, policy=b.policy,
        )
        self.validation = Reservoir(
            sizes.validation, shape, seed=seed, name="validation", storage=b.storage,
            policy="recent" if b.policy == "recent" else "balanced")
        self.gate = Reservoir(sizes.gate, shape, seed=seed, name="gate", policy=config.gate.policy)
        self._policy = b.policy
        self.counts = Counts()
        self.pinned: int | None = None
        self._sets: dict[str, Ring | Reservoir] = {
            TRAIN: self.fresh,
            "rehearsal": self.rehearsal,
            VALIDATION: self.validation,
            GATE: self.gate,
        }
        # Keys of the samples in the state file, by set and slot.
        self._written: dict[str, dict[int, str]] = {name: {} for name in self._sets}

    @property
    def novel(self) -> int | None:
        """Novel samples since the last update; None: nobody measures novelty."""
        return self.counts.novel if self._threshold else None

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        sketch = 0 if self._sketch is None else self._sketch.nbytes
        return sum(slots.nbytes for slots in self._sets.values()) + sketch

    def role(self, key: str) -> str:
        """Return the set that the sample of this key belongs to."""
        u = unit_of(self._seed, "role", key)
        gate, validation = self._shares
        return GATE if u < gate else VALIDATION if u < gate + validation else TRAIN

    def add(
        self, role: str, x: NDArray[np.float32], y: Label, key: str,
        views: Callable[[], NDArray[np.float32]],
    ) -> bool:
        """Count a sample and offer it to the set of its role; False: a near-duplicate, not kept.

        Only samples to train on are compared: the sets that judge are to look like the stream.
        ``views`` makes the views of a sample to train on.
        """
        if self._sketch is not None:
            self._sketch(x, self._signature)
            if role == TRAIN and self._near and self._held_like(x, y):
                self.counts.duplicates += 1
                return False
            if self._threshold and self._novelty_of(y) > self._threshold:
                self.counts.novel += 1
        self.counts.since += 1
        self.counts.by_class[class_of(y)] += 1
        if role == GATE:
            self.gate.offer(x, y, key)
        elif role == VALIDATION:
            self.validation.offer(x, y, key)
        else:
            self.add_fresh(views(), y, key)
        since = self.counts.since
        if self._threshold and since >= 4 and since & (since - 1) == 0:
            self._measure()
        return True

    def add_fresh(self, x: NDArray[np.float32], y: Label, key: str) -> None:
        """Add a training sample; what falls out of a full ring is offered to rehearsal.

        While a lesson is pinned a full ring takes no more: the new sample counts as an overrun.
        """
        if len(self.fresh) == self.fresh.capacity:
            if self.pinned is not None:
                self.fresh.overruns += 1
                return
            self.rehearsal.adopt(self.fresh, self.fresh.oldest())
        self.fresh.push(x, y, key)

    def novelty(self, x: NDArray[np.float32], y: Label) -> float:
        """How far x [*shape] is from what is remembered of its class, in typical distances.

        As :class:`edgeloop.data.buffers.Novelty`; measured against the rehearsal memory (what came
        since the last update does not make its like less novel), or against the new samples while
        fewer than 8 are remembered. 0 where buffer.novelty_threshold and near_duplicate are off.
        """
        if self._sketch is None:
            return 0.0
        self._sketch(x, self._signature)
        return self._novelty_of(y)

    # The lesson of an update

    def lesson(self) -> list[int]:
        """Slots of the new samples to train on, oldest first: the pinned ones, or all."""
        return self.fresh.slots()[: self.pinned]

    def pin(self) -> None:
        """Hold the lesson fast: all samples that are in the sets now, but those of the gate.

        Until :meth:`unpin` or :meth:`retire` rehearsal and validation take no offers and new
        samples overwrite none of the pinned ones. What is pinned already stays as it is.
        """
        if self.pinned is None:
            self.pinned = len(self.fresh)
        self._freeze(frozen=True)

    def unpin(self) -> None:
        """Let the sets go on; the new samples stay where they are."""
        self.pinned = None
        self._freeze(frozen=False)

    def retire(
        self, count: int | None = None, *,
        score: Callable[[NDArray[np.float32], Label], float] | None = None,
    ) -> None:
        """Hand new samples to rehearsal, as an update has used them; ends :meth:`pin`.

        Parameters
        ----------
        count
            How many, the oldest first; None: the lesson's.
        score
            Loss of the live version on one sample (x [*shape], y). With policy "loss" it is asked
            for every remembered sample and those that are handed over.
        """
        used = self.fresh.slots()[: len(self.lesson()) if count is None else count]
        self.unpin()
        if score is not None and self._policy == "loss":
            for slots, which in ((self.rehearsal, self.rehearsal.slots()), (self.fresh, used)):
                for slot in which:
                    slots.loss[slot] = score(slots.view(slot, 0), slots.y[slot])
        for slot in used:
            self.rehearsal.adopt(self.fresh, slot)
        if len(used) == len(self.fresh):
            self.fresh.clear()
        else:
            for _ in used:
                self.fresh.pop()
        if self._threshold:
            self._measure()

    def _freeze(self, *, frozen: bool) -> None:
        self.rehearsal.frozen = self.validation.frozen = frozen

    # Signatures

    def _held_like(self, x: NDArray[np.float32], y: Label) -> bool:
        return any(slots.holds_like(x, self._signature, y, self._near)
                   for slots in (self.fresh, self.rehearsal))

    def _novelty_of(self, y: Label) -> float:
        return self._novelty(self._signature, y, self._known())

    def _known(self) -> Ring | Reservoir:
        return self.rehearsal if len(self.rehearsal) >= REMEMBERED else self.fresh

    def _measure(self) -> None:
        """Measure the typical distance: when an update ends, and 4, 8, 16, ... samples after it."""
        known = self._known()
        self._novelty.refresh(known, list(known.slots()))

    # In the state file

    def save(self, store: Store, source: str) -> dict[str, Any]:
        """Write the slots that changed; return the rest of the state as JSON types.

        ``source``: where samples that are new come from.
        """
        for name, slots in self._sets.items():
            changed, written = sorted(slots.changed), self._written[name]
            # The number in front makes the key unique and gives the slot back.
            rows = {i: f"{i:06d}:{slots.key[i]}" for i in changed}
            held = set(slots.slots())
            gone = [i for i, row in written.items() if i not in held or rows.get(i, row) != row]
            if gone:
                store.drop_samples(name, [written.pop(i) for i in gone])
            store.put_samples([Sample(name, slots.stored(i), slots.y[i], rows[i]) for i in changed])
            store.arrived([slots.key[i] for i in changed], source)
            written.update(rows)
            slots.changed.clear()
        return self._layout() | {name: slots.state() for name, slots in self._sets.items()} | {
            "counts": self.counts.state(),
            "typical": self._novelty.typical,
            "pinned": self.pinned,
        }

    def load(self, store: Store, state: dict[str, Any]) -> None:
        """Read back what :meth:`save` wrote; other sizes than then keep as much as fits."""
        same = state["layout"] == self._layout()["layout"]
        for name, slots in self._sets.items():
            samples = store.samples(name)
            if not same:
                store.drop_samples(name)
            for sample in samples:
                number, _, key = sample.key.partition(":")
                if same:
                    slot = int(number)
                    slots.restore(slot, sample.x, sample.y, key)
                    if slot in self._written[name]:  # left by a library that did not drop them
                        store.drop_samples(name, [self._written[name][slot]])
                    self._written[name][slot] = sample.key
                    continue
                x = _views(decoded(sample.x), slots.x.shape[1:])
                if isinstance(slots, Ring):
                    slots.push(x, sample.y, key)
                else:
                    slots.offer(x, sample.y, key)
            if same:
                slots.load(state[name])
                slots.changed.clear()
        if "counts" in state:
            self.counts.load(state["counts"])
            self._novelty.typical = state["typical"]
        if same and state.get("pinned") is not None:
            self.pinned = state["pinned"]
            self._freeze(frozen=True)

    def _layout(self) -> dict[str, Any]:
        return {"layout": {
            name: list(slots.x.shape) + ([] if slots.storage == "f32" else [slots.storage])
            for name, slots in self._sets.items()
        }}


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
    rows = x.reshape(-1, *shape[1:])
    chosen: NDArray[np.float32] = rows[np.arange(shape[0]) % len(rows)]
    return chosen
