"""recompute: compute a product again rather than keep it, where that lowers the peak."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeloop.ir import Graph, Node
from edgeloop.ops import OPS
from edgeloop.passes.lifetimes import (
    Memory,
    buffers,
    live_bytes,
    memory,
    no_scratch,
    peak_bytes,
)
from edgeloop.passes.schedule import schedule

PRODUCTS = ("linear", "conv2d", "dropout")
# Share of the entry's operations that may be spent on computing things again.
SPEND = 0.05
SPEND_THOROUGH = 0.25
# One of so many candidates is taken before the peak is looked for again.
AT_ONCE = 8


def recompute(
    graph: Graph, *, scratch: Callable[[Node], int] = no_scratch, thorough: bool = False
) -> Graph:
    """Duplicate products that are kept across the peak although their inputs are there anyway.

    This is the rank-r product x A^T of an adapter: its forward reader is near, its backward
    reader far, and x is kept for the gradient of A in any case. Only products of a param are
    looked at, or with ``thorough`` frozen ones too (a depthwise convolution, say), which saves
    more and takes more time.

    Requires: scheduled. Ensures: scheduled, the same results bit for bit, at most ``SPEND``
    (``SPEND_THOROUGH``) more operations, and a smaller peak, or else the very same graph.
    """
    budget = (SPEND_THOROUGH if thorough else SPEND) * sum(_flops(n) for n in graph.nodes)
    best = now = graph
    least = peak_bytes(graph, scratch)
    while True:
        m = memory(now, scratch)
        live = live_bytes(m)
        top = max(live, default=0)
        if top < least:
            best, least = now, top
        step = live.index(top) if live else 0
        affordable = [
            k for k in _kept_across(now, m, step)
            if _flops(now.nodes[k]) <= budget and (thorough or _of_param(now, k))
        ]
        if not affordable:
            break
        # The most bytes for the least work; several at once where there are many.
        nodes = now.nodes
        affordable.sort(key=lambda k: _flops(nodes[k]) / nodes[k].output.type.nbytes)
        chosen = affordable[: max(1, len(affordable) // AT_ONCE)]
        while sum(_flops(nodes[k]) for k in chosen) > budget:
            chosen.pop()
        budget -= sum(_flops(nodes[k]) for k in chosen)
        now = _twice(now, chosen, step)
    return graph if best is graph else schedule(best, scratch=scratch)


def _of_param(graph: Graph, k: int) -> bool:
    """Tell whether it is an adapter's own: a product with a param, or its dropped input."""
    node = graph.nodes[k]
    return node.op == "dropout" or any(v in graph.params for v in node.inputs)


def _flops(n: Node) -> int:
    op = OPS[n.op]
    if op.view:
        return 0
    return op.flops(n) if op.flops else sum(v.type.size for v in n.outputs)


def _kept_across(graph: Graph, m: Memory, step: int) -> list[int]:
    """Products whose result is live at a step, though only later ones read it.

    Their inputs are there at the next reader anyway. Results that are read through views are
    left alone.
    """
    maker = {c: k for k, a in enumerate(m.access) for c in a.writes}
    last_read = {c: k for k, a in enumerate(m.access) for c in a.reads}
    viewed = {m.cell[n.output] for n in graph.nodes if OPS[n.op].view}
    replaced = _overwritten(m)
    out = []
    for b in buffers(m):
        if b.output or not b.cells or not b.first < step < b.last:
            continue
        c = next(c for c in reversed(b.cells) if maker[c] <= step)
        k = maker[c]
        node = graph.nodes[k]
        if k == step or c in viewed or c in m.access[step].reads or node.op not in PRODUCTS:
            continue
        late = next((j for j in range(step + 1, len(m.access)) if c in m.access[j].reads), -1)
        if late >= 0 and all(
            last_read[i] >= late if m.regions[i] == "arena" else replaced.get(i, late) >= late
            for i in m.access[k].reads
        ):
            out.append(k)
    return out


def _overwritten(m: Memory) -> dict[int, int]:
    """For each old version of a param or state, the node that replaces it."""
    return {old: k for k, a in enumerate(m.access) for _, old in a.pins}


def _twice(graph: Graph, chosen: Sequence[int], step: int) -> Graph:
    """Run nodes again for the readers of their outputs after a step, right before the first."""
    out = graph.copy()
    again: dict[int, list[Node]] = {}
    for k in chosen:
        node = graph.nodes[k]
        y = node.output
        late = [j for j in range(step + 1, len(graph.nodes)) if y in graph.nodes[j].inputs]
        copy = out.fresh(f"{y.name}.again", y.type)
        for j in late:
            n = out.nodes[j]
            n.inputs = tuple(copy if v is y else v for v in n.inputs)
        node = Node(node.op, node.inputs, (copy,), dict(node.attrs), node.name)
        again.setdefault(late[0], []).append(node)
    out.nodes = [x for j, n in enumerate(out.nodes) for x in (*again.get(j, ()), n)]
    return out
