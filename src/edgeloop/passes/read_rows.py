"""read_rows: compute only the rows that a later slice reads, such as the class token's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeloop.ir import Graph, Node, Value
from edgeloop.ops import Builder


@dataclass(frozen=True, slots=True)
class Rows:
    """``size`` neighbours along an axis, from ``start`` on."""

    axis: int
    start: int
    size: int

    def along(self, axis: int) -> Rows:
        """Return the same rows of another axis."""
        return Rows(axis, self.start, self.size)


@dataclass(frozen=True, slots=True)
class _Part:
    """A node that computes ``rows`` only: the rows it reads of each operand (None: all)."""

    rows: Rows
    reads: Sequence[Rows | None]
    attrs: Mapping[str, Any] = field(default_factory=dict)  # that differ from the node's


def read_rows(graph: Graph) -> Graph:
    """Move slices below the operators that work row by row, where nothing reads the other rows.

    A vision transformer's head reads the class token: of the other tokens, its last block needs
    only the keys and values.

    Requires: a forward graph; adapters in place. Ensures: equal results up to rounding (products
    of fewer rows may sum in another order); no node does more work.
    """
    wanted: dict[Value, Rows | None] = dict.fromkeys(graph.outputs)
    parts: dict[int, _Part] = {}

    def want(v: Value | None, rows: Rows | None) -> None:
        if v is not None:
            wanted[v] = rows if wanted.get(v, rows) == rows else None

    for n in reversed(graph.nodes):
        if (own := _sliced(n)) is not None:
            want(n.inputs[0], own)
            continue
        rows, rule = wanted.get(n.output), _RULES.get(n.op)
        part = None
        if rows is not None and rule is not None and not any(v in wanted for v in n.outputs[1:]):
            part = rule(n, rows)
        if part is not None:
            parts[id(n)] = part
        for i, v in enumerate(n.inputs):
            want(v, None if part is None else part.reads[i])
    return _rebuilt(graph, parts) if parts else graph


def _rebuilt(graph: Graph, parts: Mapping[int, _Part]) -> Graph:
    out = graph.copy()
    out.nodes = []
    g = Builder(out)
    for n in graph.nodes:
        if id(n) not in parts:
            g.reserve(v.name for v in n.outputs)
    same: dict[Value, Value] = {}  # a slice, and the value that is now computed in its place
    some: dict[tuple[Value, Rows], Value] = {}

    def read(v: Value | None, rows: Rows | None) -> Value | None:
        if v is None or rows is None:
            return None if v is None else same.get(v, v)
        if (v, rows) not in some:
            shape, starts = list(v.type.shape), [0] * v.type.rank
            shape[rows.axis], starts[rows.axis] = rows.size, rows.start
            some[v, rows] = g.op("slice", same.get(v, v), starts=tuple(starts),
                                 steps=(1,) * len(shape), shape=tuple(shape))
        return some[v, rows]

    for n in graph.nodes:
        g.layer = n.name
        part, own = parts.get(id(n)), _sliced(n)
        if part is not None:
            ins = [read(v, rows) for v, rows in zip(n.inputs, part.reads, strict=True)]
            made = g.ops(n.op, *ins, out=n.output.name, **(n.attrs | dict(part.attrs)))
            some[n.output, part.rows] = made[0]
        elif own is not None and (n.inputs[0], own) in some:
            same[n.output] = some[n.inputs[0], own]  # type: ignore[index]
        else:
            out.nodes.append(Node(n.op, tuple(read(v, None) for v in n.inputs), n.outputs,
                                  dict(n.attrs), n.name))
    out.outputs = [same.get(v, v) for v in out.outputs]
    return out


def _sliced(n: Node) -> Rows | None:
    """The rows that a slice along one axis takes."""
    x = n.inputs[0] if n.op == "slice" else None
    if x is None:
        return None
    cut = [k for k, d in enumerate(x.type.shape) if n.output.type.shape[k] != d]
    if len(cut) != 1:
        return None
    size = n.output.type.shape[cut[0]]
    plain = all(s == 1 or (k == cut[0] and size == 1) for k, s in enumerate(n.attrs["steps"]))
    return Rows(cut[0], n.attrs["starts"][cut[0]], size) if plain else None


def _elementwise(n: Node, rows: Rows) -> _Part | None:
    rank = n.output.type.rank
    reads = []
    for v in n.inputs:
        axis = -1 if v is None else rows.axis - rank + v.type.rank
        repeated = v is None or axis < 0 or v.type.shape[axis] == 1
        reads.append(None if repeated else rows.along(axis))
    return _Part(rows, reads) if any(reads) else None


def _rowwise(n: Node, rows: Rows) -> _Part | None:
    """Over the last axis of the first operand; a product's fourth is summed into it."""
    if rows.axis == n.output.type.rank - 1:
        return None
    return _Part(rows, [rows if i in (0, 3) else None for i in range(len(n.inputs))])


def _attention(n: Node, rows: Rows) -> _Part | None:
    if rows.axis != 1:
        return None
    mask = n.inputs[3] if len(n.inputs) > 3 else None
    by_query = mask is not None and mask.type.shape[2] > 1
    reads = [rows, None, None, rows.along(2) if by_query else None]
    attrs = {"offset": n.attrs.get("offset", 0) + rows.start} if n.attrs.get("causal") else {}
    return _Part(rows, reads[: len(n.inputs)], attrs)


def _rotary(n: Node, rows: Rows) -> _Part | None:
    if rows.axis != 1:
        return None
    turns = [rows.along(v.type.rank - 2) for v in n.inputs[1:] if v is not None]
    return _Part(rows, [rows, *turns])


def _reshape(n: Node, rows: Rows) -> _Part | None:
    x, shape = n.inputs[0], list(n.output.type.shape)
    assert x is not None
    before, size = math.prod(shape[: rows.axis]), shape[rows.axis]
    axis = next((k for k, d in enumerate(x.type.shape)
                 if d == size and math.prod(x.type.shape[:k]) == before), None)
    shape[rows.axis] = rows.size
    return None if axis is None else _Part(rows, [rows.along(axis)], {"shape": tuple(shape)})


def _transpose(n: Node, rows: Rows) -> _Part | None:
    return _Part(rows, [rows.along(n.attrs["perm"][rows.axis])])


_RULES: Mapping[str, Callable[[Node, Rows], _Part | None]] = {
    **dict.fromkeys(
        ("abs", "add", "clip", "cos", "div", "elu", "erf", "exp", "gelu", "gelu_tanh",
         "hard_sigmoid", "hard_swish", "leaky_relu", "log", "maximum", "minimum", "mul", "neg",
         "pow", "reciprocal", "relu", "sigmoid", "silu", "sin", "softplus", "sqrt", "sub",
         "tanh"), _elementwise),
    **dict.fromkeys(("layer_norm", "linear", "log_softmax", "rms_norm", "softmax"), _rowwise),
    "attention": _attention, "reshape": _reshape, "rotary": _rotary, "transpose": _transpose,
}
