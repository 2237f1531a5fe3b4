"""export and import-adapter: versions for PEFT and ONNX Runtime, and back."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime as ort
import pytest
from interop.torch_free import noise

import edgeloop as el
from edgeloop.cli import main
from edgeloop.store import Store


@pytest.fixture
def place(device, monkeypatch):
    """A device whose version 2 is live; returns (program, its adapters)."""
    monkeypatch.chdir(device.folder)
    program = el.load("model.elp")
    adapters = [noise(program, i) for i in (1, 2)]
    with Store.open("device.db") as store:
        for i, a in enumerate(adapters):
            store.commit(a, program_hash=program.hash, parent=i or None, metrics={}, live=True)
    return program, adapters


def json_of(capsys, *args):
    assert main([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, code, *args):
    assert main(list(args)) == code
    return capsys.readouterr().err


NAMES = "--names"


def test_peft_out_and_in(place, capsys):
    program, adapters = place
    said = json_of(capsys, "export", "loop.toml", "-o", "ad")
    assert said == {"output": "ad", "format": "peft", "version": 2}
    read = el.import_peft("ad", program)
    assert all(np.array_equal(read[k], adapters[1][k]) for k in read)
    json_of(capsys, "export", "loop.toml", "-o", "one", "--new", "1")
    made = json_of(capsys, "import-adapter", "one", "loop.toml")
    assert made == {"version": 3, "live": True, "parent": 2}
    with Store.open("device.db", readonly=True) as store:
        assert all(np.array_equal(a, adapters[0][k]) for k, a in store.adapter(3).items())
    aside = json_of(capsys, "import-adapter", "one", "loop.toml", "--aside")
    assert aside["live"] is False


def test_names_go_both_ways(place, capsys):
    json_of(capsys, "export", "loop.toml", "-o", "ad", NAMES, "=net.")
    err = refused(capsys, 7, "import-adapter", "ad", "loop.toml")
    assert "net." in err
    json_of(capsys, "import-adapter", "ad", "loop.toml", NAMES, "=net.")
    assert "LAYER=PATH" in refused(capsys, 2, "export", "loop.toml", "-o", "b", NAMES, "net")


def test_onnx_formats(place, capsys):
    program, adapters = place
    common = ("export", "loop.toml", "--model", "model.onnx")
    for form in ("onnx", "onnx-inputs", "onnx-adapter"):
        json_of(capsys, *common, "--format", form, "-o", f"{form}.out")
    session = el.Session(program)
    session.load_adapter(adapters[1])
    x = np.random.default_rng(0).standard_normal((1, *session_shape(program))).astype("f4")
    want = session.predict(x)
    name = next(iter(program.metadata["inputs"]))
    merged = ort.InferenceSession("onnx.out", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(merged.run(None, {name: x})[0], want, atol=1e-5)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    opened = ort.InferenceSession("onnx-inputs.out", options, providers=["CPUExecutionProvider"])
    held, run = ort.LoraAdapter(), ort.RunOptions()
    held.Load("onnx-adapter.out")
    run.add_active_adapter(held)
    np.testing.assert_allclose(opened.run(None, {name: x}, run)[0], want, atol=1e-5)


def session_shape(program):
    return next(iter(program.metadata["inputs"].values()))["shape"][1:]


def test_what_is_missing_is_named(place, capsys, tmp_path):
    assert "--model" in refused(capsys, 2, "export", "loop.toml", "-o", "m", "--format", "onnx")
    assert "--program" in refused(capsys, 2, "export", "device.db", "-o", "m")
    assert "versions" in refused(capsys, 2, "export", "loop.toml", "-o", "m", "--new", "two")
    assert "adapter_config" in refused(capsys, 7, "import-adapter", str(tmp_path), "loop.toml")


def test_the_shipped_adapter_needs_no_state(device, monkeypatch, capsys):
    monkeypatch.chdir(device.folder)
    said = json_of(capsys, "export", "loop.toml", "-o", "ad", "--new", "shipped")
    assert said["version"] is None
