"""What saves memory by itself: the microcontroller target, and a loss over the model's input."""

from __future__ import annotations

import numpy as np
import pytest
from models.zoo import ZOO

import edgeloop as el


def compiled(**options) -> el.Program:
    case = ZOO["ti_ae"]
    return el.compile(case.build(), **({
        "train": el.Bias(), "batch": 4, "optimizer": el.SGD(lr=0.1), "loss": "mse",
        "entries": ("train", "eval")} | options))


def test_a_loss_over_the_input_is_that_with_the_input_as_its_target():
    x, _ = ZOO["ti_ae"].data(ZOO["ti_ae"].build())
    x = x[:4]
    own, fed = compiled(loss=el.loss.MSE(of_input=True)), compiled()
    assert own.plan.io_bytes == fed.plan.io_bytes - 4 * 48 * 4
    one, two = el.Session(own), el.Session(fed)
    assert [one.step(x) for _ in range(3)] == [two.step(x, x) for _ in range(3)]
    assert one.step(x[:3]) == two.step(x[:3], x[:3])
    assert one.evaluate(x)[0] == two.evaluate(x, x)[0]


def test_a_loss_over_the_input_needs_an_output_like_it():
    with pytest.raises(el.CompileError, match="feed targets instead"):
        el.compile(ZOO["mlp"].build(), loss=el.loss.MSE(of_input=True))


def test_the_microcontroller_target_plans_for_portable_kernels():
    mcu, host = compiled(target="mcu"), compiled()
    assert mcu.isa == "ref"
    assert mcu.plan.ram_bytes <= host.plan.ram_bytes
    assert mcu.to_bytes() == compiled(isa="ref").to_bytes()
    with pytest.raises(el.CompileError, match="portable kernels"):
        compiled(target="mcu", isa="avx2")
    with pytest.raises(el.CompileError, match="threads"):
        compiled(target="mcu", threads=2)


def test_a_single_row_is_its_own_column_sum():
    one = compiled(batch=1)
    assert not any(s.opcode == 6 for s in one.table.steps)  # col_sum
    assert any(s.opcode == 6 for s in compiled().table.steps)
    x = np.random.default_rng(0).standard_normal((1, 48)).astype(np.float32)
    a, b = el.Session(one), el.Session(compiled())
    for _ in range(3):
        a.step(x, x), b.step(x, x)
    for name, v in a.adapter().items():
        np.testing.assert_allclose(v, b.adapter()[name], rtol=1e-5, atol=1e-7)
