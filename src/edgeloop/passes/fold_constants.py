"""Evaluate what depends on constants alone."""

from __future__ import annotations

from collections.abc import Collection

from edgeloop.ir import Graph, Node, Stored, Value
from edgeloop.ops import OPS, Builder
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.rewrite import rewrite


def fold_constants(graph: Graph, only: Collection[str] | None = None) -> Graph:
    """Replace nodes whose inputs are all frozen by their value; ``only`` those of some operators.

    Requires: a verified graph. Ensures: no node has only constant inputs, except losses' and
    optimizers' (none exist before training is attached). A stored constant that is transposed,
    reshaped or scaled by channel stays stored where its codes allow it.
    """

    def rule(g: Builder, node: Node) -> tuple[Value, ...] | None:
        if only is not None and node.op not in only:
            return None
        arrays = [g.const(v) for v in node.inputs]
        if any(a is None and v is not None for a, v in zip(arrays, node.inputs, strict=True)):
            return None
        # A transposed or reshaped weight keeps its name, so that files stay readable.
        name = node.inputs[0].name if node.inputs and node.inputs[0] is not None else node.op
        entry = _carried(g.graph, node)
        if entry is not None:
            value = g.constant(entry.array(), name)
            g.graph.stored[value] = entry
            return (value,)
        result = OPS[node.op].reference(*arrays, **node.attrs)
        results = result if isinstance(result, tuple) else (result,)
        return tuple(g.constant(r, name) for r in results)

    return drop_dead(rewrite(graph, rule))


def _carried(graph: Graph, node: Node) -> Stored | None:
    """Return the entry of a node's result when its input is stored and its codes still serve."""
    entry = graph.stored.get(node.inputs[0]) if node.inputs and node.inputs[0] else None
    if entry is None:
        return None
    if node.op == "transpose":
        return entry.transposed(tuple(node.attrs["perm"]))
    if node.op == "reshape":
        return entry.reshaped(tuple(node.attrs["shape"]))
    if node.op == "mul" and node.inputs[1] in graph.constants:
        factor = graph.constants[node.inputs[1]]
        rank = entry.codes.ndim
        channels = (1,) * entry.axis + (entry.rows,) + (1,) * (rank - entry.axis - 1)
        if factor.shape == channels:
            return entry.scaled(factor)
    return None
