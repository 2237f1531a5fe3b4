"""Spans: bytes that are needed from one step to another, and what they say about a layout."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """``size`` bytes (a multiple of the alignment) live from ``first`` to ``last``, inclusive."""

    size: int
    first: int
    last: int


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


def meetings(spans: Sequence[Span]) -> list[list[int]]:
    """For each span, the others that are live at some same step; empty ones meet nobody."""
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


def crowds(spans: Sequence[Span]) -> list[int]:
    """For each span, the largest sum of live bytes over its steps."""
    steps = sorted({s.first for s in spans})
    live = [0] * len(steps)
    ranges = [(bisect_left(steps, s.first), bisect_right(steps, s.last)) for s in spans]
    for s, (begin, end) in zip(spans, ranges, strict=True):
        for t in range(begin, end):
            live[t] += s.size
    return [max(live[begin:end]) for begin, end in ranges]
