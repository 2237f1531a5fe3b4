"""materialise_outputs: copy graph outputs that stand in memory which is not theirs."""

from __future__ import annotations

from edgeloop.ir import Graph, Node, Value
from edgeloop.ops import OPS


def materialise_outputs(graph: Graph) -> Graph:
    """Insert a ``copy`` for each output that is a source, an updated version, or a view of one.

    Requires: verified. Ensures: every output is computed into memory of its own, so that it can
    be placed in region io; positions in ``outputs`` and results are unchanged.
    """
    root: dict[Value, Value] = {v: v for v in graph.sources()}
    foreign = set(root)
    for n in graph.nodes:
        updates = dict(OPS[n.op].updates)
        for i, v in enumerate(n.outputs):
            view = OPS[n.op].view and n.inputs[0] is not None
            root[v] = root[n.inputs[0]] if view else v  # type: ignore[index]
            if i in updates and graph.updates.get(n.inputs[updates[i]]) is v:  # type: ignore[arg-type]
                foreign.add(v)
    copies: dict[Value, Value] = {}
    out = graph.copy()
    for k, v in enumerate(graph.outputs):
        if root[v] not in foreign:
            continue
        if v not in copies:
            copies[v] = out.fresh(f"{v.name}.out", v.type)
            at = next((i + 1 for i, n in enumerate(out.nodes) if v in n.outputs), 0)
            out.nodes.insert(at, Node("copy", (v,), (copies[v],), {}, "output"))
        out.outputs[k] = copies[v]
    return out
