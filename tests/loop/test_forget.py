"""forget: nothing of a sample stays on the device, and what learnt from it is known."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pytest
from tests.loop.test_setup import (  # noqa: F401  fixtures
    WIDTH,
    Kill,
    classifier,
    device,
    edit,
    write_csv,
)

from edgeloop import loop
from edgeloop.beside import BACKUP
from edgeloop.cli import main
from edgeloop.loop.forget import forget
from edgeloop.store import Store, damage

# A sample whose bytes nothing else has.
CANARY = np.array([0.1234567, -0.7654321, 1.0101011, 0.3333331, -1.7172737, 0.9876543], "<f4")


@pytest.fixture
def learnt(kit, device):  # noqa: F811
    """A device that learnt from 130 items; a sample among those with bytes that can be found."""
    assert CANARY.size == WIDTH
    stream = kit.stream(130)
    stream[9] = (CANARY, stream[9][1])
    write_csv(device / "d.csv", stream)
    report = loop.run(device / "loop.toml")
    assert report.promoted >= 1
    return device


def holding(folder):
    """The files in which the canary can be read."""
    return sorted(p.name for p in folder.iterdir()
                  if p.suffix != ".csv" and CANARY.tobytes() in p.read_bytes())


def canary_key(folder):
    with Store.open(folder / "device.db", readonly=True) as store:
        for kind in ("train", "rehearsal", "validation", "gate"):
            for s in store.samples(kind):
                if (s.x.reshape(-1, WIDTH)[0] == CANARY).all():
                    return s.key.partition(":")[2]
    raise AssertionError("the sample is not kept")


def keys(folder):
    with Store.open(folder / "device.db", readonly=True) as store:
        return [s.key.partition(":")[2] for kind in ("train", "rehearsal", "validation", "gate")
                for s in store.samples(kind)]


def test_of_one_sample_nothing_stays(learnt):
    assert f"device.db{BACKUP}" in holding(learnt)
    key = canary_key(learnt)
    before = keys(learnt)
    with Store.open(learnt / "device.db") as store:
        gone = forget(store, key=key)
    assert (gone.items, gone.job) == (1, False)
    assert gone.samples == before.count(key)
    assert holding(learnt) == []
    assert sorted(keys(learnt)) == sorted(k for k in before if k != key)
    for name in ("device.db", f"device.db{BACKUP}"):
        with Store.open(learnt / name, readonly=True) as store:
            assert damage(store) == []


@pytest.mark.parametrize("off", ["secure_delete", "shrink_log", "backup"])
def test_without_one_of_its_steps_it_is_found(learnt, monkeypatch, off):
    key = canary_key(learnt)
    with Store.open(learnt / "device.db") as store:
        if off == "secure_delete":
            store._db.query("PRAGMA secure_delete=OFF")
        elif off == "shrink_log":
            monkeypatch.setattr(Store, "shrink_log", lambda self: None)
        else:
            monkeypatch.setattr(sys.modules[forget.__module__], "backup", lambda *_: None)
        forget(store, key=key)
        found = holding(learnt)
    assert found


def test_the_loop_goes_on_with_what_is_left(kit, learnt):
    """The samples that stay are sorted in anew; new ones are learnt from."""
    with Store.open(learnt / "device.db") as store:
        forget(store, key=canary_key(learnt))
    left = keys(learnt)
    stream = kit.stream(130)
    write_csv(learnt / "d.csv", [*stream, *kit.stream(80, seed=77)])
    report = loop.run(learnt / "loop.toml")
    assert report.items == 210
    assert report.updates
    assert len(keys(learnt)) > len(left)
    assert holding(learnt) == []


def test_since_and_source(learnt, capsys):
    state = str(learnt / "device.db")
    everything = len(set(keys(learnt)))
    with Store.open(state, readonly=True) as store:
        source = store._db.query("SELECT DISTINCT source FROM arrival")
        assert len(source) == 1
    with Store.open(state) as store:
        assert forget(store, source="another").items == 0
        assert forget(store, since=time.time() + 60).items == 0
        assert forget(store, since=0.0, source="another").items == 0
    assert len(set(keys(learnt))) == everything
    assert main(["forget", state, "--source", source[0][0], "--since", "2020-01-01", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["items"] == everything
    assert keys(learnt) == []
    assert main(["forget", state, "--since", "2020-01-01"]) == 0
    assert "forgotten: 0 items" in capsys.readouterr().out


def test_versions_that_learnt_from_it_are_named(learnt, capsys):
    with Store.open(learnt / "device.db", readonly=True) as store:
        lessons = store._db.query("SELECT version, key FROM lesson ORDER BY version, key")
        live = store.live().id
        assert {v for v, _ in lessons} == {v.id for v in store.versions() if v.id > 1}
    version, key = lessons[0]
    learnt_from = sorted({v for v, k in lessons if k == key})
    assert version in learnt_from
    with Store.open(learnt / "device.db") as store:
        assert forget(store, key=key).versions == tuple(learnt_from)
        # By key it stays known, so that asking again names them again.
        assert forget(store, key=key).versions == tuple(learnt_from)
        assert [v.id for v in store.versions()]
        assert store.live().id == live
    assert main(["forget", str(learnt / "device.db"), "--sample", key]) == 0
    assert "were trained on them and stay: weights do not forget" in capsys.readouterr().out


def test_a_sample_is_forgotten_by_the_key_it_came_with(kit, device, capsys):  # noqa: F811
    """Its key is hashed on the device; whoever asks knows the one of the record."""
    write_csv(device / "d.csv", kit.stream(130))
    path = edit(device, "[trigger]", "[privacy]\nhash_ids = true\n[trigger]")
    loop.run(path)
    capsys.readouterr()
    for named, items in ((device / "device.db", 0), (path, 1), (path, 0)):
        assert main(["forget", str(named), "--sample", "d.csv:12", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["items"] == items


def test_an_update_under_way_goes_too(device):  # noqa: F811
    def die(kind, **_):
        if kind == "epoch":
            raise Kill

    with pytest.raises(Kill):
        loop.run(device / "loop.toml", on_event=die)
    with Store.open(device / "device.db") as store:
        assert store.has_job()
        gone = forget(store, since=0.0)
        assert gone.job
        assert not store.has_job()
        assert store.kv("job.best") is None
    report = loop.run(device / "loop.toml")
    assert not report.resumed


def test_what_to_forget_has_to_be_said(learnt, capsys):
    state = str(learnt / "device.db")
    assert main(["forget", state]) == 2
    assert "--since TIME, --source NAME, --sample KEY" in capsys.readouterr().err
    assert main(["forget", state, "--since", "yesterday"]) == 2
    assert "write 2026-11-28" in capsys.readouterr().err
    assert keys(learnt)
