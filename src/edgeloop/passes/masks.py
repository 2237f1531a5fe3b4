"""What is added to attention scores, read back: causal, constant, or computed at run time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeloop.ir import Array, Node, Value
from edgeloop.ops import Builder
from edgeloop.ops.onnx_helpers import bare

# From here on down a score means "not seen": its exponential is 0 beside any seen one.
HIDDEN = -1e4


@dataclass(frozen=True, slots=True)
class Term:
    """A value that is added, or a condition that lets a score stand where it is ``keep``.

    Elsewhere the score is ``fill``. ``over`` is the shape of the scores there.
    """

    value: Value
    fill: float | None = None
    keep: bool = True
    over: tuple[int, ...] = ()


@dataclass(slots=True)
class Masks:
    """All terms of one attention whose scores are [b, h, s, t]."""

    g: Builder
    made: Mapping[Value, Node]
    shape: tuple[int, ...]
    # Masks that another attention of this graph made already.
    shared: dict[tuple[Value, float], Value]
    causal: int | None = None
    known: Array | None = None
    values: list[Value] = field(default_factory=list)

    def add(self, term: Term) -> bool:
        """Take a term; False if it does not broadcast to the scores or cannot be added exactly."""
        array = self.g.const(term.value)
        if array is None:
            return self._computed(term) if term.fill is None else self._condition(
                term.value, term.fill, keep=term.keep)
        if term.fill is not None:
            array = np.where((array != 0) == term.keep, np.float32(0), np.float32(term.fill))
        if len(term.over) == 5 and array.ndim == 5:  # the batch in two dims, as windows have it
            lead = np.broadcast_to(array, (*term.over[:2], *array.shape[2:]))
            array = lead.reshape(-1, *array.shape[2:])
        rank4 = self._shaped(array.shape)
        if rank4 is None:
            return False
        array = array.reshape(rank4)
        if term.fill is not None and term.fill > -1e30:
            full = np.broadcast_to(array, self.shape)
            if not term.fill <= HIDDEN or (full <= HIDDEN).all(axis=-1).any():
                return False  # such a row keeps the differences of its scores, if only added to
        self.known = array if self.known is None else self.known + array
        return True

    def _computed(self, term: Term) -> bool:
        """Add a value; one that is 0 or a fill under a condition is taken apart."""
        n = self.made.get(term.value)
        if n is not None and n.op == "where":
            c, a, b = n.inputs
            for zero, fill, keep in ((a, b, True), (b, a, False)):
                low = self.g.const(fill)
                nothing = self.g.const(zero)
                if c is None or low is None or nothing is None or low.size != 1 or nothing.any():
                    continue
                if float(low.reshape(-1)[0]) <= -1e30:
                    return self._condition(c, float(low.reshape(-1)[0]), keep=keep)
        return self._plain(term.value)

    def _plain(self, v: Value) -> bool:
        rank4 = self._shaped(v.type.shape)
        if rank4 is None:
            return False
        self.values.append(bare(self.g, v, rank4))
        return True

    def _condition(self, c: Value, fill: float, *, keep: bool) -> bool:
        """Add where(c, 0, fill); the constant parts of a conjunction are taken out of it."""
        if fill > -1e30 or self._shaped(c.type.shape) is None:
            return False
        rest = c
        n = self.made.get(c)
        while keep and n is not None and n.op == "integer" and n.attrs.get("kind") == "and":
            sides = [(x, y) for x, y in (n.inputs, n.inputs[::-1])
                     if x is not None and y is not None and self.g.const(x) is not None
                     and self._seen_by(x)]
            if not sides or sides[0][1] is None:
                break
            rest = sides[0][1]
            n = self.made.get(rest)
        key = (rest, fill if keep else -fill)
        if key not in self.shared:
            ends = self.g.constant(0.0), self.g.constant(fill)
            self.shared[key] = self.g.op("where", rest, *(ends if keep else ends[::-1]))
        return self._plain(self.shared[key])

    def _seen_by(self, c: Value) -> bool:
        """Take a constant condition that hides nothing, or exactly what is later than a query."""
        array = self.g.const(c)
        if array is None or set(np.unique(array)) - {0, 1}:
            return False
        if array.all():
            return True
        shape = self._shaped(array.shape)
        offset = None if shape is None else causal_offset(array.reshape(shape), self.shape)
        if offset is None or self.causal not in (None, offset):
            return False
        self.causal = offset
        return True

    def _shaped(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return a term's shape with 4 dims, None where it does not broadcast to the scores."""
        b, h, s, t = self.shape
        rank4 = (1,) * (4 - len(shape)) + shape
        if len(shape) == 3 and shape[0] == b * h != 1:  # scores of all heads in one dim
            rank4 = (b, h, *shape[1:])
        fits = len(rank4) == 4 and all(
            m in (1, n) for m, n in zip(rank4, (b, h, s, t), strict=True))
        return rank4 if fits else None

    def finish(self) -> tuple[Value | None, dict[str, Any]]:
        """Return the mask that is left, and the attributes of a causal one."""
        if self.known is not None:
            hidden = self.known <= HIDDEN
            plain = not self.known[~hidden].any()
            offset = causal_offset(~hidden, self.shape) if plain else None
            if offset is not None and self.causal in (None, offset):
                self.causal = offset
            elif hidden.any() or not plain:
                self.values.append(self.g.constant(self.known, "mask"))
        total = self.values[0] if self.values else None
        for v in self.values[1:]:
            assert total is not None
            total = self.g.op("add", total, v)
        return total, {} if self.causal is None else {"causal": 1, "offset": self.causal}


def causal_offset(seen: Array, shape: tuple[int, ...]) -> int | None:
    """Return k where exactly the keys j <= i + k are seen and each query sees one, else None."""
    s, t = shape[2:]
    full = np.broadcast_to(seen != 0, (*seen.shape[:2], s, t))
    offset = int(full[0, 0, 0].sum()) - 1
    if offset < 0 or offset >= t - 1:
        return None
    i, j = np.ogrid[:s, :t]
    return offset if bool((full == (j <= i + offset)).all()) else None
