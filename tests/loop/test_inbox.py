"""What comes from beside the stream: it is learnt from, judges nothing, and can be forgotten."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.data.inbox import Inbox
from edgeloop.data.item import Item
from edgeloop.loop.forget import forget
from edgeloop.loop.gate import Verdict


class Open:
    """A gate that lets everything through."""

    def winnable(self, live):
        return True

    def __call__(self, evidence, *, seed, better=True):
        return Verdict(promote=True, reason="open", samples=0, p=0.0, before=0.0, after=0.0,
                       anchor_before=None, anchor_after=None)


def put(inbox, pairs, origin="feedback/ann"):
    for i, (x, y) in enumerate(pairs):
        assert inbox.put(origin, Item(x, y, f"{origin}:{i}"))


def right(loop, data):
    x, y = (np.stack(v) for v in zip(*data, strict=True))
    return float((loop.live.predict(x)[0].argmax(axis=1) == y).mean())


def test_it_is_trained_on_and_judges_nothing(kit, store):
    inbox = Inbox()
    put(inbox, kit.stream(60, seed=3))
    loop = kit.loop(store, kit.stream(40), inbox=inbox)
    report = loop.run()
    assert report.accepted == 100
    assert report.items == 40
    assert report.updates
    for name in ("gate", "validation"):
        assert not any("feedback" in s.key for s in store.samples(name))
    kept = [s.key for name in ("train", "rehearsal") for s in store.samples(name)]
    assert any("feedback/ann" in key for key in kept)


def test_what_does_not_fit_is_skipped_and_told(kit, store):
    inbox, seen = Inbox(), []
    put(inbox, [(np.zeros(kit.width + 1, np.float32), 0)])
    loop = kit.loop(store, kit.stream(5), inbox=inbox, on_event=lambda kind, **d: (
        kind == "skipped" and seen.append(d["error"])))
    report = loop.run()
    assert (report.bad, report.accepted) == (1, 5)
    assert "feedback/ann" in seen[0]
    assert "shape" in seen[0]


def test_it_is_kept_with_the_name_of_who_sent_it_and_can_be_forgotten(kit, store):
    inbox = Inbox()
    put(inbox, kit.stream(20, seed=3), "feedback/ann")
    put(inbox, kit.stream(20, seed=4), "feedback/mallory")
    loop = kit.loop(store, kit.stream(40), inbox=inbox)
    loop.run()
    before = [s.key for name in ("train", "rehearsal") for s in store.samples(name)]
    gone = forget(store, source="feedback/mallory")
    assert gone.samples == sum("mallory" in key for key in before) > 0
    assert gone.versions  # those that learnt from it are named
    kept = [s.key for name in ("train", "rehearsal") for s in store.samples(name)]
    assert not any("mallory" in key for key in kept)
    assert any("ann" in key for key in kept)


@pytest.mark.parametrize("guarded", [True, False])
def test_the_gate_keeps_what_was_poisoned_from_going_live(kit, store, guarded):
    """A fifth of the feedback is made to do harm: windows far out, with labels at random.

    Without validation, which would stop some of it as well; the control has an open gate.
    """
    def stream(n, seed):
        return kit.stream(n, seed=seed, noise=0.8)

    config = kit.config(train={"validation": 0.0}, gate={"min_samples": 8, "capacity": 64})
    held_out = stream(400, 9)
    first = kit.loop(store, stream(120, 1), config)
    first.run()
    before = right(first, held_out)
    inbox, rng = Inbox(), np.random.default_rng(2)
    put(inbox, [
        (x, y) if i % 5 else
        (60 * rng.normal(size=kit.width).astype(np.float32), int(rng.integers(kit.classes)))
        for i, (x, y) in enumerate(stream(64, 5))
    ], "feedback/mallory")
    loop = kit.loop(
        store, stream(160, 1), config, inbox=inbox, **({} if guarded else {"gate": Open()}))
    assert loop.run().updates
    harm = before - right(loop, held_out)
    assert harm <= 0 if guarded else harm > 0.2
