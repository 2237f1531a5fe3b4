"""A move is counted where it happens, and the count is that of the whole order."""

from __future__ import annotations

import random

import pytest
from models.vit import cct
from models.zoo import ZOO

import edgeloop as el
from edgeloop.passes.bounds import precedence
from edgeloop.passes.curve import Curve, cost_of
from edgeloop.passes.lifetimes import memory
from edgeloop.passes.needs import Needs
from edgeloop.passes.strips import strips
from edgeloop.passes.units import contracted
from edgeloop.solver import Frame


@pytest.fixture(scope="module")
def graphs():
    """Ordered training steps of three nets, of each method another one."""
    found = []
    ordered = Frame.ordered

    def kept(frame, made):
        out = ordered(frame, made)
        found.extend((g, frame.needs.scratch) for g in out.values())
        return out

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Frame, "ordered", kept)
        for model, train, optimizer, loss in (
            (ZOO["ds_cnn"].build(), el.LoRA(2), el.SGD(), "cross_entropy"),
            (ZOO["deep_ae"].build(), el.Full(), el.AdamW(), "mse"),
            (cct(), el.LoRA(2), el.AdamW8bit(), "cross_entropy"),
        ):
            el.compile(model, train=train, optimizer=optimizer, batch=2, loss=loss,
                       entries=("train", "predict"))
    return found


def memories(graphs):
    for g, scratch in graphs:
        yield memory(g, scratch), [k for k, n in enumerate(g.nodes) if n.op != "reshape"]
    g, units = strips(graphs[0][0], strip=4096, int8=False)
    runs = {}
    for k, n in enumerate(g.nodes):
        if n.op != "reshape":
            runs.setdefault(units[k], []).append(k)
    parts = list(runs.values())
    yield contracted(memory(g, Needs().scratch), parts), list(range(len(parts)))


def places(before, curve, k):
    low = max((curve.place[p] for p in before[k]), default=-1) + 1
    high = min((curve.place[s] for s, ps in enumerate(before) if k in ps),
               default=len(curve.order)) - 1
    return low, high


def test_every_move_costs_what_its_order_costs(graphs):
    rng, tried, better = random.Random(0), 0, 0
    for m, order in memories(graphs):
        before, curve = precedence(m), Curve(m, order)
        assert curve.cost == cost_of(m, order)
        for _ in range(150):
            k = rng.choice(curve.order)
            low, high = places(before, curve, k)
            to = rng.randint(low, high)
            trial = [n for n in curve.order if n != k]
            trial.insert(to, k)
            found = curve.moved(k, to)
            assert found == cost_of(m, trial)
            tried, better = tried + (to != curve.place[k]), better + (found < curve.cost)
            if rng.random() < 0.3:
                curve.move(k, to)
                assert curve.order == trial
                assert curve.cost == found
    assert tried > 300
    assert better > 10


def test_a_move_that_is_counted_wrong_would_be_seen(graphs, monkeypatch):
    monkeypatch.setattr(Curve, "_here", lambda *_: 0)
    with pytest.raises(AssertionError):
        test_every_move_costs_what_its_order_costs(graphs)
