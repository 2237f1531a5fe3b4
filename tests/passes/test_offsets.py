"""Offsets: no overlap, near the bound, the same on every run."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.passes.fit import fit
from edgeloop.passes.offsets import assign
from edgeloop.passes.spans import Span, lower_bound, meetings

SPANS = st.lists(
    st.builds(lambda size, first, length: Span(size * 64, first, first + length),
              st.integers(0, 20), st.integers(0, 30), st.integers(0, 12)),
    max_size=40,
)


def overlaps(spans, offsets):
    pairs = [(a, b) for i in range(len(spans)) for a, b in [(i, j) for j in range(i)]]
    return [
        (a, b) for a, b in pairs
        if spans[a].first <= spans[b].last and spans[b].first <= spans[a].last
        and offsets[a] < offsets[b] + spans[b].size and offsets[b] < offsets[a] + spans[a].size
        and spans[a].size and spans[b].size
    ]


@settings(deadline=None, max_examples=60)
@given(SPANS)
def test_no_two_live_spans_overlap(spans):
    layout = assign(spans)
    assert overlaps(spans, layout.offsets) == []
    ends = [o + s.size for o, s in zip(layout.offsets, spans, strict=True)]
    assert layout.arena_bytes == max(ends, default=0)
    assert layout.arena_bytes >= layout.lower_bound_bytes == lower_bound(spans)
    assert all(o % 64 == 0 for o in layout.offsets)


def test_the_check_above_sees_an_overlap():
    assert overlaps([Span(64, 0, 2), Span(64, 2, 3)], [0, 0]) == [(1, 0)]


def training_step(layers: int, seed: int) -> list[Span]:
    """Activations that live until their backward step, gradients, masks and scratch."""
    rng = random.Random(seed)
    spans = []
    for i in range(layers):
        back = 2 * layers - i
        spans.append(Span(64 * rng.choice([1, 3, 8, 16, 40, 100]), i, rng.choice([i + 1, back])))
        spans.append(Span(64 * rng.randrange(1, 50), back, back + 1))
        if rng.random() < 0.5:
            spans.append(Span(64 * rng.randrange(1, 60), rng.choice([i, back]), back))
        step = rng.randrange(2 * layers)
        spans.append(Span(64 * rng.randrange(1, 60), step, step))
    return spans


@pytest.mark.parametrize("layers", [2, 5, 10, 20, 40, 80])
def test_training_steps_meet_the_bound(layers):
    for seed in range(4):
        layout = assign(training_step(layers, seed))
        assert layout.arena_bytes == layout.lower_bound_bytes


def test_search_repairs_what_greedy_orders_miss():
    """Crowded random spans: far from the bound for any one greedy order."""
    rng = random.Random(56)
    spans = []
    for _ in range(40):
        first = rng.randrange(30)
        spans.append(Span(64 * rng.randrange(1, 60), first, first + rng.randrange(8)))
    layout = assign(spans)
    assert overlaps(spans, layout.offsets) == []
    assert layout.arena_bytes == layout.lower_bound_bytes
    assert assign(spans) == layout


def test_nothing_to_place():
    assert assign([]).arena_bytes == 0
    assert assign([Span(0, 0, 3)]).arena_bytes == 0


def test_fit_finds_what_greedy_placement_misses_and_gives_up_below_the_bound():
    spans = training_step(10, 0)
    bound = lower_bound(spans)
    area = [s.size * (s.last - s.first) for s in spans]
    order = sorted(range(len(spans)), key=lambda i: -area[i])
    offsets = fit(spans, meetings(spans), order, bound, tries=2000)
    assert offsets is not None
    assert overlaps(spans, offsets) == []
    assert max(o + s.size for o, s in zip(offsets, spans, strict=True)) == bound
    assert fit(spans, meetings(spans), order, bound - 64, tries=2000) is None
    assert fit(spans, meetings(spans), order, bound, tries=3) is None
