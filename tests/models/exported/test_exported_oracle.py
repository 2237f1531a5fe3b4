"""Exported models against PyTorch, live: every gradient, and the golden files themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from models.exported.cases import CASES, EXPORTS
from models.exported.skeleton import FOLDER, load
from models.exported.training import params_of, program, session

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("name", EXPORTS)
def test_gradients_equal_pytorch(name):
    from models.exported.live import train

    model, _, _ = name.partition(".")
    case = CASES[model]
    made = program(case, load(name))
    _, want = train(model, case, params_of(made), steps=1)
    got = session(made).gradients(*case.data(name))
    assert sorted(got) == sorted(want)
    for k, w in want.items():
        assert np.linalg.norm(got[k] - w) <= 1e-4 * np.linalg.norm(w), k


@pytest.mark.parametrize("name", list(CASES))
def test_golden_numbers_are_pytorchs(name):
    from models.exported.make_golden import golden

    recorded = json.loads((FOLDER / f"{name}.json").read_text())["adamw"]
    # PyTorch rounds as its instruction set does: a share of the first loss, not of what is left.
    assert golden(name)["adamw"] == pytest.approx(recorded, rel=1e-5, abs=1e-6 * recorded[0])
