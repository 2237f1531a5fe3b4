"""Updates that have to stop for a while: where they stop changes nothing of what they learn."""

import threading

import numpy as np
import pytest

from edgeloop import delta
from edgeloop.beside import INBOX
from edgeloop.loop.gate import PairedGate
from edgeloop.loop.memory import Memory
from edgeloop.store import Store
from edgeloop.trust import Trust

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


def flicker(kit, store, data, *, away, after=5, kill=False, **options):
    """Run with a charger that is pulled in the first update and back after `away` more looks."""
    plug, events = Plug(), []

    def seen(kind, **detail):
        events.append((kind, detail))
        if kind == "job" and detail["job"] == 1:
            plug.pulled = set(range(plug.looks + after, plug.looks + after + away))
        if kill and kind == "suspended":
            raise InterruptedError

    made = loop(kit, store, data, plug, on_event=seen, **options)
    return made, events


def first_update(store):
    """What the first update made, of what samples: the weights to the bit."""
    made = next(v for v in store.versions() if v.metrics.get("job") == 1)
    return made.metrics["data_sha256"], store.adapter(made.id)["w"].tobytes()


@pytest.fixture
def want(kit, data, tmp_path):
    """The first update of a loop whose charger stays."""
    with Store.open(tmp_path / "whole.db") as whole:
        loop(kit, whole, data, Plug()).run()
        return first_update(whole)


@pytest.mark.parametrize("after", [0, 3, 7])
def test_it_goes_on_in_the_same_run_to_the_same_bits(kit, data, store, want, after):
    """Samples come in between; what is learnt is what would have been."""
    made, events = flicker(kit, store, data, away=10, after=after)
    made.run()
    kinds_seen = [kind for kind, _ in events]
    stopped, back = kinds_seen.index("suspended"), kinds_seen.index("resumed")
    between = kinds_seen[stopped:back]
    assert between.count("item") >= 9
    assert [k for k in kinds(store) if k in ("suspended", "went on")] == ["suspended", "went on"]
    went_on = next(e for e in store.events(1000) if e.kind == "went on")
    assert went_on.detail == {"job": 1}
    assert first_update(store) == want


def test_without_the_pin_other_weights_come_of_it(kit, data, store, want, monkeypatch):
    """The control of the one above."""
    monkeypatch.setattr(Memory, "pin", lambda self: None)
    made, _ = flicker(kit, store, data, away=10)
    made.run()
    assert first_update(store) != want


def test_killed_while_suspended_it_ends_with_the_same_bits(kit, data, store, want):
    made, _ = flicker(kit, store, data, away=10, kill=True)
    with pytest.raises(InterruptedError):
        made.run()
    assert store.job() is not None
    report = loop(kit, store, data, Plug()).run()
    assert report.resumed
    assert first_update(store) == want


def test_the_gate_grows_meanwhile(kit, data, store):
    roomy = kit.config(**CONFIG | {"gate": {"min_samples": 8, "capacity": 32, "share": 0.2}})
    plug, sizes = Plug(), []

    def seen(kind, **_):
        if kind == "job":
            plug.pulled = {plug.looks + 5}
        if kind == "suspended":
            plug.out = True
            sizes.append((len(made._memory.gate), made._memory.pinned))

    made = kit.loop(store, data, roomy, device=plug, on_event=seen)
    made.run()
    (gate, pinned), = sizes
    assert made._memory.pinned == pinned
    assert len(made._memory.gate) > gate


class Eager(PairedGate):
    """Lets updates train however good the live version is."""

    def winnable(self, live):
        return True


@pytest.mark.parametrize("learnt", [False, True])
def test_a_release_may_arrive_meanwhile(kit, store, fleet, data, learnt):
    """It waits until the update has ended, and is taken in then."""
    delta.note(store, Trust.enroll(store.path, fleet.root))
    options = {"shipped": lambda: {"w": np.zeros((kit.classes, kit.width), "f4")},
               "program_hash": "ab" * 32}
    if learnt:
        loop(kit, store, data, Plug(), **options).run(60)
        assert store.live().id > 1
        options["gate"] = Eager(8, 0.95, 0.02)
    truth = np.random.default_rng(7).normal(size=(kit.classes, kit.width)).astype("f4")
    folder = store.path.with_name(store.path.name + INBOX)
    folder.mkdir(exist_ok=True)
    plug, events = Plug(), []

    def seen(kind, **detail):
        events.append(kind)
        if kind == "job" and "suspended" not in events:
            plug.pulled = set(range(plug.looks + 3, plug.looks + 40))
        if kind == "suspended":
            package = fleet.pack(None, {"w": 0.3 * truth}, 1, program="ab" * 32)
            (folder / "1.edl").write_bytes(package)

    report = loop(kit, store, data, plug, on_event=seen, **options).run()
    assert events.count("suspended") == 1
    happened = kinds(store)
    assert happened.index("suspended") < happened.index("went on")
    assert report.ended == "exhausted"
    assert store.job() is None
    assert not list(folder.glob("*"))
    released = [v.id for v in store.versions() if v.lineage == "fleet" and v.id > 1]
    assert len(released) == 1
    assert happened.index("went on") < happened.index("taken")
    assert store.live().id >= released[0]


def test_a_rest_ends_when_the_loop_is_told_to_stop(kit, data, store):
    """A rest of a hundred seconds, in a loop that sleeps for real."""
    made = loop(kit, store, data, Plug())
    begun, ended = threading.Event(), threading.Event()

    def rest():
        begun.set()
        made._doze(100.0)
        ended.set()

    resting = threading.Thread(target=rest, daemon=True)
    resting.start()
    assert begun.wait(30)
    assert not ended.is_set()
    made.stop()
    assert ended.wait(30)
