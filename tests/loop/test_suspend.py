"""Updates that have to stop for a while: where they stop changes nothing of what they learn."""

import pytest

from edgeloop.loop.memory import Memory
from edgeloop.store import Store

CONFIG = {
    "buffer": {"capacity": 96, "rehearsal": 24, "validation": 16},
    "trigger": {"samples": 24},
    "train": {"epochs": 4, "checkpoint_every": 50, "lr": 0.1},
    "gate": {"min_samples": 8, "capacity": 8, "share": 0.2},
    "constraints": {"requires_charging": True},
}


class Plug:
    """A charger that is pulled at some looks."""

    def __init__(self, pulled=()):
        self.pulled, self.looks, self.out = set(pulled), 0, False

    def __call__(self):
        here = self.looks not in self.pulled and not self.out
        self.looks += 1
        return {"has_battery": True, "charging": here, "plugged": here}


def loop(kit, store, data, plug, **options):
    return kit.loop(store, data, kit.config(**CONFIG), device=plug, **options)


def weights(store):
    return [(v.id, v.parent, store.adapter(v.id)["w"].tobytes()) for v in store.versions()]


def kinds(store):
    return [e.kind for e in store.events(1000) if e.kind != "waits"]


@pytest.fixture
def data(kit):
    return kit.stream(120)


def suspended(kit, store, data, items=100):
    """Run until an update is suspended and stays so; return the loop and its plug."""
    plug = Plug()

    def pull(kind, **detail):
        if kind == "job":
            plug.pulled = {plug.looks + 5}
        if kind == "suspended":
            plug.out = True

    made = loop(kit, store, data, plug, on_event=pull)
    made.run(items)
    assert kinds(store)[-1] == "suspended"
    return made, plug


def test_samples_are_taken_meanwhile_and_the_lesson_stays(kit, data, store):
    made, _ = suspended(kit, store, data)
    memory = made._memory
    assert store.job() is not None
    assert memory.pinned is not None
    assert len(memory.fresh) > memory.pinned
    assert made.report.items == 100
    event = next(e for e in store.events(1000) if e.kind == "suspended")
    assert "requires_charging" in event.detail["why"]


def test_another_process_goes_on_when_it_may(kit, data, store):
    made, _ = suspended(kit, store, data)
    pinned = made._memory.pinned
    keys = [made._memory.fresh.key[i] for i in made._memory.lesson()]
    # Started again while the charger is still away: it stays suspended.
    away = Plug()
    away.out = True
    report = loop(kit, store, data, away).run(100)
    assert report.updates == []
    assert store.job() is not None
    # And goes on when it is back.
    again = loop(kit, store, data, Plug())
    again._begin()
    assert again._memory.pinned == pinned
    assert [again._memory.fresh.key[i] for i in again._memory.lesson()] == keys
    report = loop(kit, store, data, Plug()).run(100)
    assert report.resumed
    assert len(report.updates) == 1
    assert store.job() is None
    assert report.updates[0].fresh == pinned


def test_without_the_pin_the_lesson_would_change(kit, data, store, monkeypatch):
    """The control of the two above."""
    monkeypatch.setattr(Memory, "pin", lambda self: None)
    made, _ = suspended(kit, store, data)
    assert made._memory.pinned is None
    assert len(made._memory.lesson()) > 24


def test_stop_suspends_an_update_and_the_next_run_ends_it(kit, data, tmp_path):
    plain = {name: keys for name, keys in CONFIG.items() if name != "constraints"}
    with Store.open(tmp_path / "whole.db") as store:
        kit.loop(store, data, kit.config(**plain)).run(100)
        want = weights(store)
        assert len(want) > 1
    with Store.open(tmp_path / "stopped.db") as store:
        made = kit.loop(store, data, kit.config(**plain), on_event=lambda kind, **_: (
            kind == "job" and made.stop()))
        report = made.run(100)
        assert report.ended == "stopped"
        assert store.job() is not None
        while store.job() is not None or report.items < 100:
            report = kit.loop(store, data, kit.config(**plain)).run(100)
        assert weights(store) == want
