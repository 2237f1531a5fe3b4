import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.data.buffers import Reservoir


def x(i):
    return np.full(2, i, np.float32)


@given(st.lists(st.integers(0, 3), max_size=80), st.integers(1, 12))
def test_reservoir_stays_balanced(labels, capacity):
    held = Reservoir(capacity, (2,), seed=0, name="r")
    for i, label in enumerate(labels):
        slot = held.offer(x(i), label, str(i))
        assert slot is None or held.key[slot] == str(i)
    offered, kept = Counter(labels), held.held()
    assert len(held) == min(capacity, len(labels))
    # No class holds two more than another that still had samples to give.
    for a in kept:
        for b in offered:
            assert kept[a] <= kept[b] + 1 or kept[b] == offered[b]
    for slot in held.slots():
        assert held.y[slot] == labels[int(held.key[slot])]
        assert held.x[slot, 0] == int(held.key[slot])


def test_reservoir_is_uniform_over_everything_offered():
    counts = np.zeros(40)
    for seed in range(300):
        held = Reservoir(8, (2,), seed=seed, name="r")
        for i in range(40):
            held.offer(x(i), 0, str(i))
        for slot in held.slots():
            counts[int(held.key[slot])] += 1
    expected = 300 * 8 / 40
    assert np.abs(counts - expected).max() < 4.5 * np.sqrt(expected * 0.8)


def test_reservoir_goes_on_where_it_was():
    labels = np.random.default_rng(0).integers(0, 3, 60).tolist()
    whole = Reservoir(7, (2,), seed=1, name="r")
    first = Reservoir(7, (2,), seed=1, name="r")
    for i, y in enumerate(labels):
        whole.offer(x(i), y, str(i))
        if i < 30:
            first.offer(x(i), y, str(i))
    second = Reservoir(7, (2,), seed=1, name="r")
    for slot in first.slots():
        second.put(slot, first.x[slot], first.y[slot], first.key[slot])
    second.load(json.loads(json.dumps(first.state())))
    for i, y in enumerate(labels[30:], 30):
        second.offer(x(i), y, str(i))
    assert second.key == whole.key
    assert (second.x == whole.x).all()


def test_balanced_takes_as_equal_as_it_can():
    held = Reservoir(20, (2,), seed=0, name="r")
    for i, y in enumerate([0] * 9 + [1] * 3 + [2] * 2):
        held.offer(x(i), y, str(i))

    def classes(at_least):
        return Counter(held.y[s] for s in held.balanced(at_least))

    assert classes(1) == {0: 2, 1: 2, 2: 2}
    assert classes(8) == {0: 3, 1: 3, 2: 2}
    assert classes(100) == {0: 9, 1: 3, 2: 2}
    assert list(Reservoir(4, (2,), seed=0, name="r").balanced(3)) == []


def test_no_room_keeps_nothing():
    assert Reservoir(0, (2,), seed=0, name="r").offer(x(1), 0, "") is None


def test_frozen_it_takes_nothing_and_counts_nothing():
    held = Reservoir(4, (2,), seed=0, name="r")
    held.offer(x(0), 0, "0")
    before = held.state()
    held.frozen = True
    assert held.offer(x(1), 0, "1") is None
    assert held.state() == before
    held.frozen = False
    assert held.offer(x(1), 0, "1") == 1


def survivors(policy, losses, *, seeds=400):
    """How often each of a class of 8 stays when one more of a rarer class comes."""
    stayed = np.zeros(8)
    for seed in range(seeds):
        held = Reservoir(8, (2,), seed=seed, name="r", policy=policy)
        for i in range(8):
            held.offer(x(i), 0, str(i))
        held.loss[:] = losses
        held.offer(x(9), 1, "new")
        for slot in held.slots():
            if held.key[slot] != "new":
                stayed[int(held.key[slot])] += 1
    return stayed / seeds


def test_by_loss_what_is_done_well_goes_first():
    losses = np.array([0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 2.0], np.float32)
    # Weights 1 / (loss + 0.1 mean): 10 and 1 / 2.1.
    share = 10.0 / (4 * 10.0 + 4 / 2.1)
    gone = 1.0 - survivors("loss", losses)
    assert gone.sum() == pytest.approx(1.0)
    assert np.abs(gone[:4] - share).max() < 4.5 * np.sqrt(share * (1 - share) / 400)
    assert gone[4:].max() < 0.05
    alike = 1.0 - survivors("balanced", losses)
    assert alike[4:].sum() > 0.35  # the other policy does not look at it


@pytest.mark.parametrize("losses", [np.nan, 0.0])
def test_without_losses_to_tell_them_apart_all_are_alike(losses):
    gone = 1.0 - survivors("loss", np.full(8, losses, np.float32))
    assert np.abs(gone - 1 / 8).max() < 4.5 * np.sqrt(1 / 8 * 7 / 8 / 400)


def test_a_sample_without_a_loss_counts_as_the_mean():
    losses = np.array([np.nan] * 4 + [1.0] * 4, np.float32)
    gone = 1.0 - survivors("loss", losses)
    assert np.abs(gone - 1 / 8).max() < 4.5 * np.sqrt(1 / 8 * 7 / 8 / 400)


def test_by_loss_it_stays_balanced_and_goes_on_where_it_was():
    labels = np.random.default_rng(0).integers(0, 3, 60).tolist() + [3] * 30

    def fed(held, first, last):
        for i, y in enumerate(labels[first:last], first):
            held.offer(x(i), y, str(i))

    def scored(held):
        for slot in held.slots():
            held.loss[slot] = np.float32(int(held.key[slot]) % 7) / np.float32(3.0)
        return held

    whole = Reservoir(24, (2,), seed=1, name="r", policy="loss")
    fed(whole, 0, 50)
    fed(scored(whole), 50, 60)
    second = Reservoir(24, (2,), seed=1, name="r", policy="loss")
    for slot in whole.slots():
        second.put(slot, whole.x[slot], whole.y[slot], whole.key[slot])
    state = json.loads(json.dumps(whole.state()))
    forgetful = {key: value for key, value in state.items() if key != "loss"}
    second.load(state)
    assert np.isnan(second.loss).any()
    assert np.isfinite(second.loss).any()
    third = Reservoir(24, (2,), seed=1, name="r", policy="loss")
    for slot in whole.slots():
        third.put(slot, whole.x[slot], whole.y[slot], whole.key[slot])
    third.load(forgetful)
    for held in (whole, second, third):
        fed(held, 60, 90)
    assert second.key == whole.key
    assert third.key != whole.key  # the losses are what it goes on with
    assert max(whole.held().values()) - min(whole.held().values()) <= 1
