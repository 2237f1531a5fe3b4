"""status, versions, rollback, diff, pack, apply, uninstall, doctor: what they print and return."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from edgeloop import delta, errors
from edgeloop.cli import main
from edgeloop.cli.exits import CODES, exit_code
from edgeloop.cli.output import show
from edgeloop.store import Job, Sample, Store

HASH = "ab" * 32


def weights(value):
    return {"fc.A": np.full((4, 8), 0.5, "f4"), "fc.B": np.full((3, 4), value, "f4")}


def commit(store, value, parent=None, *, live=True):
    metrics = {"loss": value / 2, "samples": 32, "data_sha256": "00ff"}
    return store.commit(
        weights(value), program_hash=HASH, parent=parent, metrics=metrics, live=live
    )


@pytest.fixture
def state(tmp_path):
    with Store.open(tmp_path / "device.db") as store:
        commit(store, 1)
        commit(store, 2, 1)
        store.put_samples([Sample("gate", np.ones(3, "f4"), 1, "k")])
        store.save_job(Job(HASH, 2, b"s", b"r", {"epoch": 3}, [], "ref"))
        store.event("promoted", {"version": 2})
    return str(tmp_path / "device.db")


def run_json(capsys, *argv):
    status = main([*argv, "--json"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    return status, json.loads(lines[0])


def refused(capsys, status, *argv):
    """The one line of a command that must fail with this status."""
    assert main(list(argv)) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"edgeloop: error: [^\n]+\n", captured.err)
    return captured.err


def test_status(state, capsys):
    status, value = run_json(capsys, "status", state)
    assert status == 0
    assert value["live"]["id"] == 2
    assert value["samples"] == {"gate": 1}
    assert value["job"]["cursor"] == {"epoch": 3}
    assert value["events"][-1]["kind"] == "promoted"
    assert len(value["device_id"]) == 32
    assert main(["status", state]) == 0
    text = capsys.readouterr().out
    assert "version 2" in text
    assert "goes on with the next run" in text


def test_versions_and_rollback(state, capsys):
    _, value = run_json(capsys, "versions", state)
    assert [(v["id"], v["live"], v["parent"]) for v in value["versions"]] == [
        (1, False, None),
        (2, True, 1),
    ]
    assert main(["versions", state]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["id", "live", "parent"]
    assert run_json(capsys, "rollback", state) == (0, {"from": 2, "live": 1})
    assert "no parent" in refused(capsys, 4, "rollback", state)
    assert run_json(capsys, "rollback", state, "--to", "2") == (0, {"from": 1, "live": 2})
    assert "no version 9" in refused(capsys, 4, "rollback", state, "--to", "9")


def test_diff(state, capsys):
    _, value = run_json(capsys, "diff", state)
    changed = {t["tensor"]: (t["changed"], t["max"]) for t in value["tensors"]}
    assert changed == {"fc.A": (0, 0.0), "fc.B": (12, 1.0)}
    assert main(["diff", state, "--old", "2", "--new", "1"]) == 0
    assert "version 2 -> version 1" in capsys.readouterr().out
    assert "not a version" in refused(capsys, 2, "diff", state, "--old", "x")
    assert "name the program" in refused(capsys, 2, "diff", state, "--old", "shipped")


def test_pack_and_apply_on_another_device(state, tmp_path, capsys):
    package = str(tmp_path / "update.eld")
    status, value = run_json(capsys, "pack", state, "-o", package)
    assert status == 0
    assert value["metadata"]["samples"] == 32
    assert "data_sha256" not in value["metadata"]
    assert len(value["metadata"]["data_hmac"]) == 64
    assert run_json(capsys, "inspect", package)[1]["kind"] == "delta package"

    other = str(tmp_path / "other.db")
    with Store.open(other) as store:
        commit(store, 1)
    assert run_json(capsys, "apply", package, other) == (
        0,
        {"version": 2, "live": True, "parent": 1, "action": "live"},
    )
    with Store.open(other) as store:
        assert (store.adapter(2)["fc.B"] == 2).all()
    assert "already version 2" in refused(capsys, 7, "apply", package, other)


def test_apply_refuses_and_changes_nothing(state, tmp_path, capsys):
    package = tmp_path / "update.eld"
    parent = weights(5)
    package.write_bytes(delta.pack(parent, weights(6), {"program_hash": HASH}))
    assert "--program" in refused(capsys, 2, "apply", str(package), state)
    package.write_bytes(delta.pack(weights(2), weights(6), {"program_hash": "cd" * 32}))
    assert "for program cdcd" in refused(capsys, 7, "apply", str(package), state)
    package.write_bytes(package.read_bytes()[:-1] + b"\0")
    assert "changed on the way" in refused(capsys, 7, "apply", str(package), state)
    assert "cannot be read" in refused(capsys, 7, "apply", str(tmp_path / "none"), state)
    with Store.open(state) as store:
        assert [v.id for v in store.versions()] == [1, 2]


def test_apply_aside(state, tmp_path, capsys):
    package = tmp_path / "update.eld"
    package.write_bytes(delta.pack(weights(2), weights(3), {"program_hash": HASH}))
    assert run_json(capsys, "apply", str(package), state, "--aside")[1]["live"] is False
    with Store.open(state) as store:
        assert store.live().id == 2


def test_uninstall_lists_then_purges(state, tmp_path, capsys):
    _, value = run_json(capsys, "uninstall", state)
    assert state in value["files"]
    assert (tmp_path / "device.db").exists()
    with Store.open(state):
        assert "in use" in refused(capsys, 4, "uninstall", state, "--purge")
    assert (tmp_path / "device.db").exists()
    assert main(["uninstall", state, "--purge"]) == 0
    assert list(tmp_path.iterdir()) == []
    capsys.readouterr()
    assert "nothing to delete" in refused(capsys, 4, "uninstall", state, "--purge")


def test_purge_refuses_what_is_not_state(tmp_path, capsys):
    notes = tmp_path / "notes.txt"
    notes.write_text("mine\n" * 300)
    assert "not" in refused(capsys, 4, "uninstall", str(notes), "--purge")
    assert notes.exists()


def test_missing_state(tmp_path, capsys):
    missing = str(tmp_path / "none.db")
    for command in ("status", "versions", "rollback", "diff"):
        assert "`edgeloop run` creates it" in refused(capsys, 4, command, missing)
    assert list(tmp_path.iterdir()) == []


def test_errors_are_json_too(tmp_path, capsys):
    assert main(["status", str(tmp_path / "none.db"), "--json"]) == 4
    value = json.loads(capsys.readouterr().out)
    assert value["exit"] == 4
    assert value["kind"] == "StateError"


def test_inspect_of_a_state_file_and_of_nothing(state, tmp_path, capsys):
    assert run_json(capsys, "inspect", state)[1]["versions"] == 2
    assert "No such file" in refused(capsys, 2, "inspect", str(tmp_path / "none.onnx"))


def test_every_error_has_a_code():
    def kinds(kind):
        yield kind
        for child in kind.__subclasses__():
            yield from kinds(child)

    assert {exit_code(kind("x")) for kind in kinds(errors.EdgeLoopError)} == set(range(1, 9))
    assert exit_code(errors.BudgetError("x")) == 6
    assert exit_code(errors.UnsupportedError("x")) == CODES[errors.ModelError]


def test_usage_error_is_two(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fly"])
    assert stop.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_names_cannot_write_control_characters():
    assert show("a\x1b[31mb\n") == "a?[31mb?"


def test_doctor(tmp_path, capsys):
    status, value = run_json(capsys, "doctor", str(tmp_path))
    found = {f["name"]: f for f in value["findings"]}
    assert found["state"]["ok"]
    assert found["disk"]["ok"]
    assert status == (0 if value["ok"] else 1)
    assert list(tmp_path.iterdir()) == []
    assert run_json(capsys, "doctor", str(tmp_path / "none"))[0] == 1


def test_runs_as_a_process_and_bears_a_closed_pipe(state):
    done = subprocess.run(
        [sys.executable, "-m", "edgeloop", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("edgeloop ")
    shell = f"{sys.executable} -m edgeloop versions {state} | true"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stderr == ""
