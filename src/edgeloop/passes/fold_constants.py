"""Evaluate what depends on constants alone."""

from __future__ import annotations

from edgeloop.ir import Graph, Node, Value
from edgeloop.ops import OPS, Builder
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.rewrite import rewrite


def fold_constants(graph: Graph) -> Graph:
    """Replace nodes whose inputs are all frozen by their value.

    Requires: a verified graph. Ensures: no node has only constant inputs, except losses' and
    optimizers' (none exist before training is attached).
    """

    def rule(g: Builder, node: Node) -> tuple[Value, ...] | None:
        arrays = [g.const(v) for v in node.inputs]
        if any(a is None and v is not None for a, v in zip(arrays, node.inputs, strict=True)):
            return None
        result = OPS[node.op].reference(*arrays, **node.attrs)
        results = result if isinstance(result, tuple) else (result,)
        # A transposed or reshaped weight keeps its name, so that files stay readable.
        name = node.inputs[0].name if node.inputs and node.inputs[0] is not None else node.op
        return tuple(g.constant(r, name) for r in results)

    return drop_dead(rewrite(graph, rule))
