"""Killed before every single write, sync, truncation, deletion and renaming, or the disk full from
each write on: all or nothing, and nothing acknowledged is lost."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from tests.store.test_powerloss import parse
from tests.trust.fleet import Device
from tests.trust.fleet import weights as fleet_weights

from edgeloop import delta
from edgeloop.beside import BACKUP
from edgeloop.store import STATE_FORMAT, Job, Sample, Store, backup, damage

COMPAT = Path(__file__).parents[1] / "compat"

# Runs one way to change a device in a child for each call that it makes, killed before that one or
# with a disk that is full from that write on; each child has a copy of the device of its own.
# argv: device, work, folder, what to switch off, and for full disks how often.
DRIVER = """
import json, os, shutil, signal, sys
import numpy as np
from edgeloop import delta
from edgeloop.beside import BACKUP
from edgeloop.store import Store, backup, restore
device, work, folder, off, full = sys.argv[1:]
from edgeloop.errors import StateError

def weights(value):
    return {"w": np.full(900, value, "f4")}

def commit(path):
    with Store.open(path) as store:
        with store.transaction():
            store.commit(weights(3), program_hash="p", parent=2, metrics={}, live=True,
                         finish_job=True, codec="xor")
            store.gc(keep=2)
            store.event("promoted", {"version": 3})

def migrate(path):
    Store.open(path).close()

def copy(path):
    with Store.open(path) as store:
        backup(store, path + BACKUP)

def put_back(path):
    restore(path + BACKUP, path)

def take(path):
    from edgeloop import delta
    package = open(os.path.join(os.path.dirname(path), "r.edl"), "rb").read()
    with Store.open(path) as store:
        delta.install(store, package, trust=delta.trust_of(store), shipped=None)

if off == "transaction":
    from contextlib import nullcontext
    from edgeloop.store.connection import Connection
    Connection.transaction = lambda self: nullcontext()
if off == "replace":
    from pathlib import Path
    def overwrite(self, target):
        with open(target, "wb") as file:
            file.write(self.read_bytes())
        self.unlink()
    Path.replace = overwrite

killed, k = [], 0
while True:
    k += 1
    own = os.path.join(folder, str(k))
    shutil.copytree(device, own)
    child = os.fork()
    if child == 0:
        os.environ["EL_SHIM_MATCH"] = own
        os.environ["EL_SHIM_FULL_AT" if full else "EL_SHIM_KILL_AT"] = str(k)
        try:
            {"commit": commit, "migrate": migrate, "copy": copy, "put back": put_back,
             "take": take}[work](os.path.join(own, "s.db"))
        except (StateError, OSError):
            os._exit(4)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if full:
        killed.append(os.WEXITSTATUS(status))
        if k < int(full):
            continue
        print(json.dumps(killed))
        break
    if os.WIFEXITED(status):
        print(json.dumps({"calls": k - 1, "status": os.WEXITSTATUS(status)}))
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
"""


def weights(value):
    return {"w": np.full(900, value, "f4")}


def commit(store, value, parent=None):
    store.commit(weights(value), program_hash="p", parent=parent, metrics={}, live=True)


@pytest.fixture
def device(tmp_path):
    """Versions 1 and 2, 2 live, an update under way, a sample; a copy in which 1 is live."""
    folder = tmp_path / "device"
    folder.mkdir()
    with Store.open(folder / "s.db") as store:
        commit(store, 1)
        store.put_samples([Sample("gate", np.ones(8, "f4"), 1, "k")])
        backup(store, folder / f"s.db{BACKUP}")
        commit(store, 2, 1)
        store.save_job(Job("p", 2, b"snapshot" * 400, b"rng", {"step": 3}, [], "ref"))
    return folder


@pytest.fixture
def old(tmp_path):
    """A device of the oldest format."""
    folder = tmp_path / "device"
    folder.mkdir()
    db = sqlite3.connect(folder / "s.db")
    db.executescript((COMPAT / "state-1.sql").read_text())
    db.close()
    return folder


@pytest.fixture
def killed(run_shimmed, tmp_path):
    """Return the folders that the kills left, the last one of a run that was not killed."""
    def run(device, work, off=""):
        folder = tmp_path / f"{work} {off}"
        folder.mkdir()
        done = run_shimmed(DRIVER, device, work, folder, off, "")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["status"] == 0
        return [folder / str(k + 1) for k in range(told["calls"] + 1)]

    return run


def state(folder):
    """What a start after the kill finds: the live version, the step of the job, the damage."""
    with Store.open(folder / "s.db") as store:
        assert damage(store) == []
        live, job = store.live(), store.job()
        for v in store.versions():
            assert (store.adapter(v.id)["w"] == v.id).all()
        assert [s.key for s in store.samples("gate")] == ["k"]
        return live.id, job and job.cursor["step"], [v.id for v in store.versions()]


def test_a_commit_happens_or_not(device, killed):
    folders = killed(device, "commit")
    found = [state(f) for f in folders]
    before, after = (2, 3, [1, 2]), (3, None, [2, 3])
    assert len(folders) > 10
    assert found[0] == before
    assert found[-1] == after
    turn = found.index(after)
    assert found == [before] * turn + [after] * (len(found) - turn)


def test_a_migration_happens_or_not(old, killed):
    folders = killed(old, "migrate")
    assert len(folders) > 5
    numbers = []
    for folder in folders:
        with Store.open(folder / "s.db", readonly=True) as store:
            assert [v.id for v in store.versions()] == [1, 2]
            assert (store.adapter(2)["fc.lora_A"] == 2).all()
            assert damage(store) == []
        with Store.open(folder / "s.db") as store:
            numbers.append([v.lineage for v in store.versions()])
    assert numbers == [["local", "local"]] * len(folders)
    db = sqlite3.connect(folders[-1] / "s.db")
    assert db.execute("PRAGMA user_version").fetchone() == (STATE_FORMAT,)
    db.close()


def copied(folder):
    with Store.open(folder / f"s.db{BACKUP}", readonly=True) as store:
        assert damage(store) == []
        return store.live().id


def test_a_copy_is_the_old_or_the_new_one(device, killed):
    folders = killed(device, "copy")
    assert len(folders) > 10
    found = [copied(f) for f in folders]
    turn = found.index(2)
    assert found == [1] * turn + [2] * (len(found) - turn)
    assert 0 < turn < len(found)
    assert [state(f) for f in folders] == [(2, 3, [1, 2])] * len(folders)
    assert not list(folders[-1].glob("*.part"))


def test_what_is_put_back_is_the_old_or_the_new_file(device, killed):
    folders = killed(device, "put back")
    assert len(folders) > 10
    found = [state(f) for f in folders]
    before, after = (2, 3, [1, 2]), (1, None, [1])
    turn = found.index(after)
    assert found == [before] * turn + [after] * (len(found) - turn)
    assert 0 < turn < len(found)


def test_a_release_is_promised_then_taken_or_taken_by_the_next_try(
    tmp_path, fleet, killed
):
    """At every instant: what is live was promised, and the same package leads there in the end."""
    folder = tmp_path / "device"
    folder.mkdir()
    device = Device(folder, fleet, "s.db")
    (folder / "r.edl").write_bytes(fleet.pack(fleet_weights(0), fleet_weights(1), 7))
    found = []
    for own in killed(folder, "take"):
        with Store.open(own / "s.db") as store:
            trust = delta.trust_of(store)
            assert damage(store) == []
            found.append((trust.sequence, store.live().id))
            package = (own / "r.edl").read_bytes()
            assert delta.install(store, package, trust=trust, shipped=None).action in (
                "live", "again")
            assert (store.live().id, delta.trust_of(store).sequence) == (2, 7)
            assert [v.id for v in store.versions()] == [1, 2]
    assert device.live.id == 1
    assert sorted(set(found)) == [(0, 1), (7, 1), (7, 2)]  # promised before it is live
    assert found == sorted(found)


@pytest.mark.parametrize(("work", "off", "check"), [
    ("commit", "transaction", state), ("copy", "replace", copied), ("put back", "replace", state)])
def test_without_what_makes_it_one_instant_a_kill_leaves_something_else(
    device, killed, work, off, check
):
    whole = {"commit": {(2, 3, (1, 2)), (3, None, (2, 3))}, "copy": {1, 2},
             "put back": {(2, 3, (1, 2)), (1, None, (1,))}}[work]
    wrong = 0
    for folder in killed(device, work, off):
        try:
            found = check(folder)
            found = (*found[:2], tuple(found[2])) if isinstance(found, tuple) else found
            wrong += found not in whole
        except Exception:  # noqa: BLE001  whatever it is, it is not one of the two
            wrong += 1
    assert wrong > 0


@pytest.mark.parametrize(("work", "before", "after"), [
    ("commit", (2, 3, [1, 2]), (3, None, [2, 3])), ("put back", (2, 3, [1, 2]), (1, None, [1]))])
def test_a_disk_that_is_full_from_some_write_on_loses_nothing(
    device, killed, run_shimmed, tmp_path, work, before, after
):
    """What reported success happened; what reported failure did not, or only its last cleaning."""
    calls = len(killed(device, work)) - 1
    folder = tmp_path / "full"
    folder.mkdir()
    done = run_shimmed(DRIVER, device, work, folder, "", calls)
    assert done.returncode == 0, done.stderr
    statuses = json.loads(done.stdout)
    assert {0, 4} == set(statuses)
    for k, status in enumerate(statuses, 1):
        found = state(folder / str(k))
        assert found == after if status == 0 else found in (before, after)


def test_kills_reach_every_kind_of_call(device, run_shimmed, tmp_path):
    """What is counted is what the log shows: nothing that touches the disk goes past it."""
    log, own = tmp_path / "log", tmp_path / "own"
    shutil.copytree(device, own)
    done = run_shimmed(
        "import sys\nfrom edgeloop.store import restore\nrestore(sys.argv[1] + '.backup', "
        "sys.argv[1])", own / "s.db", EL_SHIM_LOG=str(log), EL_SHIM_MATCH=str(own))
    assert done.returncode == 0, done.stderr
    assert {kind for kind, *_ in parse(log)} >= {"W", "S", "U", "R"}
