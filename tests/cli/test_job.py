"""The whole job through the command line: compile, plan, run, predict, roll back, pack, apply."""

from __future__ import annotations

import json

import pytest

from edgeloop.cli import main


@pytest.fixture
def here(device, monkeypatch):
    """A fresh device as the current folder."""
    monkeypatch.chdir(device.folder)
    return device.folder


def run_json(capsys, *argv):
    status = main([*argv, "--json"])
    values = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert status == 0, values
    return values


def accuracy(capsys, *argv):
    return run_json(capsys, "predict", *argv)[0]["accuracy"]


def test_learning_is_seen_in_predictions_and_undone_by_rollback(here, capsys):
    label = ("--source", "label=label")
    before = accuracy(capsys, "model.elp", "stream.csv", *label)
    assert accuracy(capsys, "loop.toml", "stream.csv") == before
    events = run_json(capsys, "run", "loop.toml")
    assert events[0]["event"] == "start"
    assert {"epoch", "gate", "promoted"} <= {e["event"] for e in events}
    report = events[-1]
    assert report["event"] == "report"
    assert report["promoted"] >= 1
    after = accuracy(capsys, "loop.toml", "stream.csv")
    assert after > before + 0.25
    assert accuracy(capsys, "model.elp", "stream.csv", "--state", "device.db", *label) == after
    assert run_json(capsys, "rollback", "loop.toml", "--to", "1")[0]["live"] == 1
    assert accuracy(capsys, "loop.toml", "stream.csv") == before


def test_pack_travels_to_a_device_that_never_trained(here, new_device, capsys, monkeypatch):
    run_json(capsys, "run", "loop.toml")
    made = run_json(capsys, "pack", "loop.toml", "-o", "update.eld", "--old", "shipped")[0]
    assert set(made["metadata"]) >= {"device_id", "data_hmac", "samples", "training_seconds"}
    learned = accuracy(capsys, "loop.toml", "stream.csv")
    other = new_device("other")
    monkeypatch.chdir(other.folder)
    run_json(capsys, "run", "loop.toml", "--until", "1")
    assert run_json(capsys, "apply", str(here / "update.eld"), "loop.toml")[0]["live"]
    assert accuracy(capsys, "loop.toml", "stream.csv") == learned
    assert run_json(capsys, "diff", "loop.toml", "--old", "shipped")[0]["tensors"]


def test_plan_and_inspect(here, capsys):
    program = run_json(capsys, "inspect", "model.elp")[0]
    assert program["metadata"]["classes"] == ["idle", "drill", "mill", "saw"]
    assert run_json(capsys, "plan", "model.elp")[0] == program["plan"]
    assert run_json(capsys, "plan", "loop.toml")[0]["fits"] is True
    assert run_json(capsys, "inspect", "model.onnx")[0]["layers"]
    assert main(["inspect", "model.onnx"]) == 0
    assert main(["inspect", "model.elp"]) == 0
    assert "fc1" in capsys.readouterr().out


def test_run_goes_on_where_it_stopped(here, capsys):
    assert run_json(capsys, "run", "loop.toml", "--until", "100")[-1]["items"] == 100
    assert run_json(capsys, "run", "loop.toml", "--quiet")[-1]["items"] == 260


def test_discard_job_and_other_state_file(here, capsys):
    report = run_json(capsys, "run", "loop.toml", "--quiet", "--discard-job", "--state", "x.db")[-1]
    assert report["items"] == 260
    assert (here / "x.db").exists()
    assert not (here / "device.db").exists()


def test_records_without_a_label_are_not_dropped_in_silence(here, capsys):
    assert main(["run", "loop.toml", "--until", "5"]) == 0
    assert "without a label" not in capsys.readouterr().out
    lines = (here / "stream.csv").read_text().splitlines()
    lines[6:] = [line.rpartition(",")[0] + "," for line in lines[6:]]
    (here / "stream.csv").write_text("\n".join(lines))
    assert main(["run", "loop.toml"]) == 0
    assert f"{len(lines) - 6} records without a label were not used" in capsys.readouterr().out
