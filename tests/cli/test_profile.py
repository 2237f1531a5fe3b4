"""`edgeloop profile`: what it prints, the trace it writes, and what it refuses."""

from __future__ import annotations

import json

import pytest

from edgeloop.cli import main


@pytest.fixture
def here(device, monkeypatch):
    monkeypatch.chdir(device.folder)
    return device.folder


def test_text_has_operators_steps_and_limits(here, capsys):
    assert main(["profile", "model.elp", "--seconds", "0", "--top", "3"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("model.elp: train, ")
    assert "limit f32: " in text
    assert "limit memory: " in text
    operators, steps = text.split("\n\n")[1:]
    assert operators.splitlines()[-1].split()[:4:3] == ["total", "100.0"]
    assert len(steps.splitlines()) == 1 + 3


def test_json_and_trace_agree(here, capsys):
    argv = ["profile", "model.elp", "--seconds", "0", "--entry", "predict", "--isa", "ref",
            "--threads", "1", "--trace", "t.json", "--json"]
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["entry"], found["isa"], found["trace"]) == ("predict", "ref", "t.json")
    assert sum(s["seconds"] for s in found["steps"]) == pytest.approx(found["totals"]["seconds"])
    assert sum(o["steps"] for o in found["operators"]) == len(found["steps"])
    events = json.loads((here / "t.json").read_text())["traceEvents"]
    assert [e["name"] for e in events if e["ph"] == "X"] == [s["kernel"] for s in found["steps"]]


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (["model.elp", "--entry", "nope"], 2, "no entry 'nope'; it has eval, train, predict"),
        (["model.elp", "--isa", "mmx"], 2, "isa='mmx' is unknown"),
        (["model.elp", "--threads", "9"], 3, "threads=9"),
        (["model.elp", "--trace", "no/such/t.json"], 2, "folder does not exist"),
        (["model.onnx"], 3, "model.onnx"),
        (["none.elp"], 3, "none.elp: cannot read the program"),
    ],
)
def test_errors_are_one_line(here, capsys, argv, status, said):
    assert main(["profile", *argv, "--seconds", "0"]) == status
    error = capsys.readouterr().err
    assert error.startswith("edgeloop: error: ")
    assert error.count("\n") == 1
    assert said in error
