"""fit: put spans into a given height exactly, by a depth-first search with pruning.

Spans are stacked in order of rising offsets, each on the highest span that it meets. A branch is
cut when, at some step, what still has to be placed does not fit above what stands there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgeloop.ir import Array
from edgeloop.passes.spans import Span


@dataclass(slots=True)
class _Frame:
    """One placed span: what is left to try in its stead, and how to take it back."""

    choices: list[tuple[int, int]]  # (offset, span)
    last: int
    span: int = -1
    heights: Array | None = None
    # Spans whose floors this one raised, and where those were.
    raised: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    floors: Array = field(default_factory=lambda: np.zeros(0, np.int64))


class _Stack:
    """Spans placed so far, the height that they reach at each step, and what is to come."""

    def __init__(
        self, spans: Sequence[Span], meets: Sequence[Sequence[int]], rank: Sequence[int]
    ) -> None:
        steps = sorted({s.first for s in spans})
        self.ranges = [(bisect_left(steps, s.first), bisect_right(steps, s.last)) for s in spans]
        self.sizes = [s.size for s in spans]
        self.meets = [np.asarray(js, np.int64) for js in meets]
        self.rank = np.asarray(rank, np.int64)
        self.heights = np.zeros(len(steps), np.int64)
        self.to_come = np.zeros(len(steps), np.int64)
        for size, (b, e) in zip(self.sizes, self.ranges, strict=True):
            self.to_come[b:e] += size
        self.all_sizes = np.asarray(self.sizes, np.int64)
        self.left = self.all_sizes > 0
        self.count = int(self.left.sum())
        # Where each would stand: on the highest one it meets.
        self.floors = np.zeros(len(spans), np.int64)
        self.offsets = [0] * len(spans)

    def frame(self, last: int) -> _Frame:
        """Spans that may come next, the best one at the end of the list."""
        at = np.maximum(self.floors, last)
        # A span that starts above the top of another one can wait until that one is placed.
        limit = (at + self.all_sizes)[self.left].min()
        ids = np.flatnonzero(self.left & (at < limit))
        ids = ids[np.lexsort((ids, self.rank[ids], at[ids]))[::-1]]
        return _Frame([(int(at[i]), int(i)) for i in ids], last)

    def place(self, frame: _Frame, i: int, offset: int, cap: int) -> bool:
        """Place a span and tell whether the rest may still fit."""
        b, e = self.ranges[i]
        top = offset + self.sizes[i]
        frame.span, frame.heights = i, self.heights[b:e].copy()
        self.heights[b:e] = top
        self.to_come[b:e] -= self.sizes[i]
        self.left[i] = False
        self.count -= 1
        self.offsets[i] = offset
        met = self.meets[i]
        frame.raised = met[self.left[met] & (self.floors[met] < top)]
        frame.floors = self.floors[frame.raised]
        self.floors[frame.raised] = top
        full = np.maximum(self.heights, offset) + self.to_come > cap
        return top <= cap and not bool(np.any(full & (self.to_come > 0)))

    def take_back(self, frame: _Frame) -> None:
        i = frame.span
        if i < 0 or frame.heights is None:
            return
        b, e = self.ranges[i]
        self.heights[b:e] = frame.heights
        self.to_come[b:e] += self.sizes[i]
        self.left[i] = True
        self.count += 1
        self.floors[frame.raised] = frame.floors
        frame.span = -1


def fit(
    spans: Sequence[Span], meets: Sequence[Sequence[int]], order: Sequence[int], cap: int,
    tries: int,
) -> list[int] | None:
    """Return offsets that keep every span below ``cap``, None if none were found.

    ``meets`` lists, for each span, those live at some same step; ``order`` says which of two
    spans that could stand equally low is tried first; ``tries`` limits the search.
    """
    rank = [0] * len(spans)
    for r, i in enumerate(order):
        rank[i] = r
    stack = _Stack(spans, meets, rank)
    if not stack.count:
        return stack.offsets
    frames = [stack.frame(0)]
    while frames and tries > 0:
        frame = frames[-1]
        stack.take_back(frame)
        if not frame.choices:
            frames.pop()
            continue
        tries -= 1
        offset, i = frame.choices.pop()
        if not stack.place(frame, i, offset, cap):
            continue
        if not stack.count:
            return stack.offsets
        frames.append(stack.frame(offset))
    return None
