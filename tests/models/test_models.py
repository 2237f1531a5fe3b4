"""Whole models: forward against ONNX Runtime, training against PyTorch's recorded losses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from models.common import programs, random_adapter
from models.zoo import ZOO

import edgeloop as el

GOLDEN = Path(__file__).parent / "golden"
# arena_bytes of the SGD program for the portable kernels, the same on every machine: a change is
# either a better plan or a mistake; say which.
ARENA = json.loads((GOLDEN / "arena.json").read_text())


@pytest.fixture(scope="module", params=list(ZOO))
def made(request):
    case = ZOO[request.param]
    model = case.build()
    return request.param, case, model, programs(case, model)


def test_forward_equals_onnx_runtime(made):
    _, case, model, compiled = made
    x, _ = case.data(model)
    want = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    got = el.Session(compiled["sgd"]).predict(x)
    assert np.max(np.abs(got - want)) <= 1e-5 * np.max(np.abs(want))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_losses_follow_pytorch(made, optimizer):
    name, case, model, compiled = made
    golden = json.loads((GOLDEN / f"{name}.json").read_text())[optimizer]
    s = el.Session(compiled[optimizer])
    s.load_adapter(random_adapter(s.adapter()))
    x, y = case.data(model)
    losses = [s.step(x, y) for _ in golden]
    assert losses == pytest.approx(golden, rel=1e-4)
    assert losses[-1] <= 0.9 * losses[0]


def test_gradients_follow_pytorch(made):
    from models.fingerprint import fingerprint

    name, case, model, compiled = made
    golden = json.loads((GOLDEN / f"{name}.json").read_text())["gradients"]
    s = el.Session(compiled["sgd"])
    s.load_adapter(random_adapter(s.adapter()))
    gradients = s.gradients(*case.data(model))
    assert sorted(gradients) == sorted(golden)
    for key, (norm, projection) in golden.items():
        got = fingerprint(key, gradients[key])
        assert got[0] == pytest.approx(norm, rel=1e-4), key
        assert abs(got[1] - projection) <= 1e-4 * norm, key


def test_arena_is_tight_and_known(made):
    name, case, model, compiled = made
    plan = compiled["sgd"].plan
    assert plan.lower_bound_bytes <= plan.arena_bytes <= 1.02 * plan.lower_bound_bytes
    portable = programs(case, model, isa="ref", optimizers=("sgd",))["sgd"]
    assert portable.plan.arena_bytes == ARENA[name]


def test_most_arenas_equal_their_bound():
    plans = [
        el.compile(case.build(), loss=case.loss, batch=case.batch, train=train, optimizer=el.SGD(),
                   entries=("train",)).plan
        for case in ZOO.values() for train in (el.LoRA(4), el.Full(), el.Bias())]
    equal = sum(p.arena_bytes == p.lower_bound_bytes for p in plans)
    assert equal >= 0.95 * len(plans)
    assert all(p.arena_bytes <= 1.02 * p.lower_bound_bytes for p in plans)
