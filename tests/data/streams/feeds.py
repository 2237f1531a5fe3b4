"""Feeds of blocks for the tests of streams."""

from __future__ import annotations

import numpy as np

from edgeloop.data.item import Item

START = 1.7e9


class Blocks:
    """A feed of what it is given."""

    name = "feed"

    def __init__(self, records, *, replayable=True):
        self.records, self.replayable = records, replayable

    def items(self, start=0):
        yield from list(self.records)[start:] if self.replayable else self.records


def block(first, n, *, rate=100.0, time=True, y=None, stream=None, late=0, channels=1, **meta):
    """Samples that say their own number, sensed `late` samples later than their number says."""
    x = np.repeat(np.arange(first, first + n, dtype=np.float32)[:, None], channels, axis=1)
    meta = meta if stream is None else {"stream": stream, **meta}
    at = START + (first + late) / rate if time else None
    return Item(x, y, f"b{first}", meta, at)


def read(source, start=0):
    """Everything, with arrays that stay."""
    return [
        Item(r.x.copy(), r.y, r.key, r.meta, r.time) if isinstance(r, Item) else r
        for r in source.items(start)
    ]


def alike(one, two):
    return [(r.x.tobytes(), r.y, r.key, r.time) for r in one] == [
        (r.x.tobytes(), r.y, r.key, r.time) for r in two
    ]
