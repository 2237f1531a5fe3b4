import json
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.data.buffers import Reservoir, Ring


def x(i):
    return np.full(2, i, np.float32)


def test_ring_keeps_the_newest_in_order_and_counts_the_lost():
    ring = Ring(3, (2,))
    for i in range(5):
        ring.push(x(i), i, f"k{i}")
    assert [ring.key[s] for s in ring.slots()] == ["k2", "k3", "k4"]
    assert (len(ring), ring.overruns) == (3, 2)
    assert ring.x[ring.oldest()].tolist() == [2, 2]
    ring.clear()
    assert (len(ring), ring.overruns, ring.slots()) == (0, 2, [])


def test_ring_does_not_allocate_when_pushed():
    ring = Ring(3, (2,))
    before = ring.x.__array_interface__["data"]
    for i in range(10):
        ring.push(x(i), i, "")
    assert ring.x.__array_interface__["data"] == before


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
    second.load(json.loads(json.dumps(first.state())))
    for slot in first.slots():
        second.put(slot, first.x[slot], first.y[slot], first.key[slot])
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
