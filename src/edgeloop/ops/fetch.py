"""fetch: a frozen weight brought from where it is kept into the arena.

``passes/stream_weights.py`` puts it in, ahead of the weight's reader. A kernel copies; a session
over a mapped program has a thread that reads the file instead, while other steps compute.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeloop.ir import Array
from edgeloop.ops.common import normal, same
from edgeloop.ops.registry import NO_GRAD, OpDef, Sample, register


def _reference(w: Array) -> Array:
    return w.copy()


def _samples() -> Iterator[Sample]:
    yield Sample((normal(1),))
    yield Sample((normal(3, 5, 7),))
    for dtype in (np.int32, np.int8, np.uint8, np.uint16):
        yield Sample((np.arange(77).reshape(7, 11).astype(dtype),))


register(OpDef(
    name="fetch", kernel="fetch", infer=same, reference=_reference, grad=NO_GRAD,
    samples=_samples, flops=lambda _: 0,
))
