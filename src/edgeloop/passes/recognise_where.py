"""Find `where` that tf2onnx wrote as arithmetic: c * a + (not c) * b, with c 0 or 1."""

from __future__ import annotations

import numpy as np

from edgeloop.ir import Array, Graph, Node, Value
from edgeloop.ops import Builder
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.patterns import Reader


def recognise_where(graph: Graph) -> Graph:
    """Write a sum of two products with a condition and its opposite as ``where``.

    The condition is computed, or a constant whose opposite was multiplied into a constant.

    Requires: a forward graph, constants folded. Ensures: equal results where both branches are
    finite; what does not match, or one of whose products has another reader, stays as it was.
    """
    read = Reader(graph)
    found: dict[int, _Choice] = {}
    for i, n in enumerate(graph.nodes):
        terms = read.pair(n) if n.op == "add" else None
        for a, b in () if terms is None else (terms, terms[::-1]):
            choice = _computed(read, a, b) or _constant(read, a, b)
            if choice is not None:
                found[i] = choice
                break
    out = graph.copy()
    g = Builder(out)
    for i, choice in found.items():
        n = graph.nodes[i]
        ins = tuple(v if isinstance(v, Value) else g.constant(v) for v in choice)
        if np.broadcast_shapes(*(v.type.shape for v in ins)) == n.output.type.shape:
            out.nodes[i] = Node("where", ins, n.outputs, {}, n.name)
    return drop_dead(out)


_Choice = tuple[Value | Array, Value, Value | Array]


def _computed(read: Reader, left: Value, right: Value) -> _Choice | None:
    """(c, a, b) of cast(c) * a + cast(not c) * b."""
    first, second = (read.pair(read.inner(v, "mul")) for v in (left, right))
    if first is None or second is None:
        return None
    for f, a in (first, first[::-1]):
        for h, b in (second, second[::-1]):
            c, d = (_source(read, v) for v in (f, h))
            if c is not None and d is not None and _opposite(read, d, c):
                return (c, a, b) if _is_condition(read, c) else None
    return None


def _source(read: Reader, v: Value) -> Value | None:
    """The condition behind a cast to floats."""
    n = read.producers.get(v)
    x = n.inputs[0] if n is not None and n.op == "cast" else None
    return x if x is not None and x.type.dtype == "i32" else None


def _opposite(read: Reader, d: Value, c: Value) -> bool:
    """Tell whether d is `c == 0`."""
    n = read.producers.get(d)
    operands = read.pair(n) if n is not None and n.op == "compare" else None
    if n is None or operands is None or n.attrs.get("kind", "equal") != "equal":
        return False
    return any(x is c and read.number(y) == 0 for x, y in (operands, operands[::-1]))


def _is_condition(read: Reader, v: Value | None) -> bool:
    """Tell whether v is 0 or 1 everywhere."""
    array = None if v is None else read.constants.get(v)
    if array is not None:
        return bool(((array == 0) | (array == 1)).all())
    n = None if v is None else read.producers.get(v)
    if n is None or n.op == "compare":
        return n is not None
    if n.op in ("reshape", "transpose", "broadcast_to", "slice", "gather", "identity"):
        return _is_condition(read, n.inputs[0])
    logic = n.op == "integer" and n.attrs.get("kind") in ("and", "or", "xor")
    return logic and all(_is_condition(read, i) for i in n.inputs)


def _constant(read: Reader, left: Value, right: Value) -> _Choice | None:
    """(c, a, b) of c * a + b where the constant b is 0 wherever the constant c is 1."""
    operands = read.pair(read.inner(left, "mul"))
    fill = read.constants.get(right)
    if operands is None or fill is None:
        return None
    for keep, a in (operands, operands[::-1]):
        c = read.constants.get(keep)
        if c is None or c.shape != fill.shape or not ((c == 0) | (c == 1)).all():
            continue
        if fill[c == 1].any() or not (c == 0).any():
            continue
        rest = np.unique(fill[c == 0])
        return c.astype(np.int32), a, rest.reshape(()) if rest.size == 1 else right
    return None
