"""recompute: compute values again rather than keep them, where that lowers the peak."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeloop.ir import Graph, Node
from edgeloop.passes.evict import Trace, work
from edgeloop.passes.lifetimes import no_scratch
from edgeloop.passes.schedule import schedule

# Share of the entry's work that may be spent on computing things again without being asked.
SPEND = 0.05
# Evictions that are tried at one peak, and in all: counts, so that results do not depend on speed.
TRIES, ALL_TRIES = 24, 4000
# How far the limit falls at once where none is given.
STEP = 0.97


def recompute(
    graph: Graph, *, scratch: Callable[[Node], int] = no_scratch, limit: int | None = None,
    spend: float = SPEND, frozen: bool = False,
) -> Graph:
    """Evict values that are kept across the peak, and compute them again for their late readers.

    Which ones is chosen value by value: those that free the most memory above the limit for the
    least work (the greedy rule of Griewank's checkpointing survey, and of Kumar et al. 2019,
    "Efficient rematerialization for deep networks"), products and whole chains of them alike.

    Parameters
    ----------
    limit
        Arena bytes to come down to, by as little work as will do; None: as far down as ``spend``
        allows.
    spend
        Most additional work, as a share of the graph's.
    frozen
        Whether anything may be computed again; else only products of params, such as an
        adapter's x A^T, and what was dropped out.

    Requires: scheduled. Ensures: scheduled, the same results bit for bit, at most ``spend`` more
    work, and a smaller peak, or else the very same graph.
    """
    trace = best = Trace(graph, scratch)
    left = int(spend * sum(work(n) for n in graph.nodes))
    tries = ALL_TRIES
    goal = limit
    while tries > 0 and (limit is None or best.top > limit):
        if limit is None:
            goal = int(trace.top * STEP)
        assert goal is not None
        trace, left, tries = _lower(trace, goal, left, tries, frozen=frozen)
        if trace.top < best.top:
            best = trace
        if limit is not None or trace.top > goal:
            break
    return graph if best.graph is graph else schedule(best.graph, scratch=scratch)


def _lower(
    trace: Trace, limit: int, left: int, tries: int, *, frozen: bool
) -> tuple[Trace, int, int]:
    """Evict until nothing stands above the limit; returns the trace, work and tries that remain."""
    allowed = _anything if frozen else _of_param
    while trace.top > limit:
        area = trace.area(limit)
        peak = int(np.argmax(trace.live))
        for e in trace.candidates(peak, limit, left, allowed)[:TRIES]:
            tries -= 1
            found = trace.evicted(e)
            if found.area(limit) < area:
                trace, left = found, left - e.cost
                break
        else:
            break
        if tries <= 0:
            break
    return trace, left, tries


def _anything(_: Graph, __: int) -> bool:
    return True


def _of_param(graph: Graph, k: int) -> bool:
    """Tell whether a node is an adapter's own: a product with a param, or its dropped input."""
    node = graph.nodes[k]
    return node.op == "dropout" or (
        node.op in ("linear", "conv2d") and any(v in graph.params for v in node.inputs))
