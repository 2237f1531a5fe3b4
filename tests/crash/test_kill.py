"""kill -9 at any instant: the resumed run ends with the very same weights.

EDGELOOP_KILLS sets how many kills (default 20; `make crash` uses 200).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgeloop.store import SETS, Store

KILLS = int(os.environ.get("EDGELOOP_KILLS", "20"))
KILLS_PER_RUN = 5

# Kills the process at a commit: before SQLite's COMMIT or right after it.
AT_COMMIT = """
import os, signal
from edgeloop.store.connection import Connection
query, left = Connection.query, [{commits}]
def counted(self, sql, values=()):
    if sql != "COMMIT":
        return query(self, sql, values)
    left[0] -= 1
    if left[0] == 0 and {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    rows = query(self, sql, values)
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return rows
Connection.query = counted
"""

# A checkpoint that keeps weights and optimizer state but not where in the data they stand.
WITHOUT_CURSOR = """
from edgeloop.store import Store
save, first = Store.save_job, {}
def forgetful(self, job):
    kept = first.setdefault(job.cursor["job"], job.cursor)
    job.cursor = dict(kept)
    save(self, job)
Store.save_job = forgetful
"""

# A checkpoint that keeps the place in the data but the weights of the beginning.
WITHOUT_WEIGHTS = (
    WITHOUT_CURSOR.replace("job.cursor, ", "")
    .replace(
        'setdefault(job.cursor["job"], job.cursor)', 'setdefault(job.cursor["job"], job.snapshot)'
    )
    .replace("job.cursor = dict(kept)", "job.snapshot = kept")
)


def outcome(device):
    """Everything that must not depend on kills; times are left out."""
    with Store.open(device.state) as store:
        assert store.job() is None
        samples = hashlib.sha256()
        for kind in SETS:
            for sample in store.samples(kind):
                samples.update(f"{kind} {sample.key} {sample.y}".encode() + sample.x.tobytes())
        return {
            "versions": [
                (v.id, v.parent, v.sha256, v.live, v.program_hash) for v in store.versions()
            ],
            "loop": store.kv("loop"),
            "samples": samples.hexdigest(),
        }


@pytest.fixture(scope="module")
def calm(device_template, tmp_path_factory):
    """The uninterrupted run: what it ends with, and how long it works after its start."""
    device = device_template.copy(tmp_path_factory.mktemp("calm") / "device")
    process = start(device)
    process.stdout.readline()
    began = time.monotonic()
    process.stdout.read()
    assert process.wait(120) == 0, process.stderr.read()
    work = time.monotonic() - began
    close(process)
    return outcome(device), work


def start(device, prelude=""):
    return subprocess.Popen(
        device.command("run", "loop.toml", "--json", prelude=prelude),
        cwd=device.folder,
        env=device.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def close(process):
    process.stdout.close()
    process.stderr.close()


def finish(device, prelude=""):
    done = device.run("run", "loop.toml", "--quiet", prelude=prelude)
    assert done.returncode == 0, done.stderr


def kill_in_time(device, rng, work):
    """Kill after a random time; True when the process was still running."""
    process = start(device)
    if rng.random() < 0.9:  # most kills after the start, some while it is loading
        process.stdout.readline()
        delay = rng.uniform(0, work)
    else:
        delay = rng.uniform(0, 0.3)
    # The pipe is small: nobody reading would stop the process before the kill does.
    end = time.monotonic() + delay
    os.set_blocking(process.stdout.fileno(), False)
    while (left := end - time.monotonic()) > 0 and process.poll() is None:
        with contextlib.suppress(BlockingIOError, TypeError):
            os.read(process.stdout.fileno(), 1 << 16)
        time.sleep(min(left, 0.005))
    process.kill()
    status = process.wait(60)
    error = process.stderr.read()
    close(process)
    assert status in (0, -signal.SIGKILL), error
    return status != 0


def kill_at_commit(device, rng):
    """Kill just before or after a random commit; True when it came to that."""
    prelude = AT_COMMIT.format(commits=rng.randint(1, 25), before=rng.random() < 0.5)
    done = device.run("run", "loop.toml", "--quiet", prelude=prelude)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def interrupted_update(device):
    """Whether the dead process left an update to be resumed; reading changes nothing."""
    with contextlib.suppress(Exception), Store.open(device.state, readonly=True) as store:
        return store.job() is not None
    return False


def kill_often(device, seed, work):
    """Kill a device a few times, then let it finish; return kills, and how many hit an update."""
    rng = random.Random(seed)
    kills = updates = 0
    for _ in range(KILLS_PER_RUN):
        at_commit = rng.random() < 0.5
        if not (kill_at_commit(device, rng) if at_commit else kill_in_time(device, rng, work)):
            break
        kills += 1
        updates += interrupted_update(device)
    finish(device)
    return kills, updates


def test_killed_runs_end_with_the_same_weights(calm, new_device):
    expected, work = calm
    assert len(expected["versions"]) >= 3, "the run promotes nothing: kills would prove nothing"
    kills = updates = 0
    seeds = itertools.count(1)
    with ThreadPoolExecutor(2) as pool:
        while kills < KILLS:
            pair = [(new_device(f"d{seed}"), seed) for seed in itertools.islice(seeds, 2)]
            done = [pool.submit(kill_often, *each, work) for each in pair]
            for (device, seed), hits in zip(pair, [d.result() for d in done], strict=True):
                kills, updates = kills + hits[0], updates + hits[1]
                assert outcome(device) == expected, f"seed {seed}"
                shutil.rmtree(device.folder)
    assert updates >= kills // 5, f"only {updates} of {kills} kills hit an update"


@pytest.mark.parametrize("broken", [WITHOUT_CURSOR, WITHOUT_WEIGHTS], ids=["cursor", "weights"])
def test_a_checkpoint_that_lacks_something_is_noticed(calm, new_device, broken):
    expected, _ = calm
    for commits in (8, 6, 10):
        device = new_device(f"d{commits}")
        prelude = broken + AT_COMMIT.format(commits=commits, before=False)
        done = device.run("run", "loop.toml", "--quiet", prelude=prelude)
        assert done.returncode == -signal.SIGKILL, done.stderr
        finish(device)
        if outcome(device)["versions"] != expected["versions"]:
            return
    pytest.fail("a broken checkpoint went unnoticed: the kill test proves nothing")


def test_a_second_process_is_refused_and_disturbs_nothing(calm, new_device):
    expected, _ = calm
    device = new_device()
    first = start(device)
    first.stdout.readline()
    first.send_signal(signal.SIGSTOP)  # however slow this machine is, it stays there
    second = device.run("run", "loop.toml")
    looked = device.run("status", "device.db")
    first.send_signal(signal.SIGCONT)
    first.stdout.read()
    assert first.wait(120) == 0
    close(first)
    assert second.returncode == 4
    assert second.stderr.count("\n") == 1
    assert f"in use by process {first.pid}" in second.stderr
    assert looked.returncode == 0, looked.stderr
    assert outcome(device) == expected
