"""Loops over a known number of steps, such as Keras' recurrent layers in tf2onnx: unrolled.

Every step reads the same weights, so that they stay one weight with one adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import numpy as np
import onnx

from edgeloop.ir import Array, Value
from edgeloop.ops import OPS, Builder, OnnxNode

MOST_STEPS: Final = 512
T = TypeVar("T")


def unroll(
    trips: int | None,
    carried: Sequence[T],
    step: Callable[[int, Sequence[T]], list[T]],
    goes_on: Callable[[T], bool | None],
) -> tuple[list[T], list[list[T]]] | str:
    """Run ``step`` until the loop ends: (last carried values, scan outputs by step).

    ``step`` returns the body's outputs; ``goes_on`` reads the condition, None if it is not known.
    Returns why not, where that is.
    """
    values, scans = list(carried), []
    count = 0
    while trips is None or count < trips:
        if count == MOST_STEPS:
            return f"it has more than {MOST_STEPS} steps"
        condition, *results = step(count, values)
        values, rest = results[:len(values)], results[len(values):]
        scans.append(rest)
        count += 1
        more = goes_on(condition)
        if more is None:
            return "when it ends is computed at run time"
        if not more:
            break
    return values, scans


def body_of(node: onnx.NodeProto) -> onnx.GraphProto:
    """Return the graph that a Loop repeats."""
    body: onnx.GraphProto = next(a.g for a in node.attribute if a.name == "body")
    return body


def stacked(g: Builder, name: str, parts: Sequence[Value | Array]) -> Value | Array:
    """Join one scan output of all steps along a new first axis."""
    arrays = [p for p in parts if not isinstance(p, Value)]
    if len(arrays) == len(parts):
        return np.stack(arrays)
    values = list(_rows(g, parts))
    return OPS["concat"].onnx["Concat"](  # type: ignore[return-value]
        g, OnnxNode("Concat", name, tuple(values), {"axis": 0}, consts=(None,) * len(values)))


def _rows(g: Builder, parts: Sequence[Value | Array]) -> Iterator[Value]:
    for p in parts:
        v = p if isinstance(p, Value) else g.constant(p)
        yield g.op("reshape", v, shape=(1, *v.type.shape))
