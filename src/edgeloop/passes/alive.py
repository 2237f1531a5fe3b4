"""alive: the tensors that fill the arena at an entry's peak."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeloop.ir import Graph, Node, node_text
from edgeloop.passes.lifetimes import buffers, live_bytes, memory, no_scratch


@dataclass(frozen=True, slots=True)
class Alive:
    """One buffer at the peak: what it holds there (value and operator), its bytes and steps.

    ``first`` and ``last`` are places in the order of nodes; both are included.
    """

    name: str
    op: str
    nbytes: int
    first: int
    last: int


def alive_at_peak(
    graph: Graph, scratch: Callable[[Node], int] = no_scratch
) -> tuple[str, tuple[Alive, ...]]:
    """Return the node that runs at the peak as text, and what is live then, the largest first.

    Requires: scheduled.
    """
    m = memory(graph, scratch)
    live = live_bytes(m)
    if not live:
        return "", ()
    step = live.index(max(live))
    held = {}
    made = {}
    for k, n in enumerate(graph.nodes):
        for v in n.outputs:
            if m.cell[v] not in held:
                held[m.cell[v]], made[m.cell[v]] = v, (k, n.op)
    found = []
    for b in buffers(m):
        if b.output or not b.first <= step <= b.last:
            continue
        cells = [c for c in b.cells if made[c][0] <= step]
        name, op = (held[cells[-1]].name, made[cells[-1]][1]) if cells else (
            "scratch", graph.nodes[b.first].op)
        found.append(Alive(name, op, b.size, b.first, b.last))
    found.sort(key=lambda a: (-a.nbytes, a.first))
    return node_text(graph.nodes[step]), tuple(found)
