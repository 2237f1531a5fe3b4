"""A new program reaches a device, as processes: beside the old one, fitting or left aside."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from edgeloop import delta
from edgeloop.beside import INBOX
from edgeloop.program import Program
from edgeloop.runtime import Session
from edgeloop.store import REBASE, REPORTS, Store
from edgeloop.trust import Trust


def rows(device, count=None):
    """Let the stream end after so many rows of the template's, or have them all."""
    kept = device.folder / "stream.whole"
    if not kept.exists():
        kept.write_text((device.folder / "stream.csv").read_text())
    lines = kept.read_text().splitlines(keepends=True)
    (device.folder / "stream.csv").write_text("".join(lines[:count]))


def set_up(device, *changes):
    """Write loop.toml with pairs of old and new text, each of which must be there."""
    path = device.folder / "loop.toml"
    text = path.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text)


# It learns a little only, or as much as the samples give; RANK_4: it takes no other program.
LITTLE = (("lr = 0.05", "lr = 0.003\ntarget_loss = 1.22"),)
MUCH = (("epochs = 8", "epochs = 30\nearly_stopping = {patience = 10}"),)
RANK_4 = ("[train]", '[train]\nmethod = "lora:rank=4"')


def run(device, *more, **options):
    done = device.run("run", "loop.toml", *more, **options)
    assert done.returncode == 0, done.stderr
    return done


def second_program(device):
    """Another program of the same model, as a later compiler would make it: a larger rank."""
    done = device.run(
        "compile", "model.onnx", "-o", "second.elp", "--classes", "idle,drill,mill,saw",
        "--train", "lora:rank=8", "--optimizer", "adamw:lr=0.01")
    assert done.returncode == 0, done.stderr
    return device.folder / "second.elp"


def put_program(device, fleet, program, sequence):
    from edgeloop.delta.programs import pack_program

    folder = device.state.with_name(device.state.name + INBOX)
    folder.mkdir(exist_ok=True)
    pack_program(program, folder / f"{sequence}.edl", signers=[fleet.release_key],
                 sequence=sequence, audience="fleet:press", created=1.8e9)


def enrol(device, fleet):
    with Store.open(device.state) as store:
        delta.note(store, Trust.enroll(store.path, fleet.root))


def begun(device, fleet, count):
    """Run over so many rows, then enrol."""
    rows(device, count)
    run(device)
    enrol(device, fleet)


def test_a_new_base_is_learnt_on_beside_the_old_one(device, fleet):
    set_up(device, *LITTLE)
    begun(device, fleet, 100)
    with Store.open(device.state, readonly=True) as store:
        mine = store.live()
        assert mine.metrics.get("kind") != "shipped"
    program = second_program(device)
    put_program(device, fleet, program, 1)
    rows(device)
    set_up(device, *((new, old) for old, new in LITTLE), *MUCH)
    run(device)
    new = Program.load(program)
    with Store.open(device.state, readonly=True) as store:
        live = store.live()
        assert live.program_hash == new.hash
        line, at = [], live
        while at.parent is not None:
            at = store.version(at.parent)
            line.append((at.program_hash == new.hash, at.lineage))
        assert (True, "fleet") in line
        Session(new).load_adapter(store.adapter(live.id))
    # It serves by the new one, and goes back to the old pair.
    first = device.run("predict", "loop.toml", "stream.csv", "--json")
    assert first.returncode == 0, first.stderr
    assert device.run("rollback", "loop.toml", "--to", str(mine.id)).returncode == 0
    again = device.run("predict", "loop.toml", "stream.csv", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["version"] == mine.id
    run(device)


# Tells at the end how much the process took at most.
PEAK = """
import atexit
from edgeloop.loop.budget import resident_bytes
atexit.register(lambda: open("peak", "w").write(str(resident_bytes("VmHWM"))))
"""


def test_the_plan_counts_what_signatures_take(device, fleet):
    """A process that takes releases in stays within its plan."""
    plan = json.loads(device.run("plan", "loop.toml", "--json").stdout)
    assert "signatures" not in {i["name"] for i in plan["items"]}
    begun(device, fleet, 160)
    plan = json.loads(device.run("plan", "loop.toml", "--json").stdout)
    assert "signatures" in {i["name"] for i in plan["items"]}
    with Store.open(device.state, readonly=True) as store:
        live = store.live()
        changed = {n: a + np.float32(0.01) for n, a in store.adapter(live.id).items()}
        package = fleet.pack(None, changed, 1, program=live.program_hash)
    folder = device.state.with_name(device.state.name + INBOX)
    folder.mkdir()
    (folder / "1.edl").write_bytes(package)
    rows(device)
    run(device, "--quiet", prelude=PEAK)
    assert not list(folder.glob("*"))
    assert int((device.folder / "peak").read_text()) <= 1.05 * plan["total"]


@pytest.mark.parametrize("learnt", [True, False])
def test_a_program_that_does_not_do_what_the_device_is_set_up_for(device, fleet, learnt):
    """Signed by mistake: whatever arrives, the loop starts and serves what it had."""
    set_up(device, RANK_4)
    begun(device, fleet, 160 if learnt else 20)
    with Store.open(device.state, readonly=True) as store:
        mine = store.live().id
    put_program(device, fleet, second_program(device), 1)
    rows(device, 200 if learnt else 25)
    for _ in range(2):
        run(device)
    with Store.open(device.state, readonly=True) as store:
        assert store.live().program_hash == store.version(mine).program_hash
        assert json.loads(store.kv(REPORTS)) == [[1, "taken"], [1, "regressed"]]


def test_a_program_that_arrives_while_the_loop_runs_fits_the_budget_that_it_fits(device, fleet):
    """The process goes on with the new program; what the old one left in memory is not counted."""
    begun(device, fleet, 20)
    put_program(device, fleet, second_program(device), 1)
    rows(device, 60)
    needs = json.loads(device.run("plan", "loop.toml", "--json").stdout)["total"]
    set_up(device, ("[state]", f"[budget]\nram = {needs + (2 << 20)}\n[state]"))
    run(device)
    with Store.open(device.state, readonly=True) as store:
        assert store.live().lineage == "fleet"
        assert json.loads(store.kv(REPORTS)) == [[1, "taken"]]


def test_planning_changes_nothing(device, fleet):
    installed(device, fleet)
    set_up(device, RANK_4)
    with Store.open(device.state, readonly=True) as store:
        before = store.live()
    assert device.run("plan", "loop.toml").returncode == 0
    with Store.open(device.state, readonly=True) as store:
        assert store.live() == before


def installed(device, fleet):
    """A device that learnt nothing and took a program: it is live."""
    begun(device, fleet, 20)
    put_program(device, fleet, second_program(device), 1)
    run(device)
    (path,) = device.state.with_name("device.db.programs").glob("*.elp")
    return path


def test_an_installed_program_that_rots_is_gone_back_from(device, fleet):
    path = installed(device, fleet)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    run(device)
    with Store.open(device.state, readonly=True) as store:
        assert store.live().id == 1
        assert "damaged" in store.events()[-1].detail["reason"]


def test_programs_that_no_version_needs_are_deleted(device, fleet):
    path = installed(device, fleet)
    run(device)
    assert path.exists()
    assert device.run("rollback", "loop.toml").returncode == 0
    with Store.open(device.state) as store:
        store.drop_kv("before")
        store.gc(keep=1)
        assert store.live().id == 1
        assert [v.id for v in store.versions()] == [1, 2]  # the newest one is kept
        store._drop([2])
    run(device)
    assert not path.exists()


def test_nothing_of_a_live_stream_is_lost_when_the_program_changes(device, fleet):
    """A queue is handed on to the loop that follows, and both are one run."""
    set_up(device, ('kind = "csv"\npath = "stream.csv"\nlabel = "label"',
                    'kind = "stdin"\nrealtime = true\n[buffer]\ncapacity = 4096'))
    rng = np.random.default_rng(0)
    lines = "".join(
        json.dumps({"x": rng.normal(size=16).tolist(), "y": int(rng.integers(4))}) + "\n"
        for _ in range(300))
    enrol(device, fleet)
    put_program(device, fleet, second_program(device), 1)
    done = subprocess.run(
        device.command("run", "loop.toml", "--json"), cwd=device.folder, input=lines, text=True,
        env=device.environment(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert "program" in {json.loads(line).get("event") for line in done.stdout.splitlines()}
    assert (report["items"], report["overruns"], report["bad"]) == (300, 0, 0)
    assert report["accepted"] == 300


def test_a_base_that_takes_other_inputs_is_given_up(device, fleet):
    """It can neither serve here nor learn from the samples: left aside, once, and reported."""
    begun(device, fleet, 160)
    with Store.open(device.state, readonly=True) as store:
        mine = store.live().id
    done = device.run(
        "compile", "model.onnx", "-o", "other.elp", "--classes", "a,b,c,d", "--train", "bias")
    assert done.returncode == 0, done.stderr
    put_program(device, fleet, device.folder / "other.elp", 1)
    rows(device, 200)
    run(device)
    with Store.open(device.state, readonly=True) as store:
        assert store.live().program_hash == store.version(mine).program_hash
        assert [e.kind for e in store.events()].count("given_up") == 1
        assert json.loads(store.kv(REPORTS)) == [[1, "taken"], [1, "regressed"]]


# A rebase onto another program, killed at its first checkpoint.
KILL_IN_A_REBASE = """
import os, signal
from edgeloop.store import Store
save = Store.save_job
def fatal(self, job):
    save(self, job)
    if job.cursor.get("onto") is not None:
        self._db.query("COMMIT")
        os.kill(os.getpid(), signal.SIGKILL)
Store.save_job = fatal
"""


def test_a_rebase_onto_a_new_base_goes_on_after_a_kill(device, fleet):
    """The old program serves until the very end, in the process that resumes too."""
    set_up(device, *LITTLE)
    begun(device, fleet, 100)
    program = second_program(device)
    put_program(device, fleet, program, 1)
    set_up(device, *((new, old) for old, new in LITTLE), *MUCH)
    assert device.run("run", "loop.toml", prelude=KILL_IN_A_REBASE).returncode < 0
    with Store.open(device.state, readonly=True) as store:
        assert store.has_job()
    done = run(device, "--json")
    assert json.loads(done.stdout.splitlines()[-1])["resumed"]
    with Store.open(device.state, readonly=True) as store:
        assert store.live().program_hash == Program.load(program).hash
    assert device.run("predict", "loop.toml", "stream.csv").returncode == 0


def test_a_rebase_whose_release_was_replaced_meanwhile_is_dropped(device, fleet):
    begun(device, fleet, 160)
    put_program(device, fleet, second_program(device), 1)
    rows(device, 200)
    assert device.run("run", "loop.toml", prelude=KILL_IN_A_REBASE).returncode < 0
    with Store.open(device.state) as store:
        assert store.has_job()
        store.drop_kv(REBASE)  # as a newer release for the old program would
    run(device)
    with Store.open(device.state, readonly=True) as store:
        assert not store.has_job()
        assert store.live().lineage == "local"


def test_a_new_base_where_nothing_was_learnt_is_live_at_once(device, fleet):
    set_up(device, ("samples = 32", "samples = 9999"))
    begun(device, fleet, 40)
    put_program(device, fleet, second_program(device), 1)
    rows(device)
    set_up(device, ("samples = 9999", "samples = 32"))
    run(device)
    with Store.open(device.state, readonly=True) as store:
        new = Program.load(device.folder / "second.elp").hash
        assert [v.program_hash == new for v in store.versions()][:2] == [False, True]
        assert store.live().program_hash == new
        assert store.live().id > 2  # and it learnt on
