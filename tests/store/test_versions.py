"""Lineages, pins, retention, and weights that are stored rounded or as differences."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from edgeloop.errors import StateError
from edgeloop.store import Job, Store, adapter_to_bytes, rounded
from edgeloop.store import versions as VERSIONS  # noqa: N812
from edgeloop.store.codec import sha256
from edgeloop.store.versions import LONGEST_CHAIN

HASH = "ab" * 32


def weights(step=0):
    rng = np.random.default_rng(0)
    base = rng.standard_normal((8, 64)).astype("f4")
    return {"A": base + np.float32(1e-4 * step), "B": base.T.copy()}


def commit(store, step=0, *, parent=None, live=True, **more):
    return store.commit(weights(step), program_hash=HASH, parent=parent, metrics={}, live=live,
                        **more)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.db"


@pytest.fixture
def store(path):
    with Store.open(path) as opened:
        yield opened


def alter(path, sql, *values):
    db = sqlite3.connect(path)
    db.execute(sql, values)
    db.commit()
    db.close()


def chain(store, length, codec="xor"):
    for n in range(length):
        commit(store, n, parent=n or None, codec=codec)


@pytest.mark.parametrize("codec", ["f32", "f16", "int8", "xor"])
def test_a_version_is_what_is_read_back(path, codec):
    with Store.open(path) as store:
        commit(store, 0)
        made = commit(store, 1, parent=1, codec=codec)
        exact = store.adapter(2)
    assert adapter_to_bytes(exact) == adapter_to_bytes(rounded(weights(1), codec))
    assert made.sha256 == sha256(adapter_to_bytes(exact))
    assert (made.codec, made.base) == (codec, 1 if codec == "xor" else None)
    with Store.open(path, readonly=True) as store:
        assert adapter_to_bytes(store.adapter(2)) == adapter_to_bytes(exact)
        assert store.version(2) == made
        assert store.damaged() == []


def test_differences_are_small_and_their_chains_are_short(store):
    chain(store, 2 * LONGEST_CHAIN + 2)
    found = store.versions()
    assert [v.id for v in found if v.base is None] == [1, LONGEST_CHAIN + 1, 2 * LONGEST_CHAIN + 1]
    small = [v.bytes for v in found if v.base is not None]
    assert max(small) < 0.6 * found[0].bytes
    for v in found:
        assert adapter_to_bytes(store.adapter(v.id)) == adapter_to_bytes(weights(v.id - 1))


def test_without_a_parent_or_with_another_shape_it_is_stored_whole(store):
    assert commit(store, codec="xor").codec == "f32"
    other = store.commit({"C": np.ones(3, "f4")}, program_hash=HASH, parent=1, metrics={},
                         live=False, codec="xor")
    assert (other.codec, other.base) == ("f32", None)
    noise = np.random.default_rng(5).standard_normal((8, 64)).astype("f4")
    far = store.commit({"A": noise, "B": -noise.T * 1e9}, program_hash=HASH, parent=1, metrics={},
                       live=False, codec="xor")
    assert far.bytes <= store.version(1).bytes


def test_dropping_a_base_keeps_what_differs_from_it(store):
    chain(store, 5)
    assert store.gc(keep=2) == [1, 2, 3]
    assert [(v.id, v.codec, v.base) for v in store.versions()] == [(4, "f32", None), (5, "xor", 4)]
    for v in (4, 5):
        assert adapter_to_bytes(store.adapter(v)) == adapter_to_bytes(weights(v - 1))


def test_a_lost_base_takes_along_what_differs_from_it_and_says_so(path):
    with Store.open(path) as store:
        chain(store, 3)
    alter(path, "UPDATE version SET adapter = zeroblob(length(adapter)) WHERE id = 2")
    with Store.open(path) as store:
        assert store.damaged() == [2, 3]
        with pytest.raises(StateError, match=r"version 3 lost: it is stored as a difference; "
                                             r"version 2 lost: .*; version 1 is live now"):
            store.adapter(3)
        assert store.live().id == 1
        # What cannot be read can be dropped, and hides nothing: the others stay.
        commit(store, 7, parent=1)
        assert store.gc(keep=1) == [2, 3]
        assert [v.id for v in store.versions()] == [1, 4]


def test_retention_never_drops_what_is_live_its_parent_pinned_or_trained_from(store):
    for n in range(7):
        commit(store, n, parent=n or None, live=n == 3)
    store.pin(1)
    store.save_job(Job(HASH, 2, b"s", b"r"))
    assert store.gc(quota=1) == [5, 6, 7]
    assert [v.id for v in store.versions()] == [1, 2, 3, 4]
    store.pin(1, pinned=False)
    store.clear_job()
    assert store.gc(quota=1) == [1, 2]
    assert [v.id for v in store.versions()] == [3, 4]


def test_without_the_rule_it_would_drop_what_is_live(store, monkeypatch):
    monkeypatch.setattr(VERSIONS, "_KEPT", "0")
    for n in range(3):
        commit(store, n, parent=n or None)
    with pytest.raises(StateError, match="FOREIGN KEY"):  # the last line of defence
        store.gc(quota=1)
    assert len(store.versions()) == 3


def test_a_quota_drops_the_oldest_until_it_is_met(store):
    for n in range(6):
        commit(store, n, parent=n or None)
    each = store.version(1).bytes
    assert store.gc(quota=4 * each) == [1, 2]
    assert store.gc(quota=4 * each) == []


def test_lineage_and_label(store):
    made = commit(store, lineage="fleet", label="spring release")
    assert (made.lineage, made.label, made.pinned) == ("fleet", "spring release", False)
    store.label(1, "summer")
    assert store.version(1).label == "summer"
    store.label(1, "")
    assert store.version(1).label is None
    for bad in ({"lineage": "cloud"}, {"codec": "zip"}):
        with pytest.raises(StateError, match="is unknown: use one of"):
            commit(store, **bad)
    for call in (store.pin, lambda i: store.label(i, "x"), store.promote):
        with pytest.raises(StateError, match="no version 9"):
            call(9)
    assert [v.id for v in store.versions()] == [1]


def test_a_damaged_version_never_becomes_live(path):
    with Store.open(path) as store:
        commit(store, 0)
        commit(store, 1, parent=1)
        commit(store, 2, parent=2, live=False)
    for number in (1, 3):
        alter(path, "UPDATE version SET adapter = zeroblob(length(adapter)) WHERE id = ?", number)
    with Store.open(path) as store:
        for become_live in (store.rollback, lambda: store.promote(3)):
            with pytest.raises(StateError, match=r"version [13] lost: .*; version 2 stays live"):
                become_live()
            assert store.live().id == 2
        assert [e.kind for e in store.events()] == []
