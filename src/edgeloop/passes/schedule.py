"""schedule: the order of nodes that keeps the fewest arena bytes live at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from edgeloop.ir import Graph, Node
from edgeloop.ops import OPS
from edgeloop.passes.bounds import any_order_bound, precedence
from edgeloop.passes.curve import Curve, cost_of
from edgeloop.passes.lifetimes import Memory, memory, no_scratch
from edgeloop.passes.units import contracted

# Node visits that the local search may spend; a count, so that results never depend on speed.
SEARCH_VISITS = 300_000
# The same for starting again near the best order, in graphs of so few nodes that it is worth it;
# nodes that move at once.
AGAIN_ROUNDS, AGAIN_VISITS, AGAIN_NODES, AGAIN_MOVES = 100, 150_000, 64, 6

Key = Callable[[int, int, int], tuple[int, ...]]


def schedule(
    graph: Graph, *, scratch: Callable[[Node], int] = no_scratch, units: Sequence[int] = (),
) -> Graph:
    """Reorder nodes so that the largest sum of live arena bytes is small.

    Requires: verified. Ensures: the same nodes, values and results; each update runs after every
    read of the version it replaces; the peak is never above that of the given order.
    ``scratch`` tells the bytes a node needs while it runs (see ``Needs.scratch``).
    ``units`` numbers, for each node, the run of nodes that it stays in, as `strips` writes them.
    """
    m = memory(graph, scratch)
    if units:
        return _in_units(graph, m, units)
    order = _best_order(m, [k for k, n in enumerate(graph.nodes) if not OPS[n.op].view])
    out = graph.copy()
    out.nodes = _with_views(graph, m, order)
    return out


def _in_units(graph: Graph, m: Memory, units: Sequence[int]) -> Graph:
    """Order units as if each were one node whose insides are its scratch."""
    runs: dict[int, list[int]] = {}
    for k, n in enumerate(graph.nodes):
        if not OPS[n.op].view:
            runs.setdefault(units[k], []).append(k)
    parts = list(runs.values())
    order = _best_order(contracted(m, parts), list(range(len(parts))))
    out = graph.copy()
    out.nodes = _with_views(graph, m, [k for p in order for k in parts[p]])
    return out


def _best_order(m: Memory, given: list[int]) -> list[int]:
    before = precedence(m)
    orders = [given] + [_greedy(m, before, given, key) for key in _KEYS]
    orders.append(_greedy_from_end(m, before, given))
    best = min(orders, key=lambda order: cost_of(m, order))
    bound = any_order_bound(m)
    if cost_of(m, best)[0] > bound:
        best, _ = _search(m, before, best, SEARCH_VISITS)
        if len(best) <= AGAIN_NODES:
            best = _search_again(m, before, best, bound)
    hoisted = _hoist_updates(m, before, best)
    return hoisted if cost_of(m, hoisted)[0] <= cost_of(m, best)[0] else best


def _with_views(graph: Graph, m: Memory, order: list[int]) -> list[Node]:
    """Return the nodes in order, the views of a cell right behind the node that makes it."""
    views: dict[int, list[Node]] = {}
    for n in graph.nodes:
        if OPS[n.op].view:
            views.setdefault(m.cell[n.output], []).append(n)
    made = {c for a in m.access for c in a.writes}
    nodes = [n for c, vs in views.items() if c not in made for n in vs]
    for k in order:
        nodes.append(graph.nodes[k])
        nodes += [n for c in m.access[k].writes for n in views.get(c, ())]
    return nodes


def _hoist_updates(m: Memory, before: list[set[int]], order: list[int]) -> list[int]:
    """Run each update as soon as all that must precede it has run."""
    out: list[int] = []
    done: set[int] = set()
    waiting = [k for k in order if m.access[k].pins]
    rest = [k for k in order if not m.access[k].pins]
    while waiting or rest:
        ready = [u for u in waiting if before[u] <= done]
        if ready:
            waiting = [u for u in waiting if u not in ready]
        else:
            ready = [rest.pop(0)]
        out += ready
        done.update(ready)
    return out


# key(bytes allocated, bytes freed, position in the given order): the least runs next.
_KEYS: tuple[Key, ...] = (
    lambda new, old, k: (new > old, k),
    lambda new, old, k: (new - old, k),
    lambda new, old, k: (new > old, new - old, -k),
    lambda new, old, k: (new > old, new, -old, k),
)


def _effect(m: Memory, k: int, uses: list[int]) -> tuple[int, int]:
    """Arena bytes that node k allocates and frees, given how many reads of each cell remain."""
    a = m.access[k]
    dying = {c for c in a.reads if uses[c] == 1 and m.regions[c] == "arena" and c not in m.kept}
    handed = {old for _, old in a.pins} | {c for c in a.takes[:1] if c in dying}
    new = sum(
        m.sizes[c] for i, c in enumerate(a.writes)
        if m.regions[c] == "arena" and c not in m.kept
        and not (i == 0 and handed) and all(c != p for p, _ in a.pins)
    )
    return new, sum(m.sizes[c] for c in dying - handed)


def _reads_left(m: Memory) -> list[int]:
    uses = [0] * len(m.sizes)
    for a in m.access:
        for c in a.reads:
            uses[c] += 1
    return uses


def _successors(before: list[set[int]]) -> list[list[int]]:
    after: list[list[int]] = [[] for _ in before]
    for k, ps in enumerate(before):
        for p in ps:
            after[p].append(k)
    return after


def _greedy(m: Memory, before: list[set[int]], given: list[int], key: Key) -> list[int]:
    """List scheduling: of the nodes that are ready, the one with the least key runs next."""
    after = _successors(before)
    waits = [len(ps) for ps in before]
    ready = {k for k in given if waits[k] == 0}
    uses = _reads_left(m)
    order = []
    while ready:
        k = min(ready, key=lambda k: (*key(*_effect(m, k, uses), k), k))
        ready.discard(k)
        order.append(k)
        for c in m.access[k].reads:
            uses[c] -= 1
        for s in after[k]:
            waits[s] -= 1
            if waits[s] == 0:
                ready.add(s)
    return order


def _greedy_from_end(m: Memory, before: list[set[int]], given: list[int]) -> list[int]:
    """List scheduling backwards: a node is undone when that shrinks what must be kept for it."""
    waits = [0] * len(before)
    for ps in before:
        for p in ps:
            waits[p] += 1
    ready = {k for k in given if waits[k] == 0}
    live: set[int] = set()
    order = []

    def grows(k: int) -> int:
        a = m.access[k]
        needs = sum(m.sizes[c] for c in a.reads if c not in live and m.regions[c] == "arena")
        return needs - sum(m.sizes[c] for c in a.writes if c in live)

    while ready:
        k = min(ready, key=lambda k: (grows(k), -k))
        ready.discard(k)
        order.append(k)
        a = m.access[k]
        live -= set(a.writes)
        live |= {c for c in a.reads if m.regions[c] == "arena"}
        for p in before[k]:
            waits[p] -= 1
            if waits[p] == 0:
                ready.add(p)
    return order[::-1]


def _search(
    m: Memory, before: list[set[int]], order: list[int], visits: int
) -> tuple[list[int], int]:
    """Move single nodes to their earliest or latest place while the cost falls.

    Returns the order and the visits that are left.
    """
    after, curve, improved = _successors(before), Curve(m, order), True
    while improved:
        improved = False
        for k in [*curve.order[::-1], *curve.order]:
            low, high = _places(before, after, curve.place, k)
            for to in dict.fromkeys((high, low)):
                if to == curve.place[k]:
                    continue
                visits -= len(order)
                if visits < 0:
                    return curve.order, visits
                if curve.moved(k, to) < curve.cost:
                    curve.move(k, to)
                    improved = True
                    break
    return curve.order, visits


def _places(
    before: list[set[int]], after: list[list[int]], place: Mapping[int, int], k: int
) -> tuple[int, int]:
    """The earliest and latest place of a node among the others."""
    low = max((place[p] for p in before[k]), default=-1) + 1
    high = min((place[s] for s in after[k]), default=len(place)) - 1
    return low, high


def _search_again(
    m: Memory, before: list[set[int]], best: list[int], bound: int
) -> list[int]:
    """Iterated local search (Lourenco et al. 2003): away from the best order, then down again.

    Away is, by turns, a few nodes at random places, and a random node with all that it needs
    before everything else: whole branches change places.
    """
    after, cost, visits = _successors(before), cost_of(m, best), AGAIN_VISITS
    rng = random.Random(0)  # noqa: S311  the same orders in every run
    for turn in range(AGAIN_ROUNDS):
        if visits < 0 or cost[0] <= bound:
            break
        trial = list(best) if turn % 2 else _first(before, best, rng.choice(best))
        for _ in range(AGAIN_MOVES if turn % 2 else 0):
            k = rng.choice(trial)
            place = {n: t for t, n in enumerate(trial)}
            low, high = _places(before, after, place, k)
            del trial[place[k]]
            trial.insert(rng.randint(low, high), k)
        trial, visits = _search(m, before, trial, visits)
        found = cost_of(m, trial)
        if found < cost:
            best, cost = trial, found
    return best


def _first(before: list[set[int]], order: list[int], k: int) -> list[int]:
    """The same order, but node k and its ancestors before the others."""
    needed, stack = {k}, [k]
    while stack:
        new = before[stack.pop()] - needed
        needed |= new
        stack += new
    return sorted(order, key=lambda n: n not in needed)
