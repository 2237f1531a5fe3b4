"""fit: every way is a compiled plan inside RAM and flash, and the front is a front."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import onnx
import pytest
from models.zoo import ZOO

import edgeloop as el
from edgeloop.cli import main
from edgeloop.fit import fit

WAYS = {"bias": [el.Bias()], "lora:rank=2": [el.LoRA(2)], "last:count=1": [el.LastLayers(1)]}


def beats(a: dict, b: dict) -> bool:
    x, y = ((w["ram_bytes"], w["step_flops"], -w["trainable"]) for w in (a, b))
    return x != y and all(i <= j for i, j in zip(x, y, strict=True))


def test_ways_keep_their_limits_and_the_front_is_one():
    found = fit(ZOO["ds_cnn"].build(), ram="300 KiB", flash="64 KiB", batch=2, train=WAYS)
    ways = found["ways"]
    assert {w["train"] for w in ways} == set(WAYS)
    assert len(ways) > len(WAYS)
    for w in ways:
        assert w["ram_bytes"] <= 300 << 10
        assert w["flash_bytes"] <= 64 << 10
        assert w["storage"] != "f32"  # whose file is larger than the flash
        assert w["best"] == (not any(beats(v, w) for v in ways))
    assert 0 < sum(w["best"] for w in ways) < len(ways)


def test_a_way_is_the_program_that_compile_makes():
    model = ZOO["mlp"].build()
    way = fit(model, ram="1 MiB", batch=2, train={"bias": [el.Bias()]})["ways"][-1]
    program = el.compile(model, train=el.Bias(), batch=2, entries=("train", "predict"))
    assert (way["ram_bytes"], way["flash_bytes"], way["step_flops"], way["trainable"]) == (
        program.plan.ram_bytes, program.nbytes, program.plan.step_flops,
        program.plan.trainable_params)


def test_what_does_not_fit_is_said():
    model = ZOO["ds_cnn"].build()
    found = fit(model, ram="180 KiB", batch=1, train=WAYS | {"full": [el.Full()]})
    assert list(found["refused"]) == ["full"]
    assert "184320 bytes" in found["refused"]["full"]
    with pytest.raises(el.BudgetError, match=r"nothing fits 2 KiB of RAM: the smallest plan is"):
        fit(model, ram="2 KiB", batch=1, train=WAYS)


def test_the_command_draws_and_prints(tmp_path, capsys):
    onnx.save(ZOO["mlp"].build(), tmp_path / "m.onnx")
    picture = tmp_path / "fit.svg"
    call = ["fit", str(tmp_path / "m.onnx"), "--ram", "64 KiB", "--batch", "2"]
    assert main([*call, "--plot", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "lora:rank=4" in printed
    assert "*" in printed
    drawn = ET.fromstring(picture.read_text())
    assert main([*call, "--json"]) == 0
    ways = json.loads(capsys.readouterr().out)["ways"]
    assert len(drawn.findall("{http://www.w3.org/2000/svg}circle")) == len(ways)
