"""The parts of `make bench quant` that its numbers rest on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from models import zoo

import edgeloop as el
from edgeloop import compiler

BENCH = str(Path(__file__).parents[2] / "bench")


@pytest.fixture(autouse=True)
def bench_path(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("naive", "quant_goals", "tasks")]:
        del sys.modules[name]


@pytest.mark.parametrize("build", [zoo.mlp, zoo.har, lambda: zoo.resnet8("tiny", (1, 8, 8))])
def test_pretrained_weights_land_in_the_model(build, tmp_path, monkeypatch):
    """What the session predicts after pre-training is what onnxruntime computes from the file."""
    import importlib

    common = importlib.import_module("tasks.common")
    monkeypatch.setattr(common, "CACHE", tmp_path)
    model = build()
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((48, *shape)).astype(np.float32), rng.integers(0, 5, 48)
    common.measure_norms(model, x)
    session = el.Session(el.compile(model, train=el.Full(), batch=16, predict_batch=16))
    common.fit(session, x, y, epochs=2, batch=16, lr=0.05, seed=0)
    before = common.run(model, x)[0]
    common.put_weights(model, session.adapter())
    after, want = common.run(model, x)[0], session.predict(x)
    np.testing.assert_allclose(after, want, rtol=1e-3, atol=1e-4)
    assert np.abs(before - want).max() > 1e-2
    made = common.pretrained(build(), x, y, rounds=1, epochs=1, batch=16)
    assert common.pretrained(build(), x, y, rounds=1, epochs=1, batch=16) == made


def test_naive_rounds_every_product_with_the_base_and_leaves_the_compiler_alone():
    import importlib

    naive = importlib.import_module("naive")
    model, rng = zoo.mlp(), np.random.default_rng(2)
    x = rng.standard_normal((16, 20)).astype(np.float32)
    options = {"batch": 4, "predict_batch": 4, "entries": ("train", "predict")}
    before = compiler._shared, compiler.merge_lora
    with naive.naive_compiler(x):
        rough = el.compile(model, **options)
    assert (compiler._shared, compiler.merge_lora) == before
    got, want = (el.Session(p).predict(x) for p in (rough, el.compile(model, **options)))
    off = np.abs(got - want).max() / np.abs(want).max()
    assert 1e-4 < off < 0.1  # rounded, and the same function
    far = 10 * x
    got, want = (el.Session(p).predict(far) for p in (rough, el.compile(model, **options)))
    assert np.abs(got - want).max() / np.abs(want).max() > 0.3  # outside of the measured range


@pytest.mark.parametrize(("means", "whole", "bad"), [
    ({"int8": -0.1, "int4": -0.9, "naive": -2.4}, True, False),
    ({"int8": -0.6, "int4": -0.9, "naive": -2.4}, True, True),
    ({"int8": -0.1, "int4": -1.1, "naive": -2.4}, True, True),
    ({"int8": -0.1, "int4": -0.9, "naive": -0.4}, True, True),
    ({"int8": -0.1, "int4": -0.9, "naive": -0.4}, False, False),
    ({"int8": -0.1}, True, False),
])
def test_a_missed_goal_fails_and_so_does_a_control_that_meets_its_own(means, whole, bad):
    import importlib

    assert importlib.import_module("quant_goals").failed(means, whole=whole) == bad
