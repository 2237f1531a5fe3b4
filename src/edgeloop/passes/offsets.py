"""assign: offsets for buffers with known lifetimes, in as few bytes as can be found.

Placing rectangles (size x lifetime) is NP-hard, but the largest sum of live bytes bounds it from
below and is met for nearly every real model: several greedy orders are tried, then a search with
a fixed seed repairs the best of them until the bound is met or its work is used up.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

# Pairs of buffers that the search may compare; a count, so that results never depend on speed.
SEARCH_PAIRS = 3_000_000

# How far above the best height, relative to the bound, the search may walk.
SLACK = 0.05

Order = list[int]


@dataclass(frozen=True, slots=True)
class Span:
    """``size`` bytes (a multiple of the alignment) live from ``first`` to ``last``, inclusive."""

    size: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Layout:
    """One offset per span, the bytes they reach, and the bound that no layout can beat."""

    offsets: tuple[int, ...]
    arena_bytes: int
    lower_bound_bytes: int


def assign(spans: Sequence[Span]) -> Layout:
    """Give each span an offset so that spans that are live at the same step never overlap.

    Deterministic. Offsets are sums of sizes, hence multiples of the sizes' common alignment.
    """
    bound = lower_bound(spans)
    meets = _meetings(spans)
    best: list[int] = [0] * len(spans)
    top = sum(s.size for s in spans) + 1
    order: Order = []
    pairs = 0
    for trial in _orders(spans, meets):
        found, height, work = _place(spans, meets, trial)
        pairs += work
        if height < top:
            best, top, order = found, height, trial
        if top <= bound:
            break
    if top > bound:
        best, top = _repair(spans, meets, order, best, top, bound, SEARCH_PAIRS - pairs)
    return Layout(tuple(best), max(top, bound) if spans else 0, bound)


def lower_bound(spans: Sequence[Span]) -> int:
    """Return the largest sum of bytes that are live at one step."""
    delta: dict[int, int] = {}
    for s in spans:
        delta[s.first] = delta.get(s.first, 0) + s.size
        delta[s.last + 1] = delta.get(s.last + 1, 0) - s.size
    now = peak = 0
    for t in sorted(delta):
        now += delta[t]
        peak = max(peak, now)
    return peak


def _meetings(spans: Sequence[Span]) -> list[list[int]]:
    """For each span, the others that are live at some same step."""
    meets: list[list[int]] = [[] for _ in spans]
    by_start = sorted(range(len(spans)), key=lambda i: (spans[i].first, i))
    active: list[int] = []
    for i in by_start:
        active = [j for j in active if spans[j].last >= spans[i].first]
        if spans[i].size:
            for j in active:
                meets[i].append(j)
                meets[j].append(i)
            active.append(i)
    return meets


def _orders(spans: Sequence[Span], meets: list[list[int]]) -> list[Order]:
    ids = range(len(spans))
    length = [s.last - s.first + 1 for s in spans]
    pressure = [spans[i].size + sum(spans[j].size for j in meets[i]) for i in ids]
    keys = (
        lambda i: (-spans[i].size, -length[i], i),
        lambda i: (-length[i] * spans[i].size, -spans[i].size, i),
        lambda i: (-length[i], -spans[i].size, i),
        lambda i: (spans[i].first, -spans[i].last, i),
        lambda i: (-spans[i].last, spans[i].first, i),
        lambda i: (spans[i].first, -spans[i].size, i),
        lambda i: (-pressure[i], -spans[i].size, i),
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
    spans: Sequence[Span], meets: list[list[int]], order: Order, best: list[int], top: int,
    bound: int, pairs: int,
) -> tuple[list[int], int]:
    """Move spans that stick out at the top to an earlier place in the order; keep what helps."""
    rng = random.Random(0)  # noqa: S311  # a search, not a secret
    current, offsets = order, best
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
    return best, top
