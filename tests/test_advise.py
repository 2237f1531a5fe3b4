"""Advice on how far down to train: exact plans, measured or estimated times."""

from __future__ import annotations

import json

import onnx
import pytest
from models.vit import vit
from models.zoo import ZOO

import edgeloop as el
from edgeloop.advise import CUT, advise
from edgeloop.cli import main
from edgeloop.passes.layers import blocks_of, depths

SMALL = {"image": 16, "patch": 4, "width": 24, "heads": 2, "blocks": 3}


def test_blocks_are_paths_up_to_a_number():
    names = ["stem", "layer.0.q", "layer.0.mlp.1.up", "layer.1.q", "layer1.0.conv", "fc1", "fc2"]
    assert blocks_of(names) == [
        ["stem"], ["layer.0.q", "layer.0.mlp.1.up"], ["layer.1.q"], ["layer1.0.conv"], ["fc1"],
        ["fc2"]]


@pytest.mark.parametrize(("count", "wanted"), [
    (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (12, [1, 2, 3, 4, 6, 12]), (14, [1, 2, 4, 5, 7, 14])])
def test_a_handful_of_depths(count, wanted):
    assert depths(count) == wanted


def test_a_transformer():
    model = vit(**SMALL)
    found = advise(model, batch=4, rank=2)
    every = found["choices"]
    assert (found["blocks"], [c["blocks"] for c in every]) == (5, [1, 2, 5])
    assert [c["lowest"] for c in every] == ["head", "blocks.2.q", "patches"]
    for name in ("trainable", "step_flops"):
        assert [c[name] for c in every] == sorted({c[name] for c in every})
    assert all(c["timing"] == "measured" and c["step_seconds"] > 0 for c in every)
    head, block, whole = (c["cut"] for c in every)
    assert head["sample_bytes"] < block["sample_bytes"]
    assert head["step_flops"] < block["step_flops"] < every[1]["step_flops"]
    assert whole is None
    assert "the model's first layers train" in every[2]["no_cut"]


def test_the_plan_is_that_of_the_program():
    model = ZOO["mlp"].build()
    found = advise(model, batch=4, rank=2)["choices"][0]
    program = el.compile(model, train=el.LoRA(2, targets=found["targets"]), batch=4,
                         entries=("train", "eval", "predict", *CUT))
    assert found["ram_bytes"] == program.plan.ram_bytes
    assert found["cut"]["sample_bytes"] == program.metadata["cut"]["sample_bytes"]


def test_without_time_to_run_them_steps_are_estimated():
    found = advise(vit(**SMALL), batch=4, seconds=0)
    first, *rest = found["choices"]
    assert first["timing"] == "measured"
    assert found["rate"] == first["step_flops"] / first["step_seconds"]
    for c in rest:
        assert c["timing"] == "estimated"
        assert c["step_seconds"] == c["step_flops"] / found["rate"]


def test_the_command(tmp_path, capsys):
    path = str(tmp_path / "vit.onnx")
    onnx.save(vit(**SMALL), path)
    assert main(["plan", path, "--advise", "--batch", "4", "--rank", "2"]) == 0
    text = capsys.readouterr().out
    assert [line.split()[:4] for line in text.splitlines()[1:4]] == [
        ["1", "of", "5", "head"], ["2", "of", "5", "blocks.2.q"], ["5", "of", "5", "patches"]]
    assert "least of three runs on this machine" in text
    assert "note: last 5: the model's first layers train" in text
    assert main(["plan", path, "--advise", "--batch", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["choices"][1]["lowest"] == "blocks.2.q"
    assert main(["plan", path]) == 2
    assert "add --advise" in capsys.readouterr().err
