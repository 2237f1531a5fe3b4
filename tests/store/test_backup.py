"""Copies are verified before they count, and put back at one instant."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys

import numpy as np
import pytest

from edgeloop.beside import BACKUP, REPLACED
from edgeloop.errors import StateError
from edgeloop.store import Job, Sample, Store, backup, damage, restore

HASH = "ab" * 32


def commit(store, value, parent=None):
    return store.commit({"w": np.full(500, value, "f4")}, program_hash=HASH, parent=parent,
                        metrics={}, live=True)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "device.db"
    with Store.open(path) as store:
        commit(store, 1)
        commit(store, 2, 1)
        store.save_job(Job(HASH, 2, b"snapshot", b"rng"))
        store.put_samples([Sample("gate", np.ones(8, "f4"), 1, "k")])
        store.put_kv("trend", b"rising")
    return path


def everything(path):
    with Store.open(path, readonly=True) as store:
        return ([(v, store.adapter(v.id)["w"].tobytes()) for v in store.versions()], store.job(),
                [s.key for s in store.samples("gate")], store.kv("trend"), store.device_id)


def alter(path, sql):
    db = sqlite3.connect(path)
    db.execute(sql)
    db.commit()
    db.close()


def test_a_copy_of_a_file_in_use_is_whole_and_private(path, tmp_path):
    copy = tmp_path / f"device.db{BACKUP}"
    with Store.open(path) as store:
        commit(store, 3, 2)  # still in the log
        backup(store, copy)
        assert damage(store) == []
    assert everything(copy) == everything(path)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert not list(tmp_path.glob("*.part"))


ROT = {
    "version 1": "UPDATE version SET adapter = zeroblob(2100) WHERE id = 1",
    "the running job": "UPDATE job SET snapshot = x'00'",
    "sample 'k' of set 'gate'": "UPDATE sample SET x = x'00'",
    "value 'trend'": "UPDATE kv SET value = x'00' WHERE key = 'trend'",
}


@pytest.mark.parametrize("what", ROT)
def test_what_is_damaged_is_named_and_never_takes_the_place_of_a_good_copy(path, what):
    copy = path.with_name("copy.db")
    with Store.open(path) as store:
        backup(store, copy)
    good = copy.read_bytes()
    alter(path, ROT[what])
    with Store.open(path) as store:
        assert damage(store) == [what]
        with pytest.raises(StateError, match=f"damaged are {what}"):
            backup(store, copy)
    assert copy.read_bytes() == good
    before = path.read_bytes()
    rotten = path.with_name("rotten.db")
    rotten.write_bytes(before)
    with pytest.raises(StateError, match=f"is damaged: {what}"):
        restore(rotten, path)
    assert path.read_bytes() == before


def test_without_reading_it_back_a_damaged_copy_would_take_the_place_of_a_good_one(
    path, monkeypatch
):
    copy = path.with_name("copy.db")
    with Store.open(path) as store:
        backup(store, copy)
    alter(path, ROT["version 1"])
    monkeypatch.setattr(sys.modules[backup.__module__], "damage", lambda store: [])
    with Store.open(path) as store:
        backup(store, copy)
    with Store.open(copy, readonly=True) as store:
        assert store.damaged() == [1]


def test_a_structure_that_is_broken_is_named(path):
    raw = bytearray(path.read_bytes())
    raw[4096 * 2 : 4096 * 3] = os.urandom(4096)
    broken = path.with_name("broken.db")
    broken.write_bytes(bytes(raw))
    with pytest.raises(StateError):
        restore(broken, path)
    assert everything(path)[3] == b"rising"


def test_a_copy_comes_back_whatever_stands_in_its_place(path, tmp_path):
    copy = tmp_path / f"device.db{BACKUP}"
    with Store.open(path) as store:
        backup(store, copy)
    want = everything(path)
    for harm in ("a newer version", "damage", "nothing there"):
        if harm == "a newer version":
            with Store.open(path) as store:
                commit(store, 9, 2)
        elif harm == "damage":
            raw = bytearray(path.read_bytes())
            raw[100:] = os.urandom(len(raw) - 100)
            path.write_bytes(bytes(raw))
            (tmp_path / "device.db-wal").write_bytes(b"old log")
            with pytest.raises(StateError, match=f"`edgeloop import {copy} {path}`"):
                Store.open(path)
        else:
            path.unlink()
        was = path.read_bytes() if path.exists() else None
        aside = restore(copy, path)
        assert everything(path) == want
        assert (aside is None) == (was is None)
        if aside is not None:
            assert aside.name == f"device.db{REPLACED}"
            if harm == "damage":
                assert aside.read_bytes() == was
            else:
                with Store.open(aside, readonly=True) as store:
                    assert store.live().id == 3
        assert not (tmp_path / "device.db-wal").exists()
        with Store.open(path) as store:
            assert store.live().id == 2


def test_a_file_in_use_or_of_somebody_else_stays(path, tmp_path):
    copy = tmp_path / "copy.db"
    with Store.open(path) as store:
        backup(store, copy)
        with pytest.raises(StateError, match="in use by process"):
            restore(copy, path)
    foreign = tmp_path / "notes.db"
    alter(foreign, "CREATE TABLE note (text TEXT)")
    before = foreign.read_bytes()
    with pytest.raises(StateError, match="not edgeloop state"):
        restore(copy, foreign)
    with pytest.raises(StateError, match="not edgeloop state"):
        restore(foreign, path)
    assert foreign.read_bytes() == before


def test_a_full_disk_leaves_the_old_copy(path, monkeypatch):
    copy = path.with_name("copy.db")
    with Store.open(path) as store:
        backup(store, copy)
        good = copy.read_bytes()
        commit(store, 3, 2)

        def full(*_):
            raise StateError("disk full")

        monkeypatch.setattr(Store, "copy_to", full)
        with pytest.raises(StateError, match="disk full"):
            backup(store, copy)
    assert copy.read_bytes() == good


def test_what_a_path_is_called_says_nothing_of_the_file(tmp_path, path):
    """Of a foreign file in a folder called damaged, the name is no reason to replace it."""
    copy = tmp_path / "copy.db"
    with Store.open(path) as store:
        backup(store, copy)
    folder = tmp_path / "damaged"
    folder.mkdir()
    foreign = folder / "notes.db"
    alter(foreign, "CREATE TABLE note (text TEXT)")
    before = foreign.read_bytes()
    with pytest.raises(StateError, match="not edgeloop state"):
        restore(copy, foreign)
    assert foreign.read_bytes() == before
