"""A release reaches a device that learns: tried, built on, or given up; never worse than before."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tests.trust.fleet import Fleet

from edgeloop import delta
from edgeloop.beside import INBOX
from edgeloop.loop.gate import PairedGate
from edgeloop.loop.update import REBASE_TRIES, Updater
from edgeloop.store import REBASE, REFUSED, REPORTS, TRIAL, Store
from edgeloop.trust import Trust

PROGRAM = "p" * 64


def centres(kit, truth_seed=7):
    """The weights that know the stream of this truth."""
    return np.random.default_rng(truth_seed).normal(size=(kit.classes, kit.width)).astype("f4")


def inbox(store, fleet, adapter, sequence):
    """Put a full package of a release where the loop looks."""
    folder = store.path.with_name(store.path.name + INBOX)
    folder.mkdir(exist_ok=True)
    package = fleet.pack(None, adapter, sequence, program="ab" * 32)
    (folder / f"{sequence}.edl").write_bytes(package)


@pytest.fixture
def enrolled(store, fleet):
    delta.note(store, Trust.enroll(store.path, fleet.root))
    return store


@pytest.fixture
def loop(kit, enrolled):
    """Loops of a program whose hash is one; its shipped weights are zeros."""

    def made(data, config=None, **options):
        options = {"shipped": lambda: {"w": np.zeros((kit.classes, kit.width), "f4")},
                   "program_hash": "ab" * 32} | options
        return kit.loop(enrolled, data, config, **options)

    return made


def test_a_release_is_built_upon(kit, enrolled, loop, fleet):
    """What the device learnt is learnt again on the release, judged, and swapped in."""
    data = kit.stream(150)
    first = loop(data)
    report = first.run(100)
    assert report.versions, "the device must have learnt something"
    mine = enrolled.live()
    inbox(enrolled, fleet, {"w": 0.3 * centres(kit)}, 1)
    events = []
    second = loop(data, on_event=lambda kind, **d: events.append((kind, d)))
    report = second.run()
    assert ("taken", {"version": mine.id + 1, "action": "rebase"}) in events
    live = enrolled.live()
    rebased = enrolled.version(report.updates[0].version)
    assert report.updates[0].reason == "no worse"
    assert rebased.parent == mine.id + 1
    assert (rebased.lineage, enrolled.version(rebased.parent).lineage) == ("local", "fleet")
    assert live.id >= rebased.id
    assert second.live.version == live.id
    assert enrolled.kv(REBASE) is None
    assert not list(enrolled.path.with_name(enrolled.path.name + INBOX).glob("*"))


class Never:
    """Turns everything down that is judged as a rebase."""

    def __init__(self, inner):
        self.inner = inner

    def winnable(self, live):
        return self.inner.winnable(live)

    def __call__(self, evidence, *, seed, better=True):
        verdict = self.inner(evidence, seed=seed)
        return verdict if better else verdict.__class__(**(verdict.numbers() | {"promote": False}))


def test_a_release_that_stays_worse_is_given_up_and_reported(kit, enrolled, loop, fleet):
    data = kit.stream(400)
    loop(data).run(100)
    mine = enrolled.live()
    inbox(enrolled, fleet, {"w": -5 * centres(kit)}, 1)
    gate = Never(PairedGate(8, 0.95, 0.02))
    report = loop(data, gate=gate).run()
    assert enrolled.kv(REBASE) is None
    assert json.loads(enrolled.kv(REPORTS)) == [[1, "taken"], [1, "regressed"]]
    kinds = [e.kind for e in enrolled.events()]
    assert kinds.count("given_up") == 1
    assert REBASE_TRIES == 3
    assert enrolled.live().id == mine.id or enrolled.live().lineage == "local"
    assert report.ended == "exhausted"


def test_a_rebase_that_was_interrupted_goes_on_to_the_same_bits(kit, enrolled, loop, fleet,
                                                                tmp_path):
    data = kit.stream(150)
    loop(data).run(100)
    inbox(enrolled, fleet, {"w": 0.3 * centres(kit)}, 1)
    for end in ("", ".trust", ".devicekey"):
        shutil.copy(f"{enrolled.path}{end}", tmp_path / f"other.db{end}")
    loop(data).run()
    want = [(v.sha256, v.parent) for v in enrolled.versions()]

    class CutError(Exception):
        pass

    def cut(kind, **detail):
        if kind == "checkpoint" and detail["step"] == 3:
            raise CutError

    # The other device: the same, cut off in the middle of its rebase.
    with Store.open(tmp_path / "twin.db") as twin:
        delta.note(twin, Trust.enroll(twin.path, fleet.root))

        def run(**options):
            options |= {"shipped": lambda: {"w": np.zeros((kit.classes, kit.width), "f4")}}
            return kit.loop(twin, data, program_hash="ab" * 32, **options)

        run().run(100)
        inbox(twin, fleet, {"w": 0.3 * centres(kit)}, 1)
        with pytest.raises(CutError):
            run(on_event=cut).run()
        assert twin.has_job()
        assert run().run().resumed
        assert [(v.sha256, v.parent) for v in twin.versions()] == want


def test_a_release_that_went_live_at_once_is_tried(kit, enrolled, loop, fleet):
    """Nothing was learnt here: the release goes live; the gate's samples then judge it."""
    data = kit.stream(150)
    never = kit.config(trigger={"samples": 24}, gate={"min_samples": 30})
    loop(data, never).run(60)
    assert enrolled.live().id == 1
    good, bad = {"w": centres(kit)}, {"w": -centres(kit)}
    inbox(enrolled, fleet, good, 1)
    loop(data, never).run(64)
    assert enrolled.live().id == 2
    assert json.loads(enrolled.kv(TRIAL))[:2] == [1, 2]  # too few samples to judge by: it goes on
    soon = kit.config(trigger={"samples": 24}, gate={"min_samples": 8})
    loop(data, soon).run(64)
    assert enrolled.live().id == 2
    assert enrolled.kv(TRIAL) is None  # judged and good
    inbox(enrolled, fleet, bad, 2)
    report = loop(data, soon).run(64)
    assert enrolled.live().id == 2
    assert report.live == 2
    assert json.loads(enrolled.kv(REPORTS)) == [[1, "taken"], [2, "taken"], [2, "regressed"]]
    assert "regressed" in [e.kind for e in enrolled.events()]


def test_without_the_trial_a_worse_release_would_stay(kit, enrolled, loop, fleet, monkeypatch):
    config = kit.config(trigger={"samples": 9999}, gate={"min_samples": 8})
    data = kit.stream(150)
    loop(data, config).run(70)
    inbox(enrolled, fleet, {"w": centres(kit)}, 1)
    loop(data, config).run(70)
    inbox(enrolled, fleet, {"w": -centres(kit)}, 2)
    monkeypatch.setattr(Updater, "judge_trial", lambda _: None)
    loop(data, config).run(70)
    assert enrolled.live().id == 3
    monkeypatch.undo()
    loop(data, config).run(70)
    assert enrolled.live().id == 2


def test_without_the_gate_a_worse_rebase_would_go_live(kit, enrolled, loop, fleet):
    class Always:
        winnable = staticmethod(lambda live: True)

        def __call__(self, evidence, *, seed, better=True):
            verdict = PairedGate(8, 0.95, 0.02)(evidence, seed=seed, better=better)
            return replace(verdict, promote=verdict.promote or not better)

    data = kit.stream(150)
    loop(data).run(100)
    mine = enrolled.live().id
    # No step is taken on it: it is judged as it came, and is worse.
    frozen = kit.config(train={"lr": 0.0})
    inbox(enrolled, fleet, {"w": -5 * centres(kit)}, 1)
    loop(data, frozen).run(100)
    assert enrolled.live().id == mine
    loop(data, frozen, gate=Always()).run(100)
    assert enrolled.live().id != mine


def test_what_is_refused_is_named_and_deleted(kit, enrolled, loop, fleet):
    other = Fleet("other")
    inbox(enrolled, other, {"w": centres(kit)}, 1)
    folder = enrolled.path.with_name(enrolled.path.name + INBOX)
    (folder / "junk.edl").write_bytes(b"no package")
    loop(kit.stream(10)).run()
    refused = [e.detail["reason"] for e in enrolled.events() if e.kind == "refused"]
    assert len(refused) == 2
    assert not list(folder.glob("*"))
    assert enrolled.live().id == 1


def test_a_device_that_is_not_enrolled_takes_nothing_from_its_inbox(kit, store, fleet):
    inbox(store, fleet, {"w": centres(kit)}, 1)
    kit.loop(store, kit.stream(10)).run()
    assert "not enrolled" in store.events()[-1].detail["reason"]
    assert [v.id for v in store.versions()] == [1]


def test_a_full_disk_does_not_end_the_loop(kit, enrolled, loop, fleet, monkeypatch):
    loop(kit.stream(10)).run()
    inbox(enrolled, fleet, {"w": centres(kit)}, 1)
    real = delta.install
    monkeypatch.setattr(delta, "install", lambda *_, **__: (_ for _ in ()).throw(
        OSError(28, "No space left on device")))
    for _ in range(2):
        assert loop(kit.stream(10)).run().ended == "exhausted"
    assert enrolled.live().id == 1
    assert "No space" in enrolled.events()[-1].detail["reason"]
    monkeypatch.setattr(delta, "install", real)
    loop(kit.stream(10)).run()
    assert enrolled.live().lineage == "fleet"  # it had waited


def test_a_loop_that_never_trains_takes_releases_too(kit, enrolled, loop, fleet):
    config = kit.config(trigger={"samples": 9999})
    data = kit.stream(60)

    def late(kind, **detail):
        if kind == "item" and detail["n"] == 20:
            inbox(enrolled, fleet, {"w": centres(kit)}, 1)

    built = loop(data, config, on_event=late)
    built.run()
    assert enrolled.live().lineage == "fleet"
    assert built.live.version == enrolled.live().id


def test_a_trial_whose_predecessor_rotted_is_dropped(kit, enrolled, loop, fleet):
    config = kit.config(trigger={"samples": 24}, gate={"min_samples": 30})
    loop(kit.stream(150), config).run(60)
    inbox(enrolled, fleet, {"w": centres(kit)}, 1)
    loop(kit.stream(150), config).run(64)
    assert json.loads(enrolled.kv(TRIAL))[:2] == [1, 2]
    enrolled._db.query("UPDATE version SET adapter = x'00' WHERE id = 1")
    loop(kit.stream(150), kit.config(gate={"min_samples": 8})).run(64)
    assert enrolled.kv(TRIAL) is None
    assert enrolled.live().id == 2


def test_a_release_to_build_on_that_rotted_is_given_up(kit, enrolled, loop, fleet):
    loop(kit.stream(150)).run(100)
    mine = enrolled.live().id
    inbox(enrolled, fleet, {"w": centres(kit)}, 1)
    loop(kit.stream(150), kit.config(gate={"min_samples": 30, "capacity": 31})).run(100)
    enrolled._db.query("UPDATE version SET adapter = x'00' WHERE lineage = 'fleet'")
    loop(kit.stream(150)).run(100)
    assert enrolled.kv(REBASE) is None
    assert enrolled.live().id == mine


def test_a_rollback_that_is_worse_is_reported_by_its_own_number(kit, enrolled, loop, fleet):
    config = kit.config(trigger={"samples": 24}, gate={"min_samples": 8})
    data = kit.stream(150)
    loop(data, kit.config(trigger={"samples": 9999})).run(70)
    bad = {"w": -centres(kit)}
    inbox(enrolled, fleet, bad, 1)
    loop(data, kit.config(trigger={"samples": 9999}, gate={"min_samples": 99})).run(70)
    inbox(enrolled, fleet, {"w": centres(kit)}, 2)
    loop(data, config).run(70)
    assert enrolled.live().id == 3
    folder = enrolled.path.with_name(enrolled.path.name + INBOX)
    (folder / "9.edl").write_bytes(fleet.pack(None, bad, 9, codec="none", program="ab" * 32))
    loop(data, config).run(70)
    assert enrolled.live().id == 3
    assert json.loads(enrolled.kv(REPORTS))[-1] == [9, "regressed"]


def test_the_devices_own_trouble_is_no_bad_package(kit, enrolled, loop, fleet):
    inbox(enrolled, fleet, {"w": centres(kit)}, 1)
    journal = enrolled.path.with_name(enrolled.path.name + ".trust")
    kept = journal.read_bytes()
    journal.unlink()
    for _ in range(2):
        loop(kit.stream(40), kit.config(trigger={"samples": 999})).run()
    assert enrolled.kv(REFUSED) is None
    assert [e.kind for e in enrolled.events()] == ["not_taken"]  # not once for every look
    journal.write_bytes(kept)
    loop(kit.stream(40)).run()
    assert enrolled.live().lineage == "fleet"


@pytest.mark.parametrize("what", ["promote", "rollback"])
def test_what_the_operator_chose_is_not_undone(kit, enrolled, loop, fleet, what):
    """A release is on trial, or to be built on: the operator's word is the last one."""
    from edgeloop.cli import main

    early = kit.config(trigger={"samples": 24}, gate={"min_samples": 30})
    data = kit.stream(150)
    loop(data, early).run(60)
    inbox(enrolled, fleet, {"w": 0.5 * centres(kit)}, 1)
    loop(data, early).run(60)
    inbox(enrolled, fleet, {"w": centres(kit)}, 2)
    loop(data, early).run(60)
    path = str(enrolled.path)
    enrolled.close()
    assert main([what, path, *(["--id", "2"] if what == "promote" else [])]) == 0
    with Store.open(path) as store:
        assert store.live().id == 2
        assert store.kv(TRIAL) is None
        config = kit.config(gate={"min_samples": 8})
        kit.loop(store, data, config, program_hash="ab" * 32).run(60)
        assert store.live().id == 2
        assert [e.kind for e in store.events()].count("regressed") == 0


def test_a_trial_of_another_version_than_the_live_one_is_dropped(kit, enrolled, loop, fleet):
    early = kit.config(trigger={"samples": 24}, gate={"min_samples": 30})
    data = kit.stream(150)
    loop(data, early).run(60)
    inbox(enrolled, fleet, {"w": -centres(kit)}, 1)
    loop(data, early).run(60)
    enrolled.promote(1)  # by whatever way
    loop(data, kit.config(gate={"min_samples": 8})).run(60)
    assert enrolled.kv(TRIAL) is None
    assert enrolled.live().id == 1
    assert json.loads(enrolled.kv(REPORTS)) == [[1, "taken"]]


def test_versions_that_updates_need_are_never_dropped(enrolled, kit):
    ids = [enrolled.commit({"w": centres(kit, s)}, program_hash=PROGRAM, parent=None, metrics={},
                           live=True).id for s in range(6)]
    enrolled.put_kv(REBASE, json.dumps([ids[1], 5]).encode())
    enrolled.put_kv(TRIAL, json.dumps([ids[2], ids[3], 5]).encode())
    enrolled.gc(keep=1)
    assert [v.id for v in enrolled.versions()] == [ids[1], ids[2], ids[5]]
