"""Text form of a graph: what passes' tests compare and what a dump shows.

input  x : f32[8,64]
const  w : f32[12,64]
param  a : f32[4,64]
y = linear(x, w, _) {alpha=1.0} : f32[8,12]  # head
update a -> a.new
output y
"""

from __future__ import annotations

from typing import Any

from edgeloop.ir.graph import Graph, Node


def _attr(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ",".join(_attr(v) for v in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def node_text(node: Node) -> str:
    """One line for a node."""
    outs = ", ".join(v.name for v in node.outputs)
    ins = ", ".join("_" if v is None else v.name for v in node.inputs)
    attrs = " ".join(f"{k}={_attr(v)}" for k, v in sorted(node.attrs.items()))
    types = ", ".join(str(v.type) for v in node.outputs)
    tail = f"  # {node.name}" if node.name else ""
    return f"{outs} = {node.op}({ins})" + (f" {{{attrs}}}" if attrs else "") + f" : {types}{tail}"


def to_text(graph: Graph) -> str:
    """Return the whole graph as text, one line per source, node, update and output."""
    kinds = (
        ("input ", graph.inputs), ("const ", graph.constants),
        ("param ", graph.params), ("state ", graph.states),
    )
    lines = [f"{kind} {v.name} : {v.type}" for kind, values in kinds for v in values]
    lines += [node_text(n) for n in graph.nodes]
    lines += [f"update {old.name} -> {new.name}" for old, new in graph.updates.items()]
    lines += [f"output {v.name}" for v in graph.outputs]
    return "\n".join(lines)
