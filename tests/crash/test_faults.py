"""Thousands of injected faults: nothing that was acknowledged is lost, nothing damaged is served.

EDGELOOP_FAULTS sets how many (default 300; `make crash` 10,000); the seed is fixed. Each is a power
loss in the middle of a recorded run of what a device does, with any part of its unsynced writes
dropped or torn, or a page of its state file that rotted; some devices then run to the end, and
others are killed, or find the disk full or read-only, in the middle of a real run.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from tests.crash.disk import Disk
from tests.crash.test_kill import outcome
from tests.store.test_powerloss import parse
from tests.trust.fleet import AnyDigest

from edgeloop import delta
from edgeloop.beside import BACKUP, JOURNAL
from edgeloop.errors import EdgeLoopError, StateError, TrustError
from edgeloop.store import Outbox, Store, damage
from edgeloop.trust import Trust

FAULTS = int(os.environ.get("EDGELOOP_FAULTS", "300"))
EROFS = 30

# What is done to a device, with a mark after each thing that was acknowledged. argv: folder.
SCRIPTS = {
    # Checkpoints, samples and versions in every codec, a quota, a rollback.
    "commits": """
with Store.open(path) as store:
    for n in range(1, 9):
        store.save_job(Job("p", n - 1 or None, bytes([n]) * 3000, b"r", {"step": n}, [], "ref"))
        store.put_samples([Sample("train", np.full(64, n, "f4"), n, str(n))])
        store.commit(weights(n), program_hash="p", parent=n - 1 or None, metrics={}, live=True,
                     finish_job=True, codec=("f32", "xor")[n % 2])
        mark(n)
        if n == 6:
            store.gc(keep=4)
""",
    # Copies of the state, and one put back.
    "copies": """
with Store.open(path) as store:
    for n in range(1, 4):
        store.commit(weights(n), program_hash="p", parent=None, metrics={}, live=True)
        mark(n)
        backup(store, path + BACKUP)
        mark(100 + n)
restore(path + BACKUP, path)
""",
    # Releases: what is promised in the journal is never taken back.
    "releases": """
from tests.trust.fleet import PROGRAM, Fleet
from edgeloop import delta
from edgeloop.trust import Trust
fleet = Fleet()
with Store.open(path) as store:
    store.commit(weights(0), program_hash=PROGRAM, parent=None, metrics={"kind": "shipped"},
                 live=True)
    delta.note(store, Trust.enroll(store.path, fleet.root))
    mark(0)
    for n in range(1, 6):
        package = fleet.pack(weights(n - 1), weights(n), n)
        delta.install(store, package, trust=delta.trust_of(store), shipped=lambda: 1 / 0)
        mark(n)
        Trust(store.path).next_upload()
        mark(100 + n)
""",
    # What waits to be sent.
    "outbox": """
with Outbox(Path(path)) as outbox:
    for n in range(1, 7):
        outbox.put(str(n), bytes([n]) * 2000)
        mark(n)
        if n % 3 == 0:
            outbox.sent(outbox.waiting()[0])
            mark(100 + n)
""",
}
HEAD = """
import os, sys
from pathlib import Path
import numpy as np
from edgeloop.beside import BACKUP
from edgeloop.store import Job, Outbox, Sample, Store, backup, restore
path = os.path.join(sys.argv[1], "s.db")
handle = os.open(os.path.join(sys.argv[1], "s.mark"), os.O_WRONLY | os.O_CREAT)
def mark(n):
    os.write(handle, bytes([n]))
def weights(n):
    return {"w": np.full(900, n, "f4")}
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, shim):
    """The log of each script, recorded once: recorded(name, **environment) -> records."""
    import subprocess
    import sys

    kept = {}

    def record(name, **environment):
        key = (name, *environment.items())
        if key not in kept:
            folder = tmp_path_factory.mktemp("recorded")
            log, own = folder / "log", folder / "device"
            own.mkdir()
            done = subprocess.run(
                [sys.executable, "-c", HEAD + SCRIPTS[name], str(own)],
                env={**os.environ, "LD_PRELOAD": shim, "EL_SHIM_LOG": str(log),
                     "EL_SHIM_MATCH": str(own),
                     "PYTHONPATH": os.pathsep.join(["src", "."]), **environment},
                capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            kept[key] = parse(log)
        return kept[key]

    return record


def marks_of(records):
    return [data[0] for _, path, _, data in records if path.endswith(".mark")]


def lose_power(records, rng, folder):
    """A folder as it may be after the power failed somewhere; what was acknowledged before."""
    cut = rng.randint(1, len(records))
    disk = Disk()
    disk.play([r for r in records[:cut] if not r[1].endswith(".mark")])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, content in disk.after(rng).items():
        (folder / Path(path).name).write_bytes(content)
    return marks_of(records[:cut])


def check_commits(folder, marks):
    with Store.open(folder / "s.db") as store:
        live, last = store.live(), max(marks, default=0)
        assert (live.id if live else 0) in (last, last + 1)
        assert damage(store) == []
        for version in store.versions():
            assert (store.adapter(version.id)["w"] == version.id).all()
        assert len(store.samples("train")) >= last


def check_copies(folder, marks):
    last = max((m for m in marks if m < 100), default=0)
    with Store.open(folder / "s.db") as store:
        live = store.live()
        assert (live.id if live else 0) in (last, last + 1)
        assert damage(store) == []
    copies = [m - 100 for m in marks if m > 100]
    copy = folder / f"s.db{BACKUP}"
    if copies or copy.exists():
        with Store.open(copy, readonly=True) as store:
            assert damage(store) == []
            assert store.live().id in (copies[-1:] or [0]) + [last, last + 1]


def check_releases(folder, marks):
    last = max((m for m in marks if m < 100), default=None)
    uploads = max((m - 100 for m in marks if m > 100), default=0)
    if last is None:  # the enrolment was not acknowledged: it happened or did not
        with Store.open(folder / "s.db"):
            return
    trust = Trust(folder / "s.db")
    assert trust.sequence in (last, last + 1)
    assert trust.uploads in (uploads, uploads + 1)
    with Store.open(folder / "s.db") as store:
        assert delta.trust_of(store) is not None  # the mark fits the journal
        live = store.live()
        assert (store.adapter(live.id)["w"] == live.id - 1).all()
        assert live.id - 1 in (last, last + 1)
        assert live.id - 1 <= trust.sequence  # promised before it was live


def check_outbox(folder, marks):
    put = max((m for m in marks if m < 100), default=0)
    with Outbox(folder / "s.db") as outbox:
        waiting = {m.about: m.body for m in outbox.waiting()}
        assert all(body == bytes([int(about)]) * 2000 for about, body in waiting.items())
        assert all(outbox.known(str(n)) for n in range(1, put + 1))
        assert len(waiting) >= put - put // 3 - 1


CHECKS = {"commits": check_commits, "copies": check_copies, "releases": check_releases,
          "outbox": check_outbox}


@pytest.mark.parametrize("name", SCRIPTS)
def test_power_loss(recorded, tmp_path, name):
    records, rng = recorded(name), random.Random(7)
    assert len(marks_of(records)) >= 4
    for _ in range(FAULTS // 5):
        marks = lose_power(records, rng, tmp_path / "device")
        CHECKS[name](tmp_path / "device", marks)


@pytest.mark.parametrize(("name", "skipped"), [
    ("commits", "s.db-wal"),
    ("copies", "s.db.backup.part"),
    ("releases", f"s.db{JOURNAL}"),
    ("outbox", "s.db.link-wal"),
])
def test_without_one_sync_the_suite_fails(recorded, tmp_path, name, skipped):
    records, rng = recorded(name, EL_SHIM_SKIP_SYNC=skipped), random.Random(7)
    failures = 0
    for _ in range(200):
        marks = lose_power(records, rng, tmp_path / "device")
        try:
            CHECKS[name](tmp_path / "device", marks)
        except (AssertionError, EdgeLoopError):
            failures += 1
    assert failures > 0


# Rotten pages

@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A device with versions, a job and samples: everything is version n's own number."""
    path = tmp_path_factory.mktemp("whole") / "s.db"
    with Store.open(path) as store:
        from edgeloop.store import Job, Sample

        for n in range(1, 7):
            store.put_samples([Sample("gate", np.full(300, n, "f4"), n, str(n))])
            store.commit({"w": np.full(900, n, "f4")}, program_hash="p", parent=n - 1 or None,
                         metrics={"n": n}, live=True, codec=("f32", "xor", "f16")[n % 3])
        store.save_job(Job("p", 6, bytes([7]) * 3000, b"r", {"step": 1}, [], "ref"))
    return path.read_bytes()


def rotten(data, rng):
    """The file after bits flipped, sectors were lost, swapped or blanked, or its end was."""
    out, kind = bytearray(data), rng.choice(["bit", "bytes", "zeros", "swap", "cut"])
    at = rng.randrange(len(out) // SECTOR) * SECTOR
    if kind == "bit":
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    elif kind == "bytes":
        for _ in range(rng.randint(1, 40)):
            out[rng.randrange(len(out))] = rng.randrange(256)
    elif kind == "zeros":
        out[at : at + SECTOR * rng.randint(1, 8)] = bytes(SECTOR)
    elif kind == "swap":
        other = rng.randrange(len(out) // SECTOR) * SECTOR
        out[at : at + SECTOR], out[other : other + SECTOR] = (
            out[other : other + SECTOR], out[at : at + SECTOR])
    else:
        del out[at:]
    return bytes(out)


SECTOR = 512


def serve(path):
    """What a start makes of a file: weights that it serves, which must be some version's own."""
    served = 0
    for readonly in (True, False):
        try:
            with Store.open(path, readonly=readonly) as store:
                live = store.live()
                if live is not None:
                    assert len(set(store.adapter(live.id)["w"].tolist())) == 1
                    assert (store.adapter(live.id)["w"] == live.id).all()
                    served += 1
                for sample in store.samples("gate"):
                    assert (sample.x == sample.y).all()
                job = store.job()
                assert job is None or job.snapshot == bytes([7]) * 3000
        except StateError:
            continue  # named, and nothing served
    return served


def test_rotten_files_are_named_or_serve_the_right_bits(whole, tmp_path):
    rng, served = random.Random(11), 0
    path = tmp_path / "s.db"
    path.write_bytes(whole)
    assert serve(path) == 2
    for _ in range(FAULTS // 5):
        for old in tmp_path.glob("s.db*"):
            old.unlink()
        path.write_bytes(rotten(whole, rng))
        served += serve(path) > 0
    assert 0 < served < FAULTS // 5


def test_without_the_hashes_something_wrong_would_be_served(whole, tmp_path, monkeypatch):
    from edgeloop.store import store as stores
    from edgeloop.store import versions

    for module in (versions, stores):
        monkeypatch.setattr(module, "sha256", lambda *_: AnyDigest())
    rng, wrong = random.Random(11), 0
    path = tmp_path / "s.db"
    for _ in range(150):
        for old in tmp_path.glob("s.db*"):
            old.unlink()
        path.write_bytes(rotten(whole, rng))
        try:
            serve(path)
        except Exception:  # noqa: BLE001  something else than a refusal
            wrong += 1
    assert wrong > 0


# Real runs

@pytest.fixture(scope="module")
def calm(device_template, tmp_path_factory):
    device = device_template.copy(tmp_path_factory.mktemp("calm") / "device")
    done = device.run("run", "loop.toml", "--quiet")
    assert done.returncode == 0, done.stderr
    return outcome(device)


# The clock goes anywhere, at any reading; what a run computes must not depend on it.
WILD_CLOCK = """
import random, time
wild = random.Random({seed})
time.time = lambda: wild.uniform(0, 4e9)
"""


def finished(device, **environment):
    done = device.run("run", "loop.toml", "--quiet", **environment)
    assert done.returncode == 0, done.stderr


def test_real_runs_that_meet_a_fault_end_with_the_same_bits(calm, new_device, shim):
    """Killed, or with a disk that is full or read-only from some call on; then run again."""
    rng, hits = random.Random(5), 0
    for n in range(max(6, FAULTS // 50)):
        device = new_device(f"d{n}")
        kind = ("kill", "full", "read-only", "clock")[n % 4]
        call = str(rng.randint(1, 260))
        environment = {"LD_PRELOAD": shim, "EL_SHIM_MATCH": str(device.folder)}
        if kind == "clock":
            finished(device, prelude=WILD_CLOCK.format(seed=n))
        else:
            environment |= {
                "kill": {"EL_SHIM_KILL_AT": call},
                "full": {"EL_SHIM_FULL_AT": call},
                "read-only": {"EL_SHIM_FULL_AT": call, "EL_SHIM_ERRNO": str(EROFS)},
            }[kind]
            done = device.run("run", "loop.toml", "--quiet", **environment)
            assert done.returncode in (0, -signal.SIGKILL, 2, 4), done.stderr
            if done.returncode > 0:
                assert done.stderr.count("\n") == 1, done.stderr
                assert "state" in done.stderr
            hits += done.returncode != 0
            finished(device)
        assert outcome(device) == calm, (n, kind, call)
        shutil.rmtree(device.folder)
    assert hits >= 3


def test_the_journal_survives_rot_only_if_nothing_was_lost(recorded, tmp_path):
    """A trust journal whose bytes rotted is refused, or lost no more than its last line."""
    records, rng = recorded("releases"), random.Random(3)
    disk = Disk()
    disk.play(records)
    files = disk.after(random.Random(0))
    refused = 0
    for _ in range(FAULTS // 5):
        for path, content in files.items():
            name = Path(path).name
            bad = rotten(content, rng) if name.endswith(JOURNAL) else content
            (tmp_path / name).write_bytes(bad)
        try:
            with Store.open(tmp_path / "s.db") as store:
                assert delta.trust_of(store).sequence == 5
        except TrustError:
            refused += 1
        for old in tmp_path.glob("s.db*"):
            old.unlink()
    assert refused > 0
