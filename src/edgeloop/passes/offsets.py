"""assign: offsets for buffers with known lifetimes, in as few bytes as can be found.

Placing rectangles (size x lifetime) is NP-hard, but the largest sum of live bytes bounds it from
below and is met for nearly every real model: several greedy orders are tried, then a search for
an exact fit at the bound, then a random walk with a fixed seed. Everything is deterministic.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from edgeloop.passes.fit import fit
from edgeloop.passes.spans import Span, crowds, lower_bound, meetings

# Pairs of buffers that the repair may compare; a count, so that results never depend on speed.
REPAIR_PAIRS = 2_000_000
# How far above the best height, relative to the bound, the repair may walk.
SLACK = 0.05
# Spans that are few enough for a long search for an exact fit.
FEW, FEW_TRIES = 128, 5000

Order = list[int]


@dataclass(frozen=True, slots=True)
class Layout:
    """One offset per span, the bytes they reach, and the bound that no layout can beat."""

    offsets: tuple[int, ...]
    arena_bytes: int
    lower_bound_bytes: int


def assign(spans: Sequence[Span]) -> Layout:
    """Give each span an offset so that spans that are live at the same step never overlap.

    Offsets are sums of sizes, hence multiples of the sizes' common alignment.
    """
    bound = lower_bound(spans)
    meets = meetings(spans)
    offsets, top, best = [0] * len(spans), -1, Order()
    orders = _orders(spans, meets)
    for order in orders:
        found, height, _ = _place(spans, meets, order)
        if top < 0 or height < top:
            offsets, top, best = found, height, order
        if top <= bound:
            break
    if top > bound:
        exact = _exact(spans, meets, orders, bound)
        offsets = exact or _repair(spans, meets, best, offsets, bound)
    ends = (o + s.size for o, s in zip(offsets, spans, strict=True) if s.size)
    return Layout(tuple(offsets), max(ends, default=0), bound)


def _exact(
    spans: Sequence[Span], meets: list[list[int]], orders: Sequence[Order], bound: int
) -> list[int] | None:
    """Search for a layout at the bound; most real graphs have one that is found at once."""
    few = len(spans) <= FEW
    tries = FEW_TRIES if few else 300 + 3 * len(spans)
    for order in orders if few else orders[:5]:
        found = fit(spans, meets, order, bound, tries=tries)
        if found is not None:
            return found
    return None


def _orders(spans: Sequence[Span], meets: list[list[int]]) -> list[Order]:
    ids = range(len(spans))
    length = [s.last - s.first + 1 for s in spans]
    crowd = crowds(spans)
    keys = (
        # What is live at the fullest steps first: there is no slack for it.
        lambda i: (-crowd[i], -length[i] * spans[i].size, i),
        lambda i: (-crowd[i], -spans[i].size, -length[i], i),
        lambda i: (-crowd[i], -length[i], -spans[i].size, i),
        lambda i: (-length[i] * spans[i].size, -spans[i].size, i),
        lambda i: (-spans[i].size, -length[i], i),
        lambda i: (-length[i], -spans[i].size, i),
        lambda i: (spans[i].first, -spans[i].last, i),
        lambda i: (-spans[i].last, spans[i].first, i),
        lambda i: (-len(meets[i]), -spans[i].size, i),
    )
    return [sorted(ids, key=key) for key in keys]


def _place(
    spans: Sequence[Span], meets: list[list[int]], order: Order, cap: int | None = None
) -> tuple[list[int], int, int]:
    """Put each span, in order, into the tightest gap that holds it, else on top.

    Returns offsets, their height and the number of pairs compared. Gives up as soon as the height
    exceeds ``cap``.
    """
    offsets = [-1] * len(spans)
    height = work = 0
    for i in order:
        size = spans[i].size
        if size == 0:
            offsets[i] = 0
            continue
        placed = sorted((offsets[j], offsets[j] + spans[j].size) for j in meets[i]
                        if offsets[j] >= 0)
        work += len(meets[i])
        floor, at, slack = 0, -1, -1
        for low, high in placed:
            gap = low - floor
            if gap >= size and (slack < 0 or gap - size < slack):
                at, slack = floor, gap - size
            floor = max(floor, high)
        offsets[i] = floor if at < 0 else at
        height = max(height, offsets[i] + size)
        if cap is not None and height > cap:
            break
    return offsets, height, work


def _repair(
    spans: Sequence[Span], meets: list[list[int]], order: Order, best: list[int], bound: int
) -> list[int]:
    """Move spans that stick out at the top to an earlier place in the order; keep what helps."""
    rng = random.Random(0)  # noqa: S311  # a search, not a secret
    current, offsets = order, best
    top = max(o + s.size for o, s in zip(best, spans, strict=True))
    pairs = REPAIR_PAIRS
    while pairs > 0 and top > bound:
        trial = list(current)
        i = rng.choice([i for i in trial if offsets[i] + spans[i].size > bound])
        # Ahead of everything, or of one span it meets: whichever the dice say.
        place = {j: t for t, j in enumerate(trial)}
        rivals = [j for j in meets[i] if place[j] < place[i]]
        target = place[rng.choice(rivals)] if rivals and rng.random() < 0.7 else 0
        trial.remove(i)
        trial.insert(target, i)
        if rng.random() < 0.3:
            a, b = rng.randrange(len(trial)), rng.randrange(len(trial))
            trial[a], trial[b] = trial[b], trial[a]
        # A little above the best is walked over, so that the search moves.
        cap = top + int(rng.random() ** 4 * SLACK * bound)
        found, height, work = _place(spans, meets, trial, cap)
        pairs -= work + len(trial)
        if height <= cap:
            current, offsets = trial, found
        if height < top:
            best, top = found, height
    return best
