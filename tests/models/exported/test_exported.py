"""Graphs as PyTorch's two exporters write them: forward, gradients, losses, memory.

The truth is recorded: `make_golden.py` wrote the graphs without weights and PyTorch's numbers.
"""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
from models.exported.cases import CASES, RECORDED
from models.exported.skeleton import FOLDER, load
from models.exported.training import program, session
from models.fingerprint import fingerprint

import edgeloop as el

# Exports of the same model differ in their graphs, not in what has to come out: the ten steps are
# taken for one export of each, gradients and outputs are compared for every recorded one.
STEPPED = [f"{name}.{case.recorded[-1]}" for name, case in CASES.items()]


@pytest.fixture(scope="module", params=RECORDED)
def made(request):
    name = request.param
    case = CASES[name.partition(".")[0]]
    model = load(name)
    return name, case, model, program(case, model)


def golden(name):
    return json.loads((FOLDER / f"{name.partition('.')[0]}.json").read_text())


def test_forward_equals_onnx_runtime(made):
    name, case, model, compiled = made
    xs, _ = case.data(name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    oracle = onnxruntime.InferenceSession(model.SerializeToString(), options)
    want = oracle.run(None, {i.name: xs[i.name] for i in oracle.get_inputs()})[0]
    got = el.Session(compiled).predict(xs)
    assert got.shape == want.shape
    assert np.max(np.abs(got - want)) <= 1e-5 * np.max(np.abs(want))


def test_gradients_follow_pytorch(made):
    name, case, _, compiled = made
    want = golden(name)["gradients"]
    got = session(compiled).gradients(*case.data(name))
    assert sorted(got) == sorted(want)
    for key, (norm, projection) in want.items():
        n, p = fingerprint(key, got[key])
        assert n == pytest.approx(norm, rel=1e-4), key
        assert abs(p - projection) <= 1e-4 * norm, key


def test_losses_follow_pytorch(made):
    name, case, _, compiled = made
    want = golden(name)["adamw"][: None if name in STEPPED else 2]
    s = session(compiled)
    xs, y = case.data(name)
    losses = [s.step(xs, y) for _ in want]
    assert losses == pytest.approx(want, rel=1e-3)
    assert losses[-1] < losses[0]


def test_arena_equals_the_bound(made):
    _, _, _, compiled = made
    plan = compiled.plan
    assert plan.lower_bound_bytes <= plan.arena_bytes <= 1.02 * plan.lower_bound_bytes
