import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeloop.data.buffers import (
    STORAGES,
    Reservoir,
    Ring,
    Sketch,
    Slots,
    decoded,
    sketch_bytes,
    slots_bytes,
)

FLOATS = st.floats(-1e6, 1e6, width=32)
NARROW = ("f16", "int8")


def held(storage, x):
    slots = Slots(2, x.shape, storage=storage)
    slots.put(1, x, 3, "k")
    return slots


@pytest.mark.parametrize("storage", STORAGES)
@given(x=arrays(np.float32, (2, 5), elements=FLOATS))
def test_read_back_within_the_rounding(storage, x):
    slots, out = held(storage, x), np.full((2, 5), np.nan, np.float32)
    slots.read(1, out)
    if storage == "f32":
        bound = np.zeros_like(x)
    elif storage == "f16":
        x = x.clip(-65504, 65504)
        bound = np.abs(x) * 2.0**-11 + 2.0**-25
    else:
        bound = np.full_like(x, np.abs(x).max() / 127 * 0.5001 + 1e-38)
    assert (np.abs(out - x) <= bound).all()
    one = np.empty(5, np.float32)
    slots.read(1, one, 1)
    assert (one == out[1]).all()
    assert (slots.view(1) == out).all()
    assert (slots.view(1, 0) == out[0]).all()
    assert (slots.first(2)[1] == out).all()


def test_int8_rounds_half_to_even():
    x = np.array([127, 0.5, 1.5, -2.5, -127, 0], np.float32)
    assert held("int8", x).x[1].tolist() == [127, 0, 2, -2, -127, 0]


def test_the_smallest_numbers_stay_in_range():
    for x in (np.zeros(3, np.float32), np.full(3, 1e-45, np.float32), np.full(3, 3e38, np.float32)):
        slots, out = held("int8", x), np.empty(3, np.float32)
        slots.read(1, out)
        assert np.abs(out - x).max() <= 0.005 * x.max() + 1e-38


@pytest.mark.parametrize("storage", STORAGES)
@given(x=arrays(np.float32, (2, 5), elements=FLOATS))
def test_what_is_stored_restores_the_same_bits(storage, x):
    slots, other = held(storage, x), Slots(2, (2, 5), storage=storage)
    other.restore(0, slots.stored(1).copy(), slots.y[1], slots.key[1])
    assert other.view(0).tobytes() == slots.view(1).tobytes()
    assert (other.y[0], other.key[0], other.changed) == (3, "k", {0})
    assert decoded(slots.stored(1)).reshape(2, 5).tobytes() == slots.view(1).tobytes()


@pytest.mark.parametrize("storage", STORAGES)
@given(x=arrays(np.float32, (2, 5), elements=FLOATS))
def test_moved_to_a_memory_of_the_same_kind_it_keeps_its_bits(storage, x):
    """Rounding what is rounded already may be off by a bit of the scale: 127 is no power of two."""
    sketch = Sketch(5, seed=0)
    ring = Ring(2, (2, 5), storage=storage, sketch=sketch)
    ring.push(x, 3, "k")
    ring.loss[0] = 0.5
    for kind in STORAGES:
        memory = Reservoir(1, (2, 5), seed=0, name="r", storage=kind, sketch=sketch)
        memory.adopt(ring, 0)
        assert (memory.y[0], memory.key[0], memory.loss[0]) == (3, "k", 0.5)
        if kind == storage:
            assert memory.stored(0).tobytes() == ring.stored(0).tobytes()
            distance, slot = memory.nearest(ring._signatures[:, 0], 3)
            assert (distance, slot) == (0.0, 0)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("signed", [False, True])
def test_allocated_is_what_was_planned(storage, signed):
    sketch = Sketch(40 * 10, seed=0) if signed else None
    tracemalloc.start()
    slots = Ring(200, (3, 40, 10), storage=storage, sketch=sketch)
    allocated = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    planned = slots_bytes(200, (3, 40, 10), storage, 32 if signed else 0)
    assert slots.nbytes == planned
    # Keys and labels: two lists of pointers; and the array objects themselves.
    assert 0 <= allocated - planned < 2 * 8 * 200 + 4096


def test_a_sketch_takes_what_was_planned():
    for size in (3, 32, 33, 490):
        assert Sketch(size, seed=0).nbytes == sketch_bytes(size)


@pytest.mark.parametrize("storage", STORAGES)
def test_warm_it_allocates_nothing_that_stays(storage):
    sketch = Sketch(256, seed=0)
    ring = Ring(8, (1, 16, 16), storage=storage, sketch=sketch)
    memory = Reservoir(8, (1, 16, 16), seed=0, name="r", storage=storage, sketch=sketch)
    x = np.random.default_rng(0).normal(size=(16, 1, 16, 16)).astype("f4")

    def feed(times):
        for i in range(times):
            if len(ring) == 8:
                memory.adopt(ring, ring.oldest())
            ring.push(x[i % 16], i % 3, "k")

    feed(64)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    feed(64)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 2048
    assert peak - before < 4096  # nothing of the size of the memories, 8 KiB, in between
