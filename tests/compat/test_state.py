"""State files of every format that was ever written open today, and lose nothing."""

from __future__ import annotations

import sqlite3
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from edgeloop.errors import StateError
from edgeloop.store import STATE_FORMAT, Job, Store, schema

HERE = Path(__file__).parent
FORMATS = range(1, STATE_FORMAT)


@pytest.fixture(params=FORMATS)
def old(request, tmp_path):
    """A state file of an older format, as that format's library wrote it."""
    path = tmp_path / "device.db"
    db = sqlite3.connect(path)
    db.executescript((HERE / f"state-{request.param}.sql").read_text())
    db.close()
    return path


def weights(v):
    return {"fc.lora_A": np.full((2, 3), v, "f4"),
            "fc.lora_B": np.arange(8, dtype="f4").reshape(4, 2) * np.float32(v)}


def found(store):
    """Everything that a state file holds."""
    samples = {kind: [(s.key, s.x.tolist(), np.asarray(s.y).tolist()) for s in store.samples(kind)]
               for kind in ("train", "gate")}
    return (store.versions(), [store.adapter(v.id) for v in store.versions()], store.live(),
            store.job(), samples, store.kv("loop"), store.device_id,
            [(e.kind, e.detail) for e in store.events()])


def check(everything):
    versions, adapters, live, job, samples, value, device, events = everything
    assert [(v.id, v.parent, v.lineage, v.codec, v.pinned) for v in versions] == [
        (1, None, "local", "f32", False), (2, 1, "local", "f32", False)]
    for got, v in zip(adapters, (1, 2), strict=True):
        assert got.keys() == weights(v).keys()
        assert all(np.array_equal(got[k], w) for k, w in weights(v).items())
    assert live == versions[1]
    assert live.metrics == {"samples": 8, "gate": {"promote": True}}
    assert job == Job("ab" * 32, 2, b"snapshot", b"0:2", {"job": 2, "step": 3},
                      [{"at": 1.5, "stop": "deadline"}], "ref")
    assert samples == {"train": [("t", [0.0] * 4, [1.0, 1.0])], "gate": [("k", [0, 1, 2, 3], 1)]}
    assert value == b'{"cursor":8}'
    assert len(device) == 32
    assert events == [("promoted", {"version": 2})]


def number(path):
    db = sqlite3.connect(path)
    try:
        return db.execute("PRAGMA user_version").fetchone()[0]
    finally:
        db.close()


def test_every_format_has_a_fixture_and_a_way_to_the_next():
    assert {p.name for p in HERE.glob("state-*.sql")} == {f"state-{n}.sql" for n in FORMATS}
    assert set(schema.MIGRATIONS) == set(FORMATS)
    assert set(schema.VERSION_COLUMNS) == set(range(1, STATE_FORMAT + 1))


def test_reading_changes_nothing(old):
    before = number(old)
    with Store.open(old, readonly=True) as store:
        check(found(store))
    assert number(old) == before


def test_writing_brings_it_to_todays_format(old):
    with Store.open(old) as store:
        check(found(store))
        made = store.commit(weights(3), program_hash="ab" * 32, parent=2, metrics={}, live=True,
                            codec="f16", lineage="fleet", label="new")
        store.pin(1)
    assert number(old) == STATE_FORMAT
    with Store.open(old, readonly=True) as store:
        assert store.live() == made
        assert store.version(1).pinned


def test_migrated_tables_are_those_of_a_new_file(old, tmp_path):
    Store.open(old).close()
    Store.open(tmp_path / "new.db").close()
    columns = []
    for path in (old, tmp_path / "new.db"):
        db = sqlite3.connect(path)
        tables = [r[0] for r in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        columns.append({t: db.execute(f"PRAGMA table_info({t})").fetchall() for t in tables})
        db.close()
    assert columns[0] == columns[1]


@pytest.mark.parametrize("after", range(1, 8))
def test_a_migration_that_is_interrupted_leaves_the_old_format(old, monkeypatch, after):
    """After each of its statements: the next start does all of it again."""
    from edgeloop.store.connection import Connection

    query, left = Connection.query, [after]

    def stopped(self, sql, values=()):
        if sql.startswith(("ALTER", "PRAGMA user_version=")):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        return query(self, sql, values)

    before = number(old)
    monkeypatch.setattr(Connection, "query", stopped)
    with pytest.raises(KeyboardInterrupt):
        Store.open(old)
    monkeypatch.undo()
    assert number(old) == before
    with Store.open(old, readonly=True) as store:
        check(found(store))
    with Store.open(old) as store:
        check(found(store))
    assert number(old) == STATE_FORMAT


def test_without_one_transaction_an_interrupted_migration_would_lock_the_file_out(
    old, monkeypatch
):
    from edgeloop.store.connection import Connection

    query = Connection.query

    def stopped(self, sql, values=()):
        if sql.startswith("PRAGMA user_version="):
            raise KeyboardInterrupt
        return query(self, sql, values)

    monkeypatch.setattr(Connection, "query", stopped)
    monkeypatch.setattr(Connection, "transaction", lambda self: nullcontext())
    with pytest.raises(KeyboardInterrupt):
        Store.open(old)
    monkeypatch.undo()
    with pytest.raises(StateError, match="duplicate column"):
        Store.open(old)


def test_a_newer_format_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "device.db"
    Store.open(path).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version={STATE_FORMAT + 1}")
    db.close()
    before = path.read_bytes()
    for readonly in (True, False):
        with pytest.raises(StateError, match="install a newer edgeloop, the file was left as it"):
            Store.open(path, readonly=readonly)
    assert path.read_bytes() == before
