import json
import threading

import numpy as np
import pytest

from edgeloop.data.buffers import Reservoir
from edgeloop.data.intake import Intake
from edgeloop.data.item import Item
from edgeloop.data.privacy import AllowFields, HashIds
from edgeloop.data.sources import IterableSource
from edgeloop.errors import DataError, StateError
from edgeloop.loop.gate import Verdict
from edgeloop.loop.memory import BaseMemory
from edgeloop.store import Store


class Kill(BaseException):
    """A power cut: nothing in the loop may catch it."""


def finish(store):
    """Everything that must not depend on how often a run was interrupted."""
    versions = store.versions()
    numbers = [
        (v.id, v.parent, v.sha256, v.live, v.metrics.get("gate"), v.metrics.get("data_sha256"))
        for v in versions
    ]
    samples = {
        s: sorted((i.key, i.x.tobytes(), i.y) for i in store.samples(s))
        for s in ("train", "rehearsal", "validation", "gate")
    }
    return numbers, samples, store.kv("loop"), store.job()


def test_learns_and_serves(kit, store):
    seen = []
    loop = kit.loop(store, kit.stream(150), on_event=lambda kind, **d: seen.append((kind, d)))
    report = loop.run()
    assert report.items == report.accepted == 150
    assert report.promoted >= 1
    first = report.updates[0]
    assert first.version == 2
    assert first.gate["after"] > first.gate["before"] + 0.3
    assert 0 < first.train_seconds < first.cycle_seconds < 5
    assert loop.live.version == report.live == store.live().id
    test = kit.stream(200, seed=99)
    out, version = loop.live.predict(np.stack([x for x, _ in test]))
    assert version == report.live
    assert (out.argmax(1) == [y for _, y in test]).mean() > 0.8
    kinds = [k for k, _ in seen]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert {"item", "job", "epoch", "checkpoint", "stop", "gate", "promoted"} <= set(kinds)
    assert report.to_json()["promoted"] == report.promoted


def test_same_stream_same_bits(kit, tmp_path):
    ends = []
    for name in ("a.db", "b.db"):
        with Store.open(tmp_path / name) as store:
            kit.loop(store, kit.stream(120)).run()
            ends.append(finish(store))
    assert ends[0] == ends[1]


def quick(path):
    """Open a store that leaves syncing out: these tests kill in the process, not the machine."""
    store = Store.open(path)
    store._db.query("PRAGMA synchronous=OFF")
    return store


def events_of(kit, path, data, at=None, **options):
    """Run; die at event number `at`. Returns how many events there were."""
    count = 0

    def on_event(kind, **detail):
        nonlocal count
        count += 1
        if count == at:
            raise Kill

    with quick(path) as store:
        kit.loop(store, data, on_event=on_event, **options).run()
        return count, finish(store)


def test_killed_at_every_event_ends_with_the_same_bits(kit, tmp_path):
    data = kit.stream(40)
    config = kit.config(
        trigger={"samples": 18},
        train={"augment": {"views": 2, "shift": 1}},
        gate={"min_samples": 6, "confidence": 0.8},
    )
    total, whole = events_of(kit, tmp_path / "whole.db", data, config=config)
    assert len(whole[0]) >= 2  # the shipped version and an update: there was work to lose
    for at in range(1, total + 1):
        path = tmp_path / f"{at}.db"
        with pytest.raises(Kill):
            events_of(kit, path, data, at, config=config)
        assert events_of(kit, path, data, config=config)[1] == whole, f"killed at event {at}"


def small_memories(kit, storage, policy):
    """Few slots, written over and over, and a stream that repeats itself and then changes."""
    config = kit.config(
        trigger={"samples": 18},
        gate={"min_samples": 6, "confidence": 0.8},
        buffer={"capacity": 18, "rehearsal": 9, "storage": storage, "policy": policy,
                "near_duplicate": 0.2},
    )
    data = kit.stream(60) + kit.stream(90, truth_seed=8)
    return config, [pair for i, pair in enumerate(data) for _ in range(1 + (i % 9 == 0))]


@pytest.mark.parametrize(
    ("storage", "policy"), [("f16", "balanced"), ("f32", "loss"), ("int8", "loss")])
def test_killed_with_any_kind_of_memory_it_ends_with_the_same_bits(
    kit, tmp_path, storage, policy
):
    config, data = small_memories(kit, storage, policy)
    total, whole = events_of(kit, tmp_path / "whole.db", data, config=config)
    assert len(whole[0]) >= 3
    assert b'"duplicates": 0' not in whole[2]
    for at in range(1, total + 1, 5):
        path = tmp_path / f"{at}.db"
        with pytest.raises(Kill):
            events_of(kit, path, data, at, config=config)
        assert events_of(kit, path, data, config=config)[1] == whole, f"killed at event {at}"


def test_if_losses_were_not_kept_a_killed_run_would_end_otherwise(kit, tmp_path, monkeypatch):
    config, data = small_memories(kit, "f32", "loss")
    total, whole = events_of(kit, tmp_path / "whole.db", data, config=config)
    load = Reservoir.load
    monkeypatch.setattr(Reservoir, "load", lambda self, state: load(
        self, {name: value for name, value in state.items() if name != "loss"}))
    different = 0
    for at in range(20, total + 1, 7):
        path = tmp_path / f"{at}.db"
        with pytest.raises(Kill):
            events_of(kit, path, data, at, config=config)
        different += events_of(kit, path, data, config=config)[1] != whole
    assert different


def test_killed_again_and_again_still_ends_the_same(kit, tmp_path):
    data = kit.stream(60)
    _, whole = events_of(kit, tmp_path / "whole.db", data)
    rng = np.random.default_rng(0)
    path = tmp_path / "often.db"
    for _ in range(500):
        try:
            _, ended = events_of(kit, path, data, int(rng.integers(2, 40)))
        except Kill:
            continue
        break
    assert ended == whole


@pytest.mark.parametrize("method", ["save_job", "put_kv", "commit", "put_samples", "clear_job"])
def test_killed_inside_a_write_ends_with_the_same_bits(kit, tmp_path, method):
    data = kit.stream(60)
    _, whole = events_of(kit, tmp_path / "whole.db", data)
    for at in range(1, 40):
        path = tmp_path / f"{at}.db"
        calls = 0
        with quick(path) as store:
            real = getattr(store, method)

            def dying(*args, real=real, at=at, **kwargs):
                nonlocal calls
                calls += 1
                out = real(*args, **kwargs)
                if calls == at:
                    raise Kill
                return out

            setattr(store, method, dying)
            try:
                kit.loop(store, data).run()
            except Kill:
                pass
            else:
                break
        assert events_of(kit, path, data)[1] == whole, f"killed in {method} number {at}"
    assert at > 1


def test_a_resumed_update_continues_from_its_checkpoint(kit, tmp_path):
    """Negative control for the kill tests: the resumed run really starts in the middle."""
    data, seen = kit.stream(60), []

    def die(kind, **detail):
        if kind == "checkpoint" and detail["step"] == 6:
            raise Kill

    with Store.open(tmp_path / "s.db") as store, pytest.raises(Kill):
        kit.loop(store, data, on_event=die).run()
    with Store.open(tmp_path / "s.db") as store:
        loop = kit.loop(store, data, on_event=lambda kind, **d: seen.append((kind, d)))
        report = loop.run()
    assert report.resumed
    assert ("resumed", {"job": 1, "step": 6, "afresh": False}) in seen
    assert report.updates[0].cycle_seconds is None


@pytest.mark.parametrize("change", ["options", "isa"])
def test_another_plan_begins_the_update_again(kit, tmp_path, change):
    data, seen = kit.stream(60), []

    def die(kind, **detail):
        if kind == "checkpoint" and detail["step"] == 6:
            raise Kill

    with Store.open(tmp_path / "s.db") as store, pytest.raises(Kill):
        kit.loop(store, data, on_event=die, isa="avx2").run()
    changed = kit.config(train={"lr": 0.05}) if change == "options" else kit.config()
    isa = "avx2" if change == "options" else "ref"
    with Store.open(tmp_path / "s.db") as store:
        kit.loop(
            store, data, changed, isa=isa, on_event=lambda kind, **d: seen.append((kind, d))
        ).run()
        ended = finish(store)
    assert ("resumed", {"job": 1, "step": 0, "afresh": True}) in seen
    if change == "isa":
        assert ended == events_of(kit, tmp_path / "whole.db", data)[1]


def test_options_that_compute_nothing_may_change_while_an_update_is_under_way(kit, tmp_path):
    """A deadline that nears, a disk that wears: the update goes on where it was."""
    data, seen = kit.stream(60), []

    def die(kind, **detail):
        if kind == "checkpoint" and detail["step"] == 6:
            raise Kill

    _, whole = events_of(kit, tmp_path / "whole.db", data)
    with Store.open(tmp_path / "s.db") as store, pytest.raises(Kill):
        kit.loop(store, data, on_event=die).run()
    changed = kit.config(train={
        "deadline": "1 h", "checkpoint_every": 5, "checkpoint_seconds": "1 h"},
        pace={"duty_cycle": 0.5, "slice_ms": 5})
    with Store.open(tmp_path / "s.db") as store:
        kit.loop(store, data, changed, on_event=lambda kind, **d: seen.append((kind, d)),
                 sleep=lambda _: None).run()
        assert finish(store) == whole
    assert ("resumed", {"job": 1, "step": 6, "afresh": False}) in seen


def test_until_stops_and_goes_on(kit, tmp_path):
    data = kit.stream(90)
    _, whole = events_of(kit, tmp_path / "whole.db", data)
    with Store.open(tmp_path / "parts.db") as store:
        loop = kit.loop(store, data)
        for until in (10, 10, 47, "exhausted"):
            report = loop.run(until)
            assert report.items == (90 if until == "exhausted" else until)
            assert report.ended == ("exhausted" if until == "exhausted" else "limit")
        assert finish(store) == whole


def test_stop_from_outside(kit, store):
    loop = kit.loop(store, kit.stream(50), on_event=lambda kind, **d: kind == "item" and halt(d))

    def halt(detail):
        if detail["n"] == 5:
            loop.stop()

    report = loop.run()
    assert (report.items, report.ended) == (5, "stopped")


def test_waits_for_the_gate_set(kit, store):
    loop = kit.loop(store, kit.stream(60), kit.config(gate={"min_samples": 64}))
    report = loop.run()
    assert report.updates == []
    assert report.waits == 1


def test_full_ring_counts_what_it_drops(kit, store):
    config = kit.config(gate={"min_samples": 64}, buffer={"capacity": 8})
    report = kit.loop(store, kit.stream(60), config).run()
    fresh = len(store.samples("train"))
    assert fresh == 8
    assert report.overruns == 60 - len(store.samples("gate")) - len(store.samples("validation")) - 8


def test_unlabelled_samples_are_counted_not_trained_on(kit, store):
    data = [(x, None) for x, _ in kit.stream(40)]
    report = kit.loop(store, data).run()
    assert (report.unlabelled, report.accepted, report.updates) == (40, 0, [])


def test_bad_record_stops_and_is_read_again(kit, tmp_path):
    good = kit.stream(60)
    bad = [*good[:30], (np.full(kit.width, np.nan, np.float32), 1), *good[30:]]
    mended = [*good[:30], (good[5][0], 1), *good[30:]]
    with Store.open(tmp_path / "s.db") as store:
        with pytest.raises(DataError, match=r"item 30: at \[0\] is nan"):
            kit.loop(store, bad).run()
        kit.loop(store, mended).run()
        ended = finish(store)
    assert ended == events_of(kit, tmp_path / "whole.db", mended)[1]


def test_bad_record_skipped(kit, store):
    data = kit.stream(30)
    data[7] = (np.zeros(kit.width + 1, np.float32), 1)
    data[9] = (np.zeros(kit.width, np.float32), "no such class")
    seen = []
    loop = kit.loop(
        store,
        data,
        kit.config(source={"on_bad": "skip"}),
        on_event=lambda kind, **d: kind == "skipped" and seen.append(d),
    )
    report = loop.run()
    assert (report.bad, report.accepted) == (2, 28)
    assert "shape [7]" in seen[0]["error"]
    assert "no such class" in seen[1]["error"]


def test_other_program_is_refused(kit, store):
    kit.loop(store, kit.stream(10)).run()
    loop = kit.loop(store, kit.stream(10), program_hash="q" * 64)
    with pytest.raises(StateError, match="belongs to program pppp"):
        loop.run()


def test_rollback_is_the_new_start(kit, store):
    data = kit.stream(150)
    kit.loop(store, data).run(100)
    live = store.live()
    back = store.rollback()
    loop = kit.loop(store, data)
    loop.run(100)
    assert loop.live.version == back.id != live.id
    report = loop.run()
    if report.versions:
        assert store.version(report.versions[0]).parent == back.id


def test_sets_are_disjoint_even_when_samples_repeat(kit, store):
    items = [Item(x, y, f"clip {i % 40}") for i, (x, y) in enumerate(kit.stream(40) * 4)]
    kit.loop(store, items).run()
    keys = {
        name: {s.key.partition(":")[2] for s in store.samples(name)}
        for name in ("train", "rehearsal", "validation", "gate")
    }
    trained = keys["train"] | keys["rehearsal"]
    assert keys["gate"]
    assert keys["validation"]
    assert not trained & keys["gate"]
    assert not trained & keys["validation"]
    assert not keys["gate"] & keys["validation"]


@pytest.mark.parametrize("filtered", [True, False])
def test_filters_come_before_anything_is_kept(kit, store, filtered):
    """Negative control: without the filters, the name of the speaker is all over the place."""
    items = [
        Item(x, y, f"slt/{i}.wav", {"who": "slt", "room": 3})
        for i, (x, y) in enumerate(kit.stream(60))
    ]
    seen = []
    kit.loop(
        store,
        [],
        source=IterableSource(items),
        filters=[AllowFields(["room"]), HashIds(b"k" * 32)] if filtered else [],
        on_event=lambda kind, **d: seen.append(repr((kind, d))),
    ).run()
    blob = store.path.read_bytes() + store.path.with_name("device.db-wal").read_bytes()
    assert (b"slt" not in blob) is filtered
    assert any("slt" in line for line in seen) is not filtered
    assert any("'room': 3" in line for line in seen)


def test_hashing_does_not_change_what_is_learned(kit, tmp_path):
    hashes = []
    for name, filters in (("a", []), ("b", [HashIds(b"k" * 32)]), ("c", [HashIds(b"x" * 32)])):
        with Store.open(tmp_path / name) as store:
            kit.loop(store, kit.stream(60), filters=filters).run()
            hashes.append([v.sha256 for v in store.versions()])
    assert hashes[0] == hashes[1] == hashes[2]


def test_base_rehearsal_keeps_what_was_known(kit, tmp_path):
    """Two tasks that disagree: what forgets the base task does not pass the anchors."""
    known = kit.stream(200, seed=3, truth_seed=7)
    shipped = kit.Softmax()
    for i in range(0, 200, 4):
        shipped.step(np.stack([x for x, _ in known[i : i + 4]]), [y for _, y in known[i : i + 4]])

    def forgot(share, tolerance, path):
        base = BaseMemory(128, (kit.width,), anchor=0.5, seed=0)
        for i, (x, y) in enumerate(known):
            base.add(x, y, f"base {i}")
        with Store.open(path) as store:
            loop = kit.loop(
                store,
                kit.stream(240, seed=4, truth_seed=8),
                kit.config(
                    train={"rehearsal": share, "epochs": 20}, gate={"max_anchor_loss": tolerance}
                ),
                base=base,
            )
            updater = loop._updater
            for session in (updater._learner, loop.live._predictor):
                session.w = shipped.w.copy()
            updater._pristine = updater._learner.snapshot()
            return loop.run()

    loose = forgot(0.0, 1.0, tmp_path / "loose.db")
    assert loose.promoted
    drop = loose.updates[0].gate
    assert drop["anchor_after"] < drop["anchor_before"] - 0.1
    strict = forgot(0.0, 0.02, tmp_path / "strict.db")
    assert any(u.reason == "worse on the base task" for u in strict.updates)
    for update in strict.updates:
        if update.promoted:
            assert update.gate["anchor_after"] >= update.gate["anchor_before"] - 0.02 - 1e-9


def test_realtime_intake_feeds_the_loop(kit, store):
    report = kit.loop(
        store, kit.stream(20), kit.config(source={"realtime": True}, buffer={"capacity": 64})
    ).run()
    assert report.items == 20
    assert report.overruns == 0


def test_live_source_is_persisted_between_decisions(kit, store):
    def live():
        yield from kit.stream(20)
        raise Kill

    with pytest.raises(Kill):
        kit.loop(store, live()).run()
    kept = sum(len(store.samples(s)) for s in ("train", "validation", "gate"))
    assert kept == 16


def test_other_buffer_sizes_keep_what_fits(kit, store):
    kit.loop(store, kit.stream(60), kit.config(gate={"min_samples": 64})).run()
    before = len(store.samples("train"))
    small = kit.config(gate={"min_samples": 64}, buffer={"capacity": 5, "validation": 2})
    kit.loop(store, kit.stream(60), small).run()
    assert before > 5
    assert len(store.samples("train")) == 5
    assert len(store.samples("validation")) == 2
    assert len(store.samples("gate")) > 0


def test_what_was_turned_down_is_tried_again_while_there_is_room(kit, store):
    class Shut:
        def winnable(self, live):
            return True

        def __call__(self, evidence, *, seed):
            return Verdict(*(False, "shut", len(evidence.live), 1.0, 0.0, 0.0, None, None))

    config = kit.config(buffer={"capacity": 60}, trigger={"samples": 24})
    report = kit.loop(store, kit.stream(170), config, gate=Shut()).run()
    fresh = [u.fresh for u in report.updates]
    assert fresh[0] < fresh[1]
    assert fresh[-1] < max(fresh)
    assert report.overruns == 0
    assert report.promoted == 0


def test_no_training_when_nothing_could_be_proven(kit, store):
    """A device that knows its task does not spend power on updates that cannot pass."""
    seen = []
    loop = kit.loop(store, kit.stream(300), on_event=lambda kind, **d: seen.append((kind, d)))
    report = loop.run()
    last = report.updates[-1]
    assert (last.stop, last.steps, last.promoted) == ("not needed", 0, False)
    assert "too few mistakes" in last.reason
    assert len([1 for k, d in seen if k == "epoch" and d["job"] == len(report.updates)]) == 0


def test_without_a_live_version_the_shipped_one_is_live_again(kit, store):
    """What the store does when the only version has rotted: samples and place are kept."""
    data = kit.stream(60)
    kit.loop(store, data).run(20)
    with store.transaction():
        store._db.query("DELETE FROM live")
    loop = kit.loop(store, data)
    report = loop.run(20)
    assert report.items == 20
    assert loop.live.version == store.live().id == 2
    assert sum(len(store.samples(s)) for s in ("train", "validation", "gate")) == 20


def test_killed_while_buffers_change_size(kit, tmp_path):
    data = kit.stream(60)
    wide = kit.config(gate={"min_samples": 64})
    small = kit.config(gate={"min_samples": 64}, buffer={"capacity": 5, "validation": 2})
    ends = []
    for kill in (False, True):
        with Store.open(tmp_path / f"{kill}.db") as store:
            kit.loop(store, data, wide).run()
            if kill:
                real, store.put_kv = store.put_kv, None
                with pytest.raises(TypeError):
                    kit.loop(store, data, small).run()
                store.put_kv = real
            kit.loop(store, data, small).run()
            ends.append(finish(store))
    assert ends[0] == ends[1]


def test_half_a_character_in_an_id_is_one_bad_record(kit, store):
    good, seen = kit.stream(3), []
    data = [Item(x, y, key) for (x, y), key in zip(good, ("a", "\ud800", "b"), strict=True)]
    config = kit.config(source={"on_bad": "skip"})
    loop = kit.loop(store, data, config, on_event=lambda kind, **d: kind == "skipped" and (
        seen.append(d["error"])))
    report = loop.run()
    assert (report.bad, report.accepted) == (1, 2)
    assert "record 2: its id holds half a character" in seen[0]


@pytest.mark.parametrize("hashed", [True, False])
def test_an_id_that_is_hashed_stands_in_no_message(kit, store, hashed):
    seen = []
    data = [Item(np.zeros(kit.width + 1, np.float32), 0, "ann@example.org")]
    config = kit.config(source={"on_bad": "skip"}, privacy={"hash_ids": hashed})
    kit.loop(store, data, config, on_event=lambda kind, **d: kind == "skipped" and (
        seen.append(d["error"]))).run()
    assert ("ann@example.org" in seen[0]) is not hashed


def test_what_the_queue_lost_is_counted_once_and_for_good(kit, store):
    """Also in the counts of the device's life, which later runs add to."""
    data, held = kit.stream(40), threading.Event()

    def sensor():
        yield from data[:30]
        held.set()
        yield from data[30:]

    config = kit.config(source={"realtime": True}, buffer={"capacity": 8},
                        gate={"min_samples": 99})
    loop = kit.loop(store, sensor(), config, on_event=lambda kind, **_: kind == "start" and (
        setattr(loop, "intake", Intake(loop._source, 8)) or held.wait(5)))
    report = loop.run()
    counts = json.loads(store.kv("loop"))["counts"]
    lost = counts["overruns"]
    assert lost == report.overruns > 0
    kit.loop(store, [], config).run()
    assert json.loads(store.kv("loop"))["counts"]["overruns"] == lost
