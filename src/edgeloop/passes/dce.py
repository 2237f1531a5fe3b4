"""Drop nodes and sources that nothing needs."""

from __future__ import annotations

from edgeloop.ir import Graph, Value


def drop_dead(graph: Graph, *, own: bool = True) -> Graph:
    """Keep only what outputs and updates need.

    ``own``: with copies of the nodes.

    Requires: a verified graph. Ensures: every node reaches an output or an update; constants,
    params and states that no node reads are gone; inputs stay, they are the interface.
    """
    out = graph.copy() if own else graph.over(list(graph.nodes))
    live: set[Value] = set(out.outputs) | set(out.updates.values())
    kept = []
    for n in reversed(out.nodes):
        if any(v in live for v in n.outputs):
            kept.append(n)
            live.update(v for v in n.inputs if v is not None)
    out.nodes = kept[::-1]
    out.constants = {v: a for v, a in out.constants.items() if v in live}
    out.stored = {v: s for v, s in out.stored.items() if v in live}
    out.params = {v: a for v, a in out.params.items() if v in live}
    out.states = {v: a for v, a in out.states.items() if v in live}
    return out
