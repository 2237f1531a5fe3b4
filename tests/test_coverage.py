"""What `edgeloop inspect` says about a model before anything is compiled for good."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from interop.torch_free import model
from onnx import helper

import edgeloop as el
from edgeloop import coverage as cov
from edgeloop.cli.main import main

GOLDEN = Path(__file__).parent / "golden" / "onnx"


def test_places_and_costs_of_an_attention_block():
    path = GOLDEN / "attention.script.onnx"
    found = cov.coverage(path, batch=4)
    json.dumps(found)
    assert found["methods"]["LoRA"]["count"] == 5
    assert found["methods"]["Adapter"]["examples"] == ["out.2"]
    assert found["methods"]["LoRA by name only"]["reason"]
    assert found["advice"] == found["no_gradient"] == []
    costs = {c["train"]: c for c in found["choices"]}
    assert costs["LoRA(rank=4) on queries and values"]["trainable"] == 2 * 4 * 16
    plan = el.compile(path, batch=4, predict_batch=4, entries=("train", "predict")).plan
    assert costs["LoRA(rank=4)"]["ram_bytes"] == plan.ram_bytes
    assert costs["Full()"]["share"] == 1.0


def test_batch_norms_block_nothing_and_grouped_layers_are_named():
    found = cov.coverage(GOLDEN / "separable.script.onnx", plans=False)
    assert found["no_gradient"] == []
    assert found["methods"]["LoRA by name only"]["examples"] == ["features.1.0"]
    assert found["choices"] == []


def test_a_batch_that_cannot_change_is_kept():
    found = cov.coverage(GOLDEN / "attention.fixed.onnx", batch=8)
    assert found["error"] is None
    assert all("error" not in c for c in found["choices"])


@pytest.fixture
def rounded(tmp_path):
    """Two layers, a comparison, two layers."""
    rng = np.random.default_rng(0)
    names = ["a", "b", "c", "d"]
    w = {f"{n}.weight": rng.standard_normal((4, 4)).astype(np.float32) for n in names}
    nodes, x = [], "x"
    for n in names:
        nodes.append(helper.make_node("Gemm", [x, f"{n}.weight"], [n], name=f"/{n}/Gemm", transB=1))
        x = n
        if n == "b":
            nodes.append(helper.make_node("Greater", [x, "zero"], ["g"], name="/q/Greater"))
            nodes.append(helper.make_node("Cast", ["g"], ["r"], name="/q/Cast", to=1))
            x = "r"
    w["zero"] = np.float32(0)
    onnx.save(model(nodes, w, [2, 4], "d", [2, 4]), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_layers_below_a_node_without_gradient_are_named(rounded):
    found = cov.coverage(rounded, batch=2)
    assert [(n["op"], n["layers_below"]) for n in found["no_gradient"]] == [
        ("compare", ["a", "b"])]
    assert found["trainable_layers"] == ["c", "d"]
    assert "below it a, b cannot train" in found["advice"][0]
    assert found["advice"][-1] == 'el.LastLayers(2) or targets=("c", "d") works'
    assert all("error" not in c for c in found["choices"])  # what is planned can train
    el.compile(rounded, loss="mse", train=el.LastLayers(2), batch=2)  # and the advice is true
    with pytest.raises(el.CompileError, match="does not depend on b"):
        el.compile(rounded, loss="mse", train=el.LastLayers(3), batch=2)


def test_slow_plans_become_estimates_that_hold(monkeypatch):
    path = GOLDEN / "attention.dynamo.onnx"
    real = {c["train"]: c for c in cov.coverage(path, batch=4)["choices"]}
    now = iter([0.0, *([0.0] * 3), *([9.0] * 99)])
    monkeypatch.setattr(cov.time, "perf_counter", lambda: next(now))
    found = {c["train"]: c for c in cov.coverage(path, batch=4)["choices"]}
    first = found.pop("LoRA(rank=4)")
    assert first["ram_bytes"] == real["LoRA(rank=4)"]["ram_bytes"]
    assert "not planned" in found.pop("Full()")["error"]
    assert len(found) == 3
    for name, c in found.items():
        assert c["at_most_bytes"] == first["ram_bytes"] >= real[name]["ram_bytes"]


def test_without_time_nothing_is_planned(capsys):
    found = cov.coverage(GOLDEN / "mlp.script.onnx", seconds=-1.0)
    assert all("not planned" in c["error"] for c in found["choices"])


def test_inspect_prints_it(rounded, capsys):
    assert main(["inspect", str(rounded), "--batch", "2"]) == 0
    text = capsys.readouterr().out
    assert "el.LastLayers(2)" in text
    assert "LoRA(rank=4)" in text
    assert main(["inspect", str(rounded), "--no-plans", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["choices"] == []


def test_compile_says_what_compiling_took(rounded, tmp_path, capsys):
    out = str(tmp_path / "m.elp")
    args = ["compile", str(rounded), "-o", out, "--loss", "mse", "--train", "last:count=2"]
    assert main([*args, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert 0 < said["compile_seconds"] < 600
    assert said["compile_peak_bytes"] > 1 << 20
