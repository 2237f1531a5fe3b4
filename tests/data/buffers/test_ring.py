import json

import numpy as np

from edgeloop.data.buffers import Ring, Sketch


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


def test_the_oldest_can_be_taken_out_one_by_one():
    ring = Ring(3, (2,))
    for i in range(4):
        ring.push(x(i), i, f"k{i}")
    assert ring.key[ring.pop()] == "k1"
    assert [ring.key[s] for s in ring.slots()] == ["k2", "k3"]
    assert ring.changed == set(ring.slots())
    other = Ring(3, (2,))
    other.load(json.loads(json.dumps(ring.state())))
    assert other.slots() == ring.slots()


def test_what_was_taken_out_is_not_found_any_more():
    sketch = Sketch(2, seed=0)
    ring, signature = Ring(3, (2,), sketch=sketch), np.zeros(2, np.float32)
    ring.push(x(5), 0, "")
    sketch(x(5), signature)
    assert ring.nearest(signature, 0) == (0.0, 0)
    ring.pop()
    assert ring.nearest(signature, 0) == (float("inf"), -1)
    ring.push(x(5), 0, "")
    ring.clear()
    assert ring.nearest(signature, 0) == (float("inf"), -1)
