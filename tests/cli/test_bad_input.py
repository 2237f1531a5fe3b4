"""Bad input through the command line: one line, the right exit status, nothing lost."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from edgeloop.cli import main
from edgeloop.store import Store


@pytest.fixture
def here(device, monkeypatch):
    """A fresh device as the current folder."""
    monkeypatch.chdir(device.folder)
    return device.folder


def refused(capsys, status, *argv):
    """Run a command that must fail with this status; return its one line."""
    assert main([str(arg) for arg in argv]) == status, capsys.readouterr()
    error = capsys.readouterr().err
    assert re.fullmatch(r"edgeloop: error: [^\n]+\n", error), error
    return error


def compile_(*more, model="model.onnx"):
    return ["compile", model, "-o", "new.elp", *more]


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# Models


@pytest.mark.parametrize("size", [0, 1, 40, 900])
def test_truncated_model(here, capsys, size):
    content = (here / "model.onnx").read_bytes()
    (here / "cut.onnx").write_bytes(content[:size])
    assert "cut.onnx" in refused(capsys, 3, *compile_(model="cut.onnx"))
    assert not (here / "new.elp").exists()


def test_modified_model(here, capsys):
    """Whatever bytes change: refused in one line, or still a model."""
    content = (here / "model.onnx").read_bytes()
    for place in range(0, len(content), len(content) // 60):
        bad = bytearray(content)
        bad[place] ^= 0x5A
        (here / "bad.onnx").write_bytes(bad)
        status = main(compile_(model="bad.onnx"))
        error = capsys.readouterr().err
        assert status in (0, 3), (place, error)
        assert status == 0 or re.fullmatch(r"edgeloop: error: [^\n]+\n", error), (place, error)


def test_not_a_model(here, capsys):
    for command in (["inspect", "stream.csv"], compile_(model="stream.csv")):
        assert "stream.csv" in refused(capsys, 3, *command)


def test_missing_model(here, capsys):
    assert "none.onnx" in refused(capsys, 3, *compile_(model="none.onnx"))


def test_unsupported_operator_is_named_with_its_node(here, capsys):
    import onnx

    model = onnx.load(here / "model.onnx")
    model.graph.node[1].op_type = "Hardmax"
    onnx.save(model, here / "odd.onnx")
    for command in (compile_(model="odd.onnx"), ["inspect", "odd.onnx"]):
        error = refused(capsys, 3, *command)
        assert "Hardmax" in error
        assert "act" in error


@pytest.mark.parametrize(
    ("status", "options", "says"),
    [
        (6, ["--budget", "1 KiB"], "budget"),
        (3, ["--classes", "a,b"], "2 class names"),
        (3, ["--train", "magic"], "magic"),
        (3, ["--train", "lora:rank=0"], "rank"),
        (3, ["--train", "lora:rnk=4"], "'lora' has no option rnk; it has rank, alpha, targets"),
        (3, ["--train", "lora:targets=nowhere"], "nowhere"),
        (3, ["--loss", "hinge"], "hinge"),
        (3, ["--optimizer", "sgd:lr"], "lr"),
        (3, ["--entries", "fly"], "fly"),
        (3, ["--batch", "0"], "batch"),
        (3, ["--threads", "0"], "threads=0"),
        (3, ["--seed", "-1"], "seed=-1"),
        (3, ["--budget", "much"], "'much' is not a size"),
        (3, ["--resident", "much"], "'much' is not a size"),
        (3, ["--resident", "8 B"], "or more"),
        (3, ["--isa", "sse9"], "sse9"),
        (3, ["--shapes", "time=4"], "time"),
        (2, ["--shapes", "x"], "NAME=SIZE"),
        (2, ["--classes", "a,a,b,c"], "twice"),
        (2, ["--features", "stream.csv"], "neither TOML nor JSON"),
        (2, ["--features", "none.toml"], "none.toml"),
    ],
)
def test_options_that_do_not_fit(here, capsys, status, options, says):
    assert says in refused(capsys, status, *compile_(*options))
    assert not (here / "new.elp").exists()


def test_output_folder_is_missing(here, capsys):
    assert "create it" in refused(capsys, 2, "compile", "model.onnx", "-o", "no/new.elp")


# Programs


@pytest.mark.parametrize(
    "command",
    [
        ["run", "loop.toml"],
        ["inspect", "model.elp"],
        ["plan", "model.elp"],
        ["predict", "model.elp", "stream.csv"],
    ],
)
def test_damaged_program(here, capsys, command):
    content = (here / "model.elp").read_bytes()
    for damaged in (content[: len(content) // 2], content[:7], b"", content + b"x"):
        (here / "model.elp").write_bytes(damaged)
        assert "model.elp" in refused(capsys, 3, *command)
    assert not (here / "device.db").exists()


def test_modified_program(here, capsys):
    """Whatever byte changes: refused, or still a program that runs."""
    content = (here / "model.elp").read_bytes()
    for place in range(0, len(content), len(content) // 60):
        bad = bytearray(content)
        bad[place] ^= 0x41
        (here / "model.elp").write_bytes(bad)
        status = main(["predict", "model.elp", "stream.csv", "--source", "label=label"])
        error = capsys.readouterr().err
        assert status in (0, 2, 3, 5), (place, error)
        assert status == 0 or re.fullmatch(r"edgeloop: error: [^\n]+\n", error), (place, error)


def test_program_changes_while_it_runs(here, device):
    """A running process keeps the bytes it checked; the next one refuses the damaged file."""
    rows = (here / "stream.csv").read_text().splitlines()[1:]
    edit(here / "loop.toml", 'kind = "csv"\npath = "stream.csv"\nlabel = "label"',
         'kind = "stdin"')
    lines = []
    for row in rows:
        *x, label = row.split(",")
        lines.append(json.dumps({"x": [float(v) for v in x], "y": label}) + "\n")
    running = subprocess.Popen(
        device.command("run", "loop.toml", "--json"), cwd=here, env=device.environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    running.stdin.writelines(lines[:20])
    running.stdin.flush()
    assert json.loads(running.stdout.readline())["event"] == "start"
    good = (here / "model.elp").read_bytes()
    with (here / "model.elp").open("r+b") as file:  # in place, as a map would see it
        file.truncate(100)
    out, error = running.communicate("".join(lines[20:]))
    assert running.returncode == 0, error
    assert json.loads(out.splitlines()[-1])["items"] == len(lines)
    done = device.run("run", "loop.toml")
    assert done.returncode == 3
    assert re.fullmatch(r"edgeloop: error: [^\n]*model.elp[^\n]+\n", done.stderr), done.stderr
    (here / "model.elp").write_bytes(good)
    kept = device.run("versions", "loop.toml", "--json")
    assert kept.returncode == 0, kept.stderr
    promoted = json.loads(out.splitlines()[-1])["promoted"]
    assert promoted >= 1
    assert len(json.loads(kept.stdout)["versions"]) == promoted + 1  # and the shipped one


def test_state_of_another_program(here, capsys):
    assert main(["run", "loop.toml", "--quiet", "--until", "20"]) == 0
    assert main(["compile", "model.onnx", "-o", "model.elp", "--seed", "1"]) == 0
    capsys.readouterr()
    assert "belongs to program" in refused(capsys, 4, "run", "loop.toml", "--quiet")
    assert main(["status", "loop.toml"]) == 0


# Data


def test_nan_in_data_stops_and_goes_on_once_mended(here, capsys):
    lines = (here / "stream.csv").read_text().splitlines()
    good = lines[100]
    lines[100] = "nan," + lines[100].split(",", 1)[1]
    (here / "stream.csv").write_text("\n".join(lines) + "\n")
    error = refused(capsys, 5, "run", "loop.toml", "--quiet")
    assert "row 101" in error
    assert "c0" in error
    lines[100] = good
    (here / "stream.csv").write_text("\n".join(lines) + "\n")
    assert main(["run", "loop.toml", "--quiet"]) == 0
    assert "260 records" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("c0,", "other,c0,", "shape"),
        ("label", "name", "no column"),
        ("saw", "hammer", "hammer"),
        ("\n", "\nx", "not a number"),
    ],
)
def test_data_that_does_not_fit(here, capsys, old, new, says):
    text = (here / "stream.csv").read_text()
    (here / "stream.csv").write_text(text.replace(old, new, 1))
    if says == "shape":
        rows = [f"1,{row}" if i else row for i, row in enumerate(text.splitlines())]
        rows[0] = new + rows[0].removeprefix(old)
        (here / "stream.csv").write_text("\n".join(rows) + "\n")
    assert says in refused(capsys, 5, "run", "loop.toml", "--quiet")


@pytest.mark.parametrize("value", ["nan", "inf", "1e39"])
def test_predict_refuses_what_is_not_finite(here, capsys, value):
    lines = (here / "stream.csv").read_text().splitlines()
    lines[7] = value + "," + lines[7].split(",", 1)[1]
    (here / "bad.csv").write_text("\n".join(lines) + "\n")
    error = refused(capsys, 5, "predict", "model.elp", "bad.csv", "--source", "label=label")
    assert "row 8" in error


def test_predict_input_that_does_not_fit(here, capsys):
    (here / "small.csv").write_text("a,b\n1,2\n")
    assert "shape [2]" in refused(capsys, 5, "predict", "model.elp", "small.csv")
    assert ".npz" in refused(capsys, 2, "predict", "model.elp", "model.onnx")
    assert "KEY=VALUE" in refused(capsys, 2, "predict", "model.elp", "small.csv", "--source", "x")
    assert "unknown key" in refused(
        capsys, 2, "predict", "model.elp", "small.csv", "--source", "colums=3"
    )


# Configuration


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("samples = 32", "sampels = 32", 'did you mean "samples"'),
        ("samples = 32", 'samples = "many"', "trigger.samples"),
        ("[trigger]", "[triger]", 'did you mean "trigger"'),
        ('kind = "csv"', 'kind = "radar"', "radar"),
        ("samples = 32", "samples = ", "not TOML"),
        ("confidence = 0.6", "confidence = 2", "gate.confidence"),
    ],
)
def test_configuration_errors_carry_their_path(here, capsys, old, new, says):
    edit(here / "loop.toml", old, new)
    assert says in refused(capsys, 2, "run", "loop.toml")
    assert not (here / "device.db").exists()


def test_missing_configuration_and_program(here, capsys):
    assert "none.toml" in refused(capsys, 2, "run", "none.toml")
    edit(here / "loop.toml", "model.elp", "none.elp")
    assert "none.elp" in refused(capsys, 3, "run", "loop.toml")


def test_ram_budget_is_refused_before_anything_starts(here, capsys):
    edit(here / "loop.toml", "[state]", '[budget]\nram = "1 MiB"\n[state]')
    assert "budget" in refused(capsys, 6, "run", "loop.toml")
    assert not (here / "device.db").exists()
    assert main(["plan", "loop.toml"]) == 1


# State


def test_disk_full_while_running_then_free_again(new_device, shim):
    """At whatever write the disk fills up: one line, and the next run ends as if nothing was."""
    calm = new_device("calm")
    assert calm.run("run", "loop.toml", "--quiet").returncode == 0
    for at in (2, 60):
        device = new_device(f"full{at}")
        done = device.run(
            *("run", "loop.toml", "--quiet"),
            LD_PRELOAD=shim,
            EL_SHIM_MATCH="device.db",
            EL_SHIM_FULL_AT=str(at),
        )
        assert done.returncode == 4, done.stderr
        assert re.fullmatch(r"edgeloop: error: [^\n]+free disk space\n", done.stderr), done.stderr
        assert device.run("run", "loop.toml", "--quiet").returncode == 0
        with Store.open(device.state) as left, Store.open(calm.state) as right:
            assert [v.sha256 for v in left.versions()] == [v.sha256 for v in right.versions()]


def test_disk_full_while_writing_a_file(new_device, shim):
    """Neither half a program nor half a package is left behind, nor the old one hurt."""
    device = new_device()
    assert device.run("run", "loop.toml", "--quiet").returncode == 0
    pack = ("pack", "loop.toml", "-o", "update.eld", "--old", "shipped")
    for name, command in (("new.elp", compile_()), ("update.eld", pack)):
        (device.folder / name).write_text("the old one")
        done = device.run(*command, LD_PRELOAD=shim, EL_SHIM_MATCH=name, EL_SHIM_FULL_AT="1")
        assert done.returncode != 0
        assert re.fullmatch(r"edgeloop: error: [^\n]+\n", done.stderr), done.stderr
        assert "No space left" in done.stderr
        assert (device.folder / name).read_text() == "the old one"
        assert [p.name for p in device.folder.iterdir() if name in p.name] == [name]


def test_state_path_that_cannot_be(here, capsys):
    (here / "device.db").mkdir()
    assert "device.db" in refused(capsys, 4, "run", "loop.toml", "--quiet")
    (here / "device.db").rmdir()
    (here / "device.db").write_text("my notes, not yours\n" * 50)
    assert "damaged" in refused(capsys, 4, "run", "loop.toml", "--quiet")
    assert (here / "device.db").read_text().startswith("my notes")


def test_two_processes_on_one_state_file(here, capsys):
    assert main(["run", "loop.toml", "--quiet", "--until", "100"]) == 0
    capsys.readouterr()
    with Store.open(here / "device.db") as holder:
        for command in (["run", "loop.toml", "--quiet"], ["rollback", "loop.toml"]):
            error = refused(capsys, 4, *command)
            assert f"in use by process {os.getpid()}" in error
            assert "stop that one first" in error
        assert main(["status", "loop.toml"]) == 0  # looking is allowed
        holder.live()
    capsys.readouterr()
    assert main(["run", "loop.toml", "--quiet"]) == 0
    assert "260 records" in capsys.readouterr().out
