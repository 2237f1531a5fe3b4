import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.data.buffers import STORAGES
from edgeloop.errors import ConfigError
from edgeloop.loop import plan_ram
from edgeloop.loop.memory import Memory
from edgeloop.loop.sizes import SHARES, Sizes, set_bytes, sizes_of

SHAPE = (16, 16)
NAMES = ("ring of new samples", "rehearsal", "validation set", "gate set", "signatures' projection")
ABSENT = {"capacity": None, "rehearsal": None, "validation": None}


def config_of(kit, *, views=1, gate=None, **buffer):
    config = kit.config(
        gate={"min_samples": 8} | (gate or {}), train={"augment": {"views": views}},
    )
    return kit.replace(config, buffer=kit.replace(config.buffer, **ABSENT | buffer))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("novelty", [0.0, 1.5])
def test_what_is_allocated_is_what_is_planned(kit, storage, novelty):
    config = config_of(
        kit, views=2, bytes=1 << 20, storage=storage, novelty_threshold=novelty)
    plan = plan_ram(config, 0, 0, SHAPE, baseline=0)
    planned = sum(item.bytes for item in plan.items if item.name in NAMES)
    tracemalloc.start()
    memory = Memory(config, SHAPE)
    allocated = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    sizes = sizes_of(config, SHAPE)
    assert memory.nbytes == planned == set_bytes(config, SHAPE, sizes).total
    slots = sum((sizes.capacity, sizes.rehearsal, sizes.validation, sizes.gate))
    # Beside the arrays: two lists of pointers, and some objects.
    assert 0 <= allocated - planned - 16 * slots < 16384
    assert (memory.fresh.capacity, memory.rehearsal.capacity, memory.validation.capacity,
            memory.gate.capacity) == (sizes.capacity, sizes.rehearsal, sizes.validation, sizes.gate)


def test_the_plan_names_what_a_narrow_storage_costs_while_it_trains(kit):
    def lines(storage):
        config = config_of(kit, capacity=10, rehearsal=0, validation=20, storage=storage)
        return {i.name: i for i in plan_ram(config, 0, 0, SHAPE, baseline=0).items}

    assert "validation set, as f32" not in lines("f32")
    assert lines("int8")["validation set, as f32"].bytes == 20 * 1024
    assert lines("int8")["ring of new samples"].note == "10 samples, int8"
    assert lines("int8")["gate set, copied"].bytes == 16 * 1024


@given(
    bytes=st.integers(60_000, 4 << 20),
    storage=st.sampled_from(STORAGES),
    given=st.dictionaries(st.sampled_from(list(ABSENT)), st.integers(1, 12), max_size=2),
)
def test_bytes_are_used_up_and_not_exceeded(kit, bytes, storage, given):  # noqa: A002
    config = config_of(kit, bytes=bytes, storage=storage, **given)
    sizes = sizes_of(config, SHAPE)
    total = set_bytes(config, SHAPE, sizes).total
    assert bytes - 4 * 1200 < total <= bytes
    assert all(getattr(sizes, name) == count for name, count in given.items())
    assert sizes.gate >= 8
    assert sizes.capacity >= 1


def test_the_shares_are_as_documented(kit):
    config = config_of(kit, bytes=8 << 20)
    found = set_bytes(config, SHAPE, sizes_of(config, SHAPE))
    assert math.isclose(sum(SHARES.values()), 1.0)
    for name, share in SHARES.items():
        assert getattr(found, name) / found.total == pytest.approx(share, abs=0.005)
    narrow = sizes_of(config_of(kit, bytes=8 << 20, storage="int8", novelty_threshold=0.0), SHAPE)
    wide = sizes_of(config_of(kit, bytes=8 << 20, novelty_threshold=0.0), SHAPE)
    assert 3.6 < narrow.capacity / wide.capacity < 4.0
    assert narrow.gate == wide.gate


def test_counts_that_are_given_win(kit):
    config = config_of(kit, bytes=1 << 20, rehearsal=7, gate={"capacity": 9})
    sizes = sizes_of(config, SHAPE)
    assert (sizes.rehearsal, sizes.gate) == (7, 9)
    assert sizes.capacity > 600
    everything = config_of(
        kit, bytes=1 << 20, capacity=3, rehearsal=2, validation=1, gate={"capacity": 9})
    assert sizes_of(everything, SHAPE) == Sizes(3, 2, 1, 9)


def test_too_few_bytes_are_refused_with_what_is_needed(kit):
    config = config_of(kit, bytes=9000)
    with pytest.raises(ConfigError, match=r"buffer\.bytes: is 9000; the sets need at least") as e:
        sizes_of(config, SHAPE)
    least = int(str(e.value).split("at least ")[1].split()[0])
    enough = config_of(kit, bytes=least)
    assert sizes_of(enough, SHAPE) == Sizes(1, 0, 0, 8)
    with pytest.raises(ConfigError):
        sizes_of(config_of(kit, bytes=least - 1), SHAPE)
    with pytest.raises(ConfigError, match="lower the counts"):
        sizes_of(config_of(kit, bytes=50_000, capacity=500), SHAPE)


def test_a_loop_learns_within_few_bytes(kit, store):
    config = config_of(kit, bytes=12_000, storage="int8", policy="loss", near_duplicate=0.01)
    loop = kit.loop(store, kit.stream(150), config)
    report = loop.run()
    assert report.promoted >= 1
    assert loop._memory.nbytes <= 12_000
    assert np.isfinite(loop._memory.rehearsal.loss[loop._memory.rehearsal.slots()]).any()
