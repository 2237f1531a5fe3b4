import json

import numpy as np

from edgeloop.loop.memory import BaseMemory, Memory


def fill(memory, data, start=0):
    for i, (x, y) in enumerate(data, start):
        role = memory.role(str(i))
        if role == "train":
            memory.add_fresh(x[np.newaxis], y, str(i))
        else:
            getattr(memory, role).offer(x, y, str(i))


def content(memory):
    return {
        name: [(slots.key[i], slots.y[i], slots.x[i].tobytes()) for i in slots.slots()]
        for name, slots in memory._sets.items()
    }


def test_roles_have_their_shares(kit):
    memory = Memory(kit.config(gate={"share": 0.3}, train={"validation": 0.1}), (kit.width,))
    roles = [memory.role(str(i)) for i in range(4000)]
    assert abs(roles.count("gate") / 4000 - 0.3) < 0.03
    assert abs(roles.count("validation") / 4000 - 0.1) < 0.02
    other = Memory(kit.config(train={"seed": 1}), (kit.width,))
    assert [other.role(str(i)) for i in range(100)] != roles[:100]


def test_saved_and_loaded_it_goes_on_alike(kit, store):
    data, config = kit.stream(140), kit.config()
    memory = Memory(config, (kit.width,))
    fill(memory, data[:60])
    memory.retire()
    fill(memory, data[60:90], 60)
    state = json.loads(json.dumps(memory.save(store, "stream")))
    other = Memory(config, (kit.width,))
    other.load(store, state)
    assert content(other) == content(memory)
    for m in (memory, other):
        fill(m, data[90:], 90)
        m.retire()
    assert content(other) == content(memory)
    assert len(memory.rehearsal) == 24


def test_only_what_changed_is_written(kit, store):
    memory = Memory(kit.config(), (kit.width,))
    fill(memory, kit.stream(30))
    written = []
    real = store.put_samples
    store.put_samples = lambda items: written.extend(items) or real(items)
    memory.save(store, "stream")
    assert len(written) == 30
    written.clear()
    memory.save(store, "stream")
    assert written == []


def test_retired_samples_are_dropped_from_disk(kit, store):
    memory = Memory(kit.config(), (kit.width,))
    fill(memory, kit.stream(30))
    memory.save(store, "stream")
    kept = len(store.samples("train"))
    memory.retire()
    memory.save(store, "stream")
    assert store.samples("train") == []
    assert len(store.samples("rehearsal")) == min(kept, 24)


def test_base_samples_rehearse_or_anchor(kit):
    base = BaseMemory(100, (kit.width,), anchor=0.5, seed=0)
    for i, (x, y) in enumerate(kit.stream(100)):
        base.add(x, y, str(i))
    rehearsed = {base.rehearsal.key[i] for i in base.rehearsal.slots()}
    anchors = {base.anchors.key[i] for i in base.anchors.slots()}
    assert not rehearsed & anchors
    assert len(rehearsed) + len(anchors) == 100
    assert 35 < len(anchors) < 65
    before = base.digest()
    base.add(kit.stream(1)[0][0], 0, next(str(i) for i in range(100, 200) if base_anchor(base, i)))
    assert base.digest() != before


def base_anchor(base, i):
    probe = BaseMemory(4, (6,), anchor=0.5, seed=0)
    probe.add(np.zeros(6, np.float32), 0, str(i))
    return len(probe.anchors) == 1
