"""fetch: a frozen weight, or some rows of it, brought from where it is kept into the arena.

``passes/stream_weights.py`` puts it in, ahead of the weight's reader. A kernel copies; a session
over a mapped program has a thread that reads the file instead, while other steps compute.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Type
from edgeloop.ops.common import normal
from edgeloop.ops.registry import NO_GRAD, Attr, OpDef, Sample, register


def _infer(w: Type, first: int = 0, rows: int = 0) -> Type:
    """``rows`` rows from ``first`` on; 0: all of w."""
    if not rows and not first:
        return w
    if w.rank < 1 or rows < 1 or not 0 <= first <= w.shape[0] - rows:
        raise ShapeError(f"fetch: {rows} rows from {first} on are none of {w}")
    return Type((rows, *w.shape[1:]), w.dtype)


def _reference(w: Array, first: int = 0, rows: int = 0) -> Array:
    return w[first : first + rows].copy() if rows else w.copy()


def _samples() -> Iterator[Sample]:
    yield Sample((normal(1),))
    yield Sample((normal(3, 5, 7),))
    yield Sample((normal(3, 5, 7),), {"first": 1, "rows": 2})
    for dtype in (np.int32, np.int8, np.uint8, np.uint16):
        w = np.arange(77).reshape(7, 11).astype(dtype)
        yield Sample((w,))
        yield Sample((w,), {"first": 3, "rows": 4})


register(OpDef(
    name="fetch", kernel="fetch", infer=_infer, reference=_reference, grad=NO_GRAD,
    samples=_samples, attrs=(Attr("first"), Attr("rows")), flops=lambda _: 0,
))
