"""Whole models against PyTorch, live: every gradient, and the golden files themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from models.common import SCALE, programs, random_adapter
from models.zoo import ZOO

import edgeloop as el

pytestmark = pytest.mark.oracle
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", list(ZOO))
def test_gradients_equal_pytorch(name):
    from models.torch_oracle import train

    case = ZOO[name]
    model = case.build()
    s = el.Session(programs(case, model)["sgd"])
    adapter = random_adapter(s.adapter())
    s.load_adapter(adapter)
    x, y = case.data(model)
    _, want = train(model, adapter, SCALE, case.loss, x, y, sgd(case.sgd), steps=1)
    got = s.gradients(x, y)
    assert sorted(got) == sorted(want)
    for k, w in want.items():
        assert np.linalg.norm(got[k] - w) <= 1e-4 * np.linalg.norm(w), k


@pytest.mark.parametrize("name", list(ZOO))
def test_golden_losses_are_pytorchs(name):
    from models.make_golden import oracle

    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    now = oracle(name)
    for kind in ("sgd", "adamw"):
        assert now[kind] == pytest.approx(golden[kind], rel=1e-5)


def sgd(lr):
    import torch

    return lambda p: torch.optim.SGD(p, lr=lr)
