"""Adafactor: six steps of PyTorch's, and what a gradient that is not finite changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeloop.ops import OPS
from edgeloop.ops.kernels import isas, run_kernel

GOLDEN = Path(__file__).parents[1] / "golden" / "adafactor.npz"
OPERATOR = {"matrix": "adafactor_update", "vector": "adafactor_vector"}


def step(name: str, isa: str, kept: list[np.ndarray], g: np.ndarray, t: int, clip: float = 1.0,
         ok: float = 0.5) -> None:
    """Update parameter and state in place."""
    scalars = (t, 0.03, 0.1, -0.8, 2**-23, 1e-3, clip, ok)
    arrays = [np.array([a], np.float32) for a in scalars]
    run_kernel(OPS[OPERATOR[name]], [*kept, g, *arrays], kept, {}, isa)


def replay(name: str, isa: str, clip: float = 1.0) -> None:
    with np.load(GOLDEN) as file:
        golden = {k.partition(".")[2]: file[k] for k in file if k.startswith(name)}
    wanted = [golden[k] for k in ("state0", "state1") if k in golden]
    kept = [golden["w"][0].copy(), *(np.zeros_like(s[0]) for s in wanted)]
    for t, g in enumerate(golden["grad"], 1):
        step(name, isa, kept, g, t, clip)
        np.testing.assert_allclose(kept[0], golden["w"][t], rtol=1e-5, atol=1e-6)
        for ours, theirs in zip(kept[1:], wanted, strict=True):
            np.testing.assert_allclose(ours, theirs[t - 1], rtol=1e-5)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", OPERATOR)
def test_six_steps_are_those_of_pytorch(name, isa):
    replay(name, isa)


@pytest.mark.parametrize("name", OPERATOR)
def test_without_clipping_they_are_not(name):
    """Negative control: the golden steps are such that the clipping of updates matters."""
    with pytest.raises(AssertionError):
        replay(name, "ref", clip=100.0)


@pytest.mark.oracle
def test_the_golden_steps_are_what_pytorch_takes():
    from tests.golden.make_adafactor import SHAPES, steps

    with np.load(GOLDEN) as golden:
        for name, shape in SHAPES.items():
            for key, array in steps(shape).items():
                np.testing.assert_allclose(golden[f"{name}.{key}"], array, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPERATOR)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_a_gradient_without_a_finite_norm_changes_nothing(name, bad):
    shape = (5, 9) if name == "matrix" else (9,)
    g = np.ones(shape, np.float32)
    kept = [np.ones(n, np.float32) for n in ((shape, 5, 9) if name == "matrix" else (shape, 9))]
    g.reshape(-1)[4] = bad
    step(name, "ref", kept, g, 3)
    assert all((a == 1).all() for a in kept)
    g.reshape(-1)[4] = 2
    step(name, "ref", kept, g, 3, ok=np.nan)
    assert all((a == 1).all() for a in kept)
    step(name, "ref", kept, g, 3)  # control: a finite one does
    assert not any((a == 1).all() for a in kept)
