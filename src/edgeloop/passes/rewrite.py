"""Rebuild a graph node by node: the one mechanism behind most passes."""

from __future__ import annotations

from collections.abc import Callable

from edgeloop.ir import Graph, Node, Value
from edgeloop.ops import Builder

# rule(g, node with its inputs already replaced) -> replacements of its outputs, or None to keep it
Rule = Callable[[Builder, Node], tuple[Value, ...] | None]


def substitute(node: Node, values: dict[Value, Value]) -> Node:
    """Return the node reading replaced values."""
    ins = tuple(None if v is None else values.get(v, v) for v in node.inputs)
    return Node(node.op, ins, node.outputs, dict(node.attrs), node.name)


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """Apply ``rule`` to every node in order.

    Ensures: outputs and updates follow the replacements; names of kept values are unchanged.
    """
    out = graph.copy()
    out.nodes = []
    g = Builder(out)
    for n in graph.nodes:  # names of values that are still to come are taken as well
        g.reserve(v.name for v in n.outputs)
    values: dict[Value, Value] = {}
    for old in graph.nodes:
        node = substitute(old, values)
        g.layer = node.name
        new = rule(g, node)
        if new is None:
            out.nodes.append(node)
        else:
            values.update(zip(old.outputs, new, strict=True))
    out.outputs = [values.get(v, v) for v in out.outputs]
    out.updates = {old: values.get(new, new) for old, new in out.updates.items()}
    return out
