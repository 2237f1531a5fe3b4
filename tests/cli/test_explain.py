"""calibrate, run --explain, status and SIGTERM: what the loop waits for, why, and what it cost."""

from __future__ import annotations

import itertools
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import edgeloop as el
from edgeloop.cli import calibrate as command
from edgeloop.cli import main
from edgeloop.device import Calibration
from edgeloop.program import Program
from edgeloop.runtime.profile import Profiler
from edgeloop.runtime.work import work
from edgeloop.store import Store

ROOT = Path(__file__).parents[2]
LOOP = """
[model]
program = "machine.elp"
[source]
kind = "csv"
path = "stream.csv"
label = "label"
[trigger.when]
all = [{samples = 60}, {any = [{drift = {of = "error"}}, {loss = {above = 0.1, window = 16}}]}]
[constraints]
requires_charging = true
[gate]
min_samples = 32
[energy]
calibration = "calibration.json"
[pace]
slice_ms = 1
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    runpy.run_path(str(ROOT / "examples/quickstart/make_example.py"))["main"](folder)
    el.compile(
        folder / "machine.onnx", train=el.LoRA(rank=4), optimizer=el.AdamW(lr=5e-3), batch=8,
        classes=["off", "idle", "load", "fault"]).save(folder / "machine.elp")
    return folder


@pytest.fixture
def folder(made, monkeypatch):
    monkeypatch.chdir(made)
    Path("loop.toml").write_text(LOOP)
    for path in made.glob("device.db*"):
        path.unlink()
    assert main(["calibrate", "machine.elp", "--watts", "9", "--idle-watts", "6", "--seconds",
                 "0.2"]) == 0
    return made


def run_json(capsys, *argv):
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_calibrate_writes_what_it_measured(folder, capsys):
    (said,) = run_json(capsys, "calibrate", "machine.elp", "--watts", "7", "--idle-watts", "6",
                       "--seconds", "0.2", "-o", "other.json")
    found = json.loads(Path("other.json").read_text())
    assert found["watts"] == 7
    assert said["joules_per_flop"] == found["joules_per_flop"] > 0
    spent = found["joules_per_flop"] * found["flops_per_second"] + (
        found["joules_per_byte"] * found["bytes_per_second"])
    assert spent == pytest.approx(1.0)


@pytest.fixture
def runs(folder, monkeypatch):
    """Two programs, each of which makes a million runs in ten seconds; gives what one takes."""
    el.compile(
        folder / "machine.onnx", train=el.LoRA(rank=4), optimizer=el.AdamW(lr=5e-3), batch=1,
        classes=["off", "idle", "load", "fault"]).save(folder / "one.elp")
    clock = SimpleNamespace(perf_counter=itertools.count(0, 10).__next__)
    monkeypatch.setattr(command, "time", clock)
    monkeypatch.setattr(Profiler, "profile", lambda *_, **__: SimpleNamespace(runs=10**6))
    return {name: work(Program.load(name), "train", Profiler(Program.load(name)).isa)
            for name in ("machine.elp", "one.elp")}


def calibrated(name, watts, *argv):
    return main(["calibrate", name, "--watts", f"{watts!r}", "--idle-watts", "6", "--seconds", "1",
                 "-o", "both.json", *argv])


def test_calibrate_adds_a_reading_of_another_program(runs, capsys):
    """The meter says what these programs take on a machine whose costs are known."""
    flop, byte = 2e-10, 8e-10
    watts = {name: 6.0 + (flop * w.flops + byte * w.bytes) * 1e5 for name, w in runs.items()}
    assert calibrated("machine.elp", watts["machine.elp"]) == 0
    assert "(taken as 10 operations)" in capsys.readouterr().out
    assert calibrated("one.elp", watts["one.elp"], "--add") == 0
    said = capsys.readouterr().out
    assert "taken as" not in said
    assert re.search(r"joules per byte +8e-10, ±\d+ %", said)
    assert re.search(r"readings +2\n", said)
    made = Calibration.load(Path("both.json"))
    assert made.joules_per_flop == pytest.approx(flop)
    assert made.joules_per_byte == pytest.approx(byte)
    (result,) = run_json(capsys, "calibrate", "one.elp", "--watts", str(watts["one.elp"]),
                         "--idle-watts", "6", "-o", "both.json", "--add")
    assert len(result["others"]) == 2
    assert result["others"][1]["program"] == Program.load("machine.elp").hash


def test_without_add_the_file_is_written_anew(runs):
    assert calibrated("machine.elp", 9.0) == 0
    assert calibrated("one.elp", 9.0) == 0
    assert Calibration.load(Path("both.json")).others == ()


def test_calibrate_adds_nothing_where_that_tells_nothing(runs, capsys):
    assert calibrated("machine.elp", 9.0) == 0
    before = Path("both.json").read_bytes()
    capsys.readouterr()
    assert calibrated("machine.elp", 9.0, "--add") == 2
    assert "too alike" in capsys.readouterr().err
    assert calibrated("one.elp", 6.0001, "--add") == 2
    assert "would cost -" in capsys.readouterr().err
    assert Path("both.json").read_bytes() == before
    assert main(["calibrate", "one.elp", "--watts", "9", "--idle-watts", "6", "-o", "no.json",
                 "--add"]) == 5
    assert "no.json: cannot be read" in capsys.readouterr().err
    assert not Path("no.json").exists()


@pytest.mark.parametrize("argv", [
    [], ["--watts", "9"], ["--watts", "5", "--idle-watts", "6"],
    ["--watts", "9", "--idle-watts", "6", "--seconds", "0"]])
def test_calibrate_refuses(folder, argv, capsys):
    capsys.readouterr()
    assert main(["calibrate", "machine.elp", *argv]) == 2
    assert capsys.readouterr().err.startswith("edgeloop: error: --")


def test_run_explains_and_status_tells_the_cost(folder, capsys):
    events = run_json(capsys, "run", "loop.toml", "--explain")
    waits = [e["why"] for e in events if e["event"] == "waits"]
    assert waits[0][0] == "waits for: all of"
    assert any("samples: " in line for line in waits[0])
    assert 1 < len(waits) < 60, "said when something changed, not at each of 600 records"
    job = next(e for e in events if e["event"] == "job")
    assert job["why"][0] == "trains: all of"
    ended = [e for e in events if e["event"] in ("promoted", "rejected")]
    assert all(e["joules"] > 0 and e["bytes"] > 0 for e in ended if e["seconds"] > 0)
    (status,) = run_json(capsys, "status", "loop.toml")
    assert status["waits_for"][0].startswith("waits for")
    assert status["counts"]["accepted"] == 600
    assert "J (model, above idle, ±" in status["last_update"]["said"]
    assert status["readings"]["storage_low"]["source"]
    with Store.open("device.db", readonly=True) as store:
        started = [e for e in store.events(1000) if e.kind == "started"]
    assert all(e.detail["why"] for e in started)


def test_without_a_meter_an_update_that_never_trained_has_no_energy_either(folder, capsys):
    Path("loop.toml").write_text(LOOP.replace('calibration = "calibration.json"', 'meter = "none"')
                                 .replace("samples = 60", "samples = 20"))
    run_json(capsys, "run", "loop.toml")
    with Store.open("device.db", readonly=True) as store:
        ended = [e.detail for e in store.events(1000) if e.kind in ("promoted", "rejected")]
    assert any(d["steps"] for d in ended)
    assert {d["cost"]["joules"] for d in ended} == {None}
    assert {d["cost"]["joules_source"] for d in ended} == {"switched off"}
    (status,) = run_json(capsys, "status", "loop.toml")
    assert "energy unknown (switched off)" in status["last_update"]["said"]


def test_without_explain_what_is_waited_for_is_not_said(folder, capsys):
    events = run_json(capsys, "run", "loop.toml")
    assert "waits" not in {e["event"] for e in events}


def test_sigterm_ends_a_run_in_order_and_the_next_one_goes_on(folder):
    Path("loop.toml").write_text(
        LOOP.replace('kind = "csv"\npath = "stream.csv"\nlabel = "label"', 'kind = "stdin"'))
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
            [sys.executable, "-m", "edgeloop", "run", "loop.toml", "--json"], env=env,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        child.stdin.write('{"x": [0,0,0,0,0,0,0,0,0,0,0,0], "y": 1}\n' * 3)
        child.stdin.flush()
        assert json.loads(child.stdout.readline())["event"] == "start"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not (folder / "device.db").exists():
            time.sleep(0.05)
        time.sleep(0.3)
        child.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        child.stdin.write('{"x": [0,0,0,0,0,0,0,0,0,0,0,0], "y": 1}\n')  # what it waited for
        child.stdin.close()
        lines = [json.loads(line) for line in child.stdout]
        child.wait(30)
    report = next(e for e in lines if e["event"] == "report")
    assert child.returncode == 0
    assert report["ended"] == "stopped"
    assert report["items"] == 4
    with Store.open("device.db", readonly=True) as store:
        assert json.loads(store.kv("loop"))["cursor"] == 4
