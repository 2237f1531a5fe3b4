"""What several ONNX converters share: constants reshaped at once, channels-last wrapping."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeloop.errors import ModelError
from edgeloop.ir import Array, Stored, Value
from edgeloop.ops.builder import Builder, OnnxNode


def transposed(g: Builder, v: Value, perm: tuple[int, ...]) -> Value:
    """Return ``v`` with its dims permuted: a new constant, or a transpose node."""
    if perm == tuple(range(len(perm))):
        return v
    array = g.const(v)
    if array is not None:
        entry = g.graph.stored.get(v)
        return _kept(g, v, np.transpose(array, perm), entry and entry.transposed(perm))
    return g.op("transpose", v, perm=perm)


def bare(g: Builder, v: Value, shape: tuple[int, ...]) -> Value:
    """Return ``v`` under another shape of the same size: a new constant, or a reshape node."""
    if v.type.shape == shape:
        return v
    array = g.const(v)
    if array is not None:
        entry = g.graph.stored.get(v)
        return _kept(g, v, array.reshape(shape), entry and entry.reshaped(shape))
    return g.op("reshape", v, shape=shape)


def _kept(g: Builder, v: Value, array: Array, entry: Stored | None) -> Value:
    """Return a constant made of ``v``'s elements, stored in the same codes where they serve."""
    made = g.constant(array, v.name)
    if entry is not None:
        g.graph.stored[made] = entry
    return made


def channels_last(g: Builder, n: OnnxNode, build: Callable[[Value], Value]) -> Value:
    """Apply ``build`` to input 0 as [b, h, w, c] and bring its result back to ONNX layout.

    [b, c, h, w] is transposed; [b, c, l] becomes an image of height 1.
    """
    x = n.inputs[0]
    assert x is not None
    if x.type.rank == 4:
        return transposed(g, build(transposed(g, x, (0, 2, 3, 1))), (0, 3, 1, 2))
    if x.type.rank != 3:
        raise ModelError(
            f"{n.op_type} node '{n.name}': input {x.type} has {x.type.rank - 2} spatial dims; "
            "only 1-D and 2-D are supported"
        )
    b, c, length = x.type.shape
    image = g.op("reshape", transposed(g, x, (0, 2, 1)), shape=(b, 1, length, c))
    y = build(image)
    flat = g.op("reshape", y, shape=(b, *y.type.shape[2:]))
    return transposed(g, flat, (0, 2, 1))


def pair(values: object, default: int, *, axes: int) -> tuple[int, int]:
    """Return an ONNX per-axis attribute for (height, width); a 1-D operator has height 1."""
    items = [default] * axes if values is None else [int(v) for v in values]  # type: ignore[attr-defined]
    return (default, items[0]) if axes == 1 else (items[0], items[1])
