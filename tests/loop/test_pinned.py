"""While an update is under way its lesson does not change, whatever comes in."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.data.buffers import Reservoir
from edgeloop.loop.memory import Memory
from edgeloop.store import Store

OPTIONS = {"capacity": 6, "rehearsal": 5, "validation": 4}


def lesson(memory):
    """Bits of everything that an update trains on."""
    sets = ((memory.fresh, memory.lesson()), (memory.rehearsal, memory.rehearsal.slots()),
            (memory.validation, memory.validation.slots()))
    return [[(slots.key[i], slots.y[i], slots.stored(i).tobytes()) for i in which]
            for slots, which in sets]


def feed(memory, numbers):
    for i in numbers:
        x = np.full(3, i, np.float32)
        memory.add(memory.role(str(i)), x, i % 3, str(i), lambda x=x: x[np.newaxis])


def restarted(config, memory, folder):
    with Store.open(folder / "device.db") as store:
        state = json.loads(json.dumps(memory.save(store, "stream")))
    other = Memory(config, (3,))
    with Store.open(folder / "device.db") as store:
        other.load(store, state)
        return other, store


KINDS = st.sampled_from(["f32", "int8"])


@given(before=st.integers(0, 40), after=st.integers(0, 40), storage=KINDS)
def test_a_pinned_lesson_stays_and_is_all_that_is_handed_over(kit, before, after, storage):
    config = kit.config(buffer=OPTIONS | {"storage": storage})
    memory = Memory(config, (3,))
    feed(memory, range(before))
    new, was = [memory.fresh.key[i] for i in memory.fresh.slots()], lesson(memory)
    memory.pin()
    gate, lost = len(memory.gate), memory.fresh.overruns
    feed(memory, range(before, before + after))
    assert lesson(memory) == was
    arrived = [str(i) for i in range(before, before + after) if memory.role(str(i)) == "train"]
    room = OPTIONS["capacity"] - len(new)
    assert [memory.fresh.key[i] for i in memory.fresh.slots()] == new + arrived[:room]
    assert memory.fresh.overruns - lost == len(arrived[room:])
    assert len(memory.gate) >= gate
    memory.retire()
    assert memory.pinned is None
    assert [memory.fresh.key[i] for i in memory.fresh.slots()] == arrived[:room]
    remembered = {memory.rehearsal.key[i] for i in memory.rehearsal.slots()}
    assert remembered <= {row[0] for row in was[0] + was[1]}
    feed(memory, range(100, 160))  # it goes on
    assert len(memory.fresh) == OPTIONS["capacity"]


@settings(max_examples=20)
@given(before=st.integers(0, 30), cuts=st.lists(st.integers(0, 12), max_size=3))
def test_a_restart_keeps_it_pinned(kit, tmp_path_factory, before, cuts):
    config = kit.config(buffer=OPTIONS | {"storage": "int8"})
    folder = tmp_path_factory.mktemp("pinned")
    memory, whole = Memory(config, (3,)), Memory(config, (3,))
    feed(memory, range(before))
    feed(whole, range(before))
    memory.pin()
    whole.pin()
    was, n = lesson(memory), before
    for more in cuts:
        memory, _ = restarted(config, memory, folder)
        feed(memory, range(n, n + more))
        feed(whole, range(n, n + more))
        n += more
        assert lesson(memory) == was
    for m in (memory, whole):
        m.retire()
        feed(m, range(n, n + 20))
    assert lesson(memory) == lesson(whole)
    assert memory.counts == whole.counts


def test_without_the_pin_the_lesson_changes(kit, monkeypatch):
    """The controls: what is not frozen moves on."""
    for broken in ("ring", "reservoirs"):
        memory = Memory(kit.config(buffer=OPTIONS), (3,))
        feed(memory, range(40))
        memory.pin()
        was = lesson(memory)
        if broken == "ring":
            memory.pinned = None
        else:
            memory._freeze(frozen=False)
        feed(memory, range(40, 90))
        assert lesson(memory) != was
    assert Reservoir(1, (3,), seed=0, name="r").frozen is False


def test_what_came_meanwhile_stays_on_disk_and_what_was_handed_over_goes(kit, tmp_path):
    config = kit.config(buffer=OPTIONS)
    memory = Memory(config, (3,))
    feed(memory, range(6))
    memory.pin()
    feed(memory, range(6, 9))
    memory, _ = restarted(config, memory, tmp_path)
    pinned, total = memory.pinned, len(memory.fresh)
    assert 0 < pinned < total
    memory.retire()
    with Store.open(tmp_path / "device.db") as store:
        memory.save(store, "stream")
        rows = [sample.key for sample in store.samples("train")]
    assert rows == [f"{i:06d}:{memory.fresh.key[i]}" for i in memory.fresh.slots()]
    assert len(rows) == total - pinned


def test_pinning_twice_adds_nothing_and_unpinning_lets_go(kit):
    memory = Memory(kit.config(buffer=OPTIONS), (3,))
    feed(memory, range(5))
    memory.pin()
    pinned = memory.pinned
    feed(memory, range(5, 9))
    memory.pin()
    assert memory.pinned == pinned < len(memory.fresh)
    memory.unpin()
    assert memory.lesson() == memory.fresh.slots()
    before = memory.validation.state()
    feed(memory, range(9, 60))
    assert memory.validation.state() != before


def test_other_sizes_after_a_restart_pin_nothing(kit, tmp_path):
    memory = Memory(kit.config(buffer=OPTIONS), (3,))
    feed(memory, range(9))
    memory.pin()
    other, _ = restarted(kit.config(buffer=OPTIONS | {"capacity": 9}), memory, tmp_path)
    assert other.pinned is None
    assert not other.validation.frozen


@pytest.mark.parametrize("count", [0, 2, 4])
def test_so_many_are_handed_over(kit, count):
    memory = Memory(kit.config(buffer=OPTIONS), (3,))
    for i in range(4):
        memory.add_fresh(np.full((1, 3), i, np.float32), 0, str(i))
    memory.retire(count)
    assert [memory.rehearsal.key[i] for i in memory.rehearsal.slots()] == list("0123")[:count]
    assert [memory.fresh.key[i] for i in memory.fresh.slots()] == list("0123")[count:]
