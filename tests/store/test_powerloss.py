"""Power loss at any instant: what was acknowledged is there, though unsynced writes are lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edgeloop.errors import StateError
from edgeloop.store import Store

# Commits versions 1..n with a checkpoint before each; after each one a mark is written, which
# the log shows in order with everything else. argv: path, mark file, pragma or "".
WORKLOAD = """
import os, sys
import numpy as np
from edgeloop.store import Job, Sample, Store
path, mark, pragma = sys.argv[1:]
store = Store.open(path)
if pragma:
    store._db.query(pragma)
fd = os.open(mark, os.O_WRONLY | os.O_CREAT)
for n in range(1, 13):
    store.save_job(Job("p", n - 1 or None, bytes([n]) * 3000, b"r", {"step": n}, [], "ref"))
    if n % 4 == 0:
        store._db.query("PRAGMA wal_checkpoint(TRUNCATE)")
    store.put_samples([Sample("train", np.full(64, n, "f4"), n, str(n))])
    weights = {"w": np.full(900, n, "f4")}
    store.commit(weights, program_hash="p", parent=n - 1 or None, metrics={}, live=True,
                 finish_job=True)
    os.write(fd, bytes([n]))
store.close()
"""


def parse(log):
    """The shim's log as (kind, path, offset or size, bytes)."""
    data, at, records = log.read_bytes(), 0, []
    while at < len(data):
        end = data.index(b"\n", at)
        kind, path, *numbers = data[at:end].decode().split(" ")
        at = end + 1
        length = int(numbers[1]) if kind == "W" else 0
        number = int(numbers[0]) if numbers and kind != "R" else 0
        what = numbers[0].encode() if kind == "R" else data[at : at + length]
        records.append((kind, path, number, what))
        at += length
    return records


def change(content, record):
    kind, _, number, data = record
    if kind == "W":
        content.extend(bytes(max(0, number - len(content))))
        content[number : number + len(data)] = data
    elif kind == "T":
        content[number:] = bytes(max(0, number - len(content)))
    elif kind == "U":
        content.clear()


def disk_after(records, cut, rng):
    """Files as the disk may hold them when the power fails after `cut` records.

    Synced writes are there; of the others each 512-byte sector arrives or does not.
    """
    durable, pending = {}, {}
    for record in records[:cut]:
        kind, path = record[:2]
        if path.endswith(".mark"):
            continue
        if kind == "S" and path.endswith("/device"):  # the folder: deletions are durable now
            for name, queue in pending.items():
                if any(late[0] == "U" for late in queue):
                    durable[name].clear()
                    queue.clear()
            continue
        durable.setdefault(path, bytearray())
        queue = pending.setdefault(path, [])
        if kind == "S":
            for late in queue:
                change(durable[path], late)
            queue.clear()
        else:
            queue.append(record)
    share = rng.choice([0.0, 0.5, 1.0])
    for path, queue in pending.items():
        for kind, _, number, data in queue:
            if kind != "W":
                if rng.random() < share:
                    change(durable[path], (kind, path, number, data))
                continue
            for start in range(0, len(data), 512):
                if rng.random() < share:
                    change(durable[path], ("W", path, number + start, data[start : start + 512]))
    return durable


def check(records, cut, rng, folder):
    """Raise when a device waking up after this power loss misses something acknowledged."""
    acknowledged = sum(1 for kind, path, *_ in records[:cut] if path.endswith(".mark"))
    for path, content in disk_after(records, cut, rng).items():
        if content:
            (folder / Path(path).name).write_bytes(content)
    with Store.open(folder / "s.db") as store:
        live = store.live()
        assert (live.id if live else 0) in (acknowledged, acknowledged + 1)
        for version in store.versions():
            assert (store.adapter(version.id)["w"] == version.id).all()
        job = store.job()
        if job is not None:
            assert job.snapshot == bytes([job.cursor["step"]]) * 3000
        assert len(store.samples("train")) >= acknowledged


@pytest.fixture
def record(run_shimmed, tmp_path):
    def run(pragma=""):
        log, folder = tmp_path / "log", tmp_path / "device"
        folder.mkdir()
        done = run_shimmed(
            WORKLOAD,
            folder / "s.db",
            folder / "s.mark",
            pragma,
            EL_SHIM_LOG=str(log),
            EL_SHIM_MATCH=str(folder),
        )
        assert done.returncode == 0, done.stderr
        records = parse(log)
        assert sum(path.endswith(".mark") for _, path, *_ in records) == 12
        return records

    return run


def cuts(records, rng):
    """Every instant around a mark, and some in between."""
    marks = [i + 1 for i, record in enumerate(records) if record[1].endswith(".mark")]
    return sorted({*marks, *(rng.randrange(len(records)) for _ in range(80))})


def test_nothing_acknowledged_is_lost(record, tmp_path):
    records, rng = record(), random.Random(1)
    for n, cut in enumerate(cuts(records, rng)):
        folder = tmp_path / f"disk{n}"
        folder.mkdir()
        check(records, cut, rng, folder)


def test_the_check_notices_a_dropped_fsync(record, tmp_path):
    records, rng = record("PRAGMA synchronous=OFF"), random.Random(1)
    failures = 0
    for n, cut in enumerate(cuts(records, rng)):
        folder = tmp_path / f"disk{n}"
        folder.mkdir()
        try:
            check(records, cut, rng, folder)
        except (AssertionError, StateError):
            failures += 1
    assert failures > 10


def unsynced_marks(records):
    """How many commits were acknowledged while a write to the log was still unsynced."""
    dirty, found = False, 0
    for kind, path, *_ in records:
        if path.endswith(".mark"):
            found += dirty
        elif path.endswith("-wal"):
            dirty = kind != "S"
    return found


def test_a_sync_stands_between_the_last_write_and_the_acknowledgement(record):
    assert unsynced_marks(record()) == 0


def test_the_order_check_notices_a_dropped_fsync(record):
    assert unsynced_marks(record("PRAGMA synchronous=NORMAL")) > 5
