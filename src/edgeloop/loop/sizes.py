"""How many samples each set holds: as configured, or as many as a number of bytes has room for."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from edgeloop.data.buffers import sketch_bytes, slots_bytes
from edgeloop.data.buffers.sketch import WIDTH
from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeloop.loop.config import BufferConfig, Config

# Of `buffer.bytes`. Most goes to what is trained on; the others only have to be large enough to
# tell, and the gate set is f32 whatever the storage.
SHARES = {"capacity": 0.4, "rehearsal": 0.4, "validation": 0.1, "gate": 0.1}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Samples that each set holds at most: new ones, rehearsal, validation, gate."""

    capacity: int
    rehearsal: int
    validation: int
    gate: int


@dataclass(frozen=True, slots=True)
class SetBytes:
    """Bytes of the arrays of each set, and of what makes the signatures."""

    capacity: int
    rehearsal: int
    validation: int
    gate: int
    sketch: int

    @property
    def total(self) -> int:
        """Sum, in bytes."""
        return sum(getattr(self, f.name) for f in fields(self))


def signed(buffer: BufferConfig) -> bool:
    """Whether anything asks for signatures of the samples to train on."""
    return buffer.near_duplicate > 0.0 or buffer.novelty_threshold > 0.0


def set_bytes(config: Config, shape: Sequence[int], sizes: Sizes) -> SetBytes:
    """Bytes that the sets of these sizes take; `shape` is that of one model input."""
    b, views = config.buffer, config.train.augment.views
    numbers = min(math.prod(shape), WIDTH) if signed(b) else 0
    return SetBytes(
        capacity=slots_bytes(sizes.capacity, (views, *shape), b.storage, numbers),
        rehearsal=slots_bytes(sizes.rehearsal, (views, *shape), b.storage, numbers),
        validation=slots_bytes(sizes.validation, shape, b.storage, 0),
        gate=slots_bytes(sizes.gate, shape, "f32", 0),
        sketch=sketch_bytes(math.prod(shape)) if numbers else 0,
    )


def sizes_of(config: Config, shape: Sequence[int]) -> Sizes:
    """Sizes of the sets for model inputs of this shape.

    Without `buffer.bytes` they are those of the configuration or its defaults. With it, counts that
    are given stand, the gate set gets at least gate.min_samples, and the other sets divide what is
    left by :data:`SHARES`.

    Raises
    ------
    ConfigError
        The bytes have no room for what is given and one new sample.
    """
    b, g = config.buffer, config.gate
    if b.bytes is None:
        return Sizes(
            capacity=256 if b.capacity is None else b.capacity,
            rehearsal=256 if b.rehearsal is None else b.rehearsal,
            validation=64 if b.validation is None else b.validation,
            gate=g.size,
        )
    given = {"capacity": b.capacity, "rehearsal": b.rehearsal, "validation": b.validation,
             "gate": g.capacity}
    empty = set_bytes(config, shape, Sizes(0, 0, 0, 0))
    one = set_bytes(config, shape, Sizes(1, 1, 1, 1))
    each = {name: getattr(one, name) - getattr(empty, name) for name in given}

    least = {"capacity": 1, "rehearsal": 0, "validation": 0, "gate": g.min_samples}
    floor = Sizes(**{k: least[k] if n is None else n for k, n in given.items()})
    needed = set_bytes(config, shape, floor)
    if needed.total > b.bytes:
        raise ConfigError(
            f"{config.name}: buffer.bytes: is {b.bytes}; the sets need at least {needed.total} "
            f"bytes ({floor}; a new sample takes {each['capacity']}); raise it, lower the counts "
            "that are given or gate.min_samples, or store samples narrower (buffer.storage)"
        )
    made = _divided(b.bytes - empty.total, given, each)
    # A small share may be less than a set must hold.
    while short := [k for k in least if given[k] is None and made[k] < least[k]]:
        given |= {name: least[name] for name in short}
        made = _divided(b.bytes - empty.total, given, each)
    return Sizes(**made)


def _divided(
    room: int, given: dict[str, int | None], each: dict[str, int]
) -> dict[str, int]:
    """Give the sets without a number their shares of what the others leave of `room`."""
    left = room - sum(n * each[name] for name, n in given.items() if n is not None)
    shares = sum(SHARES[name] for name, n in given.items() if n is None)
    return {name: int(left * (SHARES[name] / shares) / each[name]) if n is None else n
            for name, n in given.items()}
