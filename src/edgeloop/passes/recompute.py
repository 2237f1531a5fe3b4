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
TRIES, ALL_TRIES = 24, 400
# Of these, looks at graphs whose peak is lowered by other means.
EASES = 6
# Visits of nodes by these tries, of graphs in strips, which have thousands.
VISITS = 60_000
# Peaks so far above a limit that neither another order nor another way brings them down to it.
FAR = 1.25
Ease = Callable[[Graph], Graph]
# How far the limit falls at once where none is given; goals below it where it is not reached.
STEP = 0.97
GOALS = (1.0, 0.9, 0.8, 0.65, 0.5)


def recompute(
    graph: Graph, *, scratch: Callable[[Node], int] = no_scratch, limit: int | None = None,
    spend: float = SPEND, frozen: bool = False, reorder: bool = True, ease: Ease | None = None,
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
    reorder
        Whether nodes may change places afterwards.
    ease
        Lowers the peak of a graph by other means; with its help fewer things are computed again.

    Requires: scheduled. Ensures: scheduled, the same results bit for bit, at most ``spend`` more
    work, and a smaller peak, or else the very same graph.
    """
    trace = Trace(graph, scratch)
    left = int(spend * sum(work(n) for n in graph.nodes))
    tries = ALL_TRIES if reorder else min(ALL_TRIES, VISITS // (len(graph.nodes) + 1))
    find = _as_far_as(trace, left, tries, frozen=frozen) if limit is None else _within(
        trace, limit, left, tries, frozen=frozen)
    far = limit is not None and find.top > FAR * limit
    if limit is not None and find.top <= limit:
        find = _less(find, limit, ease)
    if find.graph is graph or not reorder or far:
        return find.graph
    return schedule(find.graph, scratch=scratch)


def _as_far_as(trace: Trace, left: int, tries: int, *, frozen: bool) -> Trace:
    """Lower the limit step by step while the work lasts; return the trace of the least peak."""
    best = trace
    while tries > 0:
        goal = int(trace.top * STEP)
        trace, left, tries = _lower(trace, goal, left, tries, frozen=frozen)
        best = min(best, trace, key=lambda t: t.top)
        if trace.top > goal:
            break
    return best


def _within(trace: Trace, limit: int, left: int, tries: int, *, frozen: bool) -> Trace:
    """Come down to a limit. Where the way there ends too early, another goal takes another way."""
    best = trace
    for share in GOALS:
        if best.top <= limit or tries <= 0 or (share < 1 and best.top > FAR * limit):
            break
        found, _, tries = _lower(trace, int(share * limit), left, tries, frozen=frozen)
        best = min(best, found, key=lambda t: t.top)
    return best


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


def _less(trace: Trace, limit: int, ease: Ease | None) -> Trace:
    """Let an earlier copy live on where that stays inside the limit, and make no later one.

    Each eviction looks at one peak; what another one made since may serve its readers as well.
    """
    eases = EASES if ease is not None else 0
    copies = [(work(n), v) for n in trace.graph.nodes for v in n.outputs if v in trace.origin]
    copies.sort(key=lambda c: -c[0])
    for _, v in copies[:TRIES]:
        by = trace.twin(v)
        if by is None:
            continue
        found = trace.served(v, by)
        if ease is not None and limit < found.top and eases > 0:
            eases -= 1
            found = Trace(ease(found.graph), trace.scratch, trace.origin, trace.m)
        if found.top <= limit:
            trace = found
    return trace


def _anything(_: Graph, __: int) -> bool:
    return True


def _of_param(graph: Graph, k: int) -> bool:
    """Tell whether a node is an adapter's own: a product with a param, or its dropped input."""
    node = graph.nodes[k]
    return node.op == "dropout" or (
        node.op in ("linear", "conv2d") and any(v in graph.params for v in node.inputs))
