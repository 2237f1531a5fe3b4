"""The store keeps versions, the job, samples, values and events."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from edgeloop.errors import StateError
from edgeloop.store import Job, Sample, Store, adapter_from_bytes, adapter_to_bytes

HASH = "ab" * 32


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {"b": rng.normal(size=(4, 3)).astype("f4"), "a": rng.normal(size=3).astype("f4")}


def commit(store, seed=0, *, parent=None, live=True, **more):
    return store.commit(
        weights(seed), program_hash=HASH, parent=parent, metrics={"loss": 0.5}, live=live, **more
    )


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.db") as opened:
        yield opened


def equal(a, b):
    return a.keys() == b.keys() and all(
        a[k].tobytes() == b[k].tobytes() and a[k].shape == b[k].shape for k in a
    )


def test_commit_and_read_back(store):
    first = commit(store, 1)
    assert (first.id, first.parent, first.live, first.metrics) == (1, None, True, {"loss": 0.5})
    assert equal(store.adapter(1), weights(1))
    second = commit(store, 2, parent=1, live=False)
    assert not second.live
    assert store.live().id == 1
    store.promote(2)
    assert [v.live for v in store.versions()] == [False, True]
    assert store.rollback().id == 1
    assert store.live().id == 1
    assert store.events()[-1].detail == {"from": 2, "to": 1}


def test_survives_reopening(tmp_path):
    with Store.open(tmp_path / "s.db") as store:
        commit(store, 1)
    with Store.open(tmp_path / "s.db") as store:
        assert equal(store.adapter(store.live().id), weights(1))


def test_adapter_bytes_are_canonical():
    forward = {"x": np.ones(3, "f4"), "y": np.float32(2.0) * np.ones((), "f4")}
    backward = dict(reversed(forward.items()))
    assert adapter_to_bytes(forward) == adapter_to_bytes(backward)
    assert equal(adapter_from_bytes(adapter_to_bytes(forward)), forward)
    strided = np.arange(12, dtype="f4").reshape(3, 4).T
    assert (adapter_from_bytes(adapter_to_bytes({"x": strided}))["x"] == strided).all()


def test_non_finite_adapter_is_refused(store):
    bad = weights()
    bad["a"][1] = np.nan
    with pytest.raises(StateError, match="'a' is not finite"):
        store.commit(bad, program_hash=HASH, parent=None, metrics={}, live=True)
    assert store.versions() == []


def test_unknown_parent_and_version(store):
    with pytest.raises(StateError, match="no version 7"):
        commit(store, parent=7)
    with pytest.raises(StateError, match="no version 3"):
        store.promote(3)
    with pytest.raises(StateError, match="nothing to roll back"):
        store.rollback()
    commit(store)
    with pytest.raises(StateError, match="no parent to roll back to"):
        store.rollback()


def test_gc_keeps_live_and_its_parent(store):
    for n in range(6):
        commit(store, n, parent=n or None, live=n == 2)
    assert store.gc(keep=2) == [1, 4]
    assert [v.id for v in store.versions()] == [2, 3, 5, 6]
    assert store.rollback().id == 2


def job(step=0):
    return Job(HASH, None, b"snap%d" % step, b"rng", {"step": step}, [{"stop": "target"}], "ref")


def test_job_round_trip_and_finish(store):
    assert store.job() is None
    store.save_job(job(1))
    store.save_job(job(2))
    assert store.job() == job(2)
    commit(store, finish_job=True)
    assert store.job() is None


def test_samples_keep_order_and_replace_in_place(store):
    def sample(key, value, y=1):
        return Sample("train", np.full((2, 3), value, "f4"), y, key)

    store.put_samples([sample("a", 1), sample("b", 2, np.array([0.5, 1], "f4")), sample("c", 3)])
    store.put_samples([sample("a", 9, np.int64(4))])
    found = store.samples("train")
    assert [s.key for s in found] == ["a", "b", "c"]
    assert found[0].x.shape == (2, 3)
    assert found[0].x.dtype == np.float32
    assert found[0].x[0, 0] == 9
    assert found[0].y == 4
    assert isinstance(found[0].y, int)
    assert found[1].y.tolist() == [0.5, 1]
    assert store.samples("gate") == []
    store.drop_samples("train", ["b"])
    assert [s.key for s in store.samples("train")] == ["a", "c"]
    store.drop_samples("train")
    assert store.samples("train") == []
    with pytest.raises(StateError, match="'tain' is unknown"):
        store.put_samples([sample("a", 1), Sample("tain", np.ones(1), 0, "x")])
    assert store.samples("train") == []


def test_dropped_samples_are_wiped_from_the_file(tmp_path):
    secret = np.frombuffer(b"a very private sample of mine 123456", np.uint8)
    with Store.open(tmp_path / "s.db") as store:
        store.put_samples([Sample("train", secret, 0, "k")])
    assert secret.tobytes() in (tmp_path / "s.db").read_bytes()
    with Store.open(tmp_path / "s.db") as store:
        store.drop_samples("train")
    assert secret.tobytes() not in (tmp_path / "s.db").read_bytes()


def test_kv_and_events(store):
    assert store.kv("x") is None
    store.put_kv("x", b"1")
    store.put_kv("x", b"2")
    assert store.kv("x") == b"2"
    for n in range(5):
        store.event("tick", {"n": n, "v": np.float32(0.5)})
    assert [e.detail["n"] for e in store.events(3)] == [2, 3, 4]


def test_transaction_is_all_or_nothing(store):
    with pytest.raises(RuntimeError), store.transaction():  # noqa: PT012 - the group is the test
        commit(store, 1)
        store.put_kv("x", b"1")
        raise RuntimeError
    assert store.versions() == []
    assert store.kv("x") is None
    with store.transaction():
        commit(store, 1)
        store.put_kv("x", b"1")
    assert store.live().id == 1


def test_failed_inner_call_rolls_the_whole_group_back(store):
    with pytest.raises(StateError), store.transaction():  # noqa: PT012 - the group is the test
        store.put_kv("x", b"1")
        store.promote(99)
    assert store.kv("x") is None


def test_readonly_beside_a_writer(store):
    commit(store, 1)
    with Store.open(store.path, readonly=True) as reader:
        assert equal(reader.adapter(1), weights(1))
        commit(store, 2, parent=1)
        assert reader.live().id == 2
        with pytest.raises(StateError, match="read-only"):
            reader.put_kv("x", b"1")


def test_readonly_needs_a_file(tmp_path):
    with pytest.raises(StateError, match="does not exist"):
        Store.open(tmp_path / "none.db", readonly=True)


def test_second_process_is_told_the_holder(store):
    code = (
        "import sys; from edgeloop.store import Store\n"
        "try: Store.open(sys.argv[1])\n"
        "except Exception as e: print(e); sys.exit(4)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4, done.stderr
    assert f"in use by process {os.getpid()}" in done.stdout
    path = store.path
    store.close()
    with Store.open(path):
        pass


def test_closed_store_says_so(store):
    store.close()
    with pytest.raises(StateError, match="is closed"):
        store.versions()


def test_private_file_mode(store):
    assert store.path.stat().st_mode & 0o077 == 0
