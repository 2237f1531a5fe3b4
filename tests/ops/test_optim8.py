"""8-bit moments: the map of bitsandbytes, two bytes a parameter, curves like those of f32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models.zoo import ZOO

import edgeloop as el
from edgeloop.ops import OPS
from edgeloop.ops.kernels import isas, run_kernel
from edgeloop.ops.optim8 import dynamic_map, no_moments, state_type
from edgeloop.options import narrowed

GOLDEN = Path(__file__).parents[1] / "golden" / "dynamic_map.npz"


@pytest.mark.parametrize("name", ["signed", "unsigned"])
def test_the_map_is_that_of_bitsandbytes(name):
    with np.load(GOLDEN) as golden:
        np.testing.assert_array_equal(dynamic_map(signed=name == "signed"), golden[name])


@pytest.mark.oracle
@pytest.mark.parametrize("signed", [True, False])
def test_the_golden_map_is_what_bitsandbytes_makes(signed):
    bnb = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    np.testing.assert_array_equal(
        dynamic_map(signed=signed), bnb.create_dynamic_map(signed=signed).numpy())


def test_the_state_that_means_nothing():
    state = no_moments(300)
    assert state.shape == state_type(300).shape == (16 + 600,)
    assert not state[:16].any()
    assert (dynamic_map(signed=True)[state[16:316]] == 0).all()
    assert (dynamic_map(signed=False)[state[316:]] == 0).all()
    one = no_moments(300, 1)
    assert one.shape == state_type(300, 1).shape == (8 + 300,)
    assert not one[:8].any()
    np.testing.assert_array_equal(one[8:], state[16:316])


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", ["adamw8_update", "lion8_update"])
def test_chunks_of_a_large_tensor_are_whole_blocks(name, isa):
    """More than one chunk, the last block of which is a small one."""
    op = OPS[name]
    w, state, g, *rest = next(iter(op.samples())).inputs
    moments = state.size // w.size
    rng = np.random.default_rng(3)
    w, g = (rng.standard_normal(40_001).astype(np.float32) for _ in range(2))
    state = no_moments(w.size, moments)
    for _ in range(2):
        wanted = op.reference(w, state, g, *rest)
        outputs = [w.copy(), state.copy()]
        chunks, _ = run_kernel(op, [*outputs, g, *rest], outputs, {}, isa)
        assert chunks > 1
        np.testing.assert_array_equal(outputs[1], wanted[1])
        np.testing.assert_allclose(outputs[0], wanted[0], rtol=2e-6, atol=2e-6)
        w, state = outputs


def compiled(name: str, optimizer, rank: int = 8) -> el.Program:
    case = ZOO[name]
    return el.compile(case.build(), loss=case.loss, train=el.LoRA(rank=rank), optimizer=optimizer,
                      batch=16, entries=("train",))


def task(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Sixteen random samples to learn by heart."""
    case = ZOO[name]
    model = case.build()
    x, _ = case.data(model)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, *x.shape[1:]), np.float32)
    if case.loss == "mse":
        return x, x
    classes = model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    return x, rng.integers(0, classes, 16)


def curve(name: str, optimizer, steps: int = 60) -> np.ndarray:
    session = el.Session(compiled(name, optimizer))
    x, y = task(name)
    return np.array([session.step(x, y) for _ in range(steps)])


@pytest.mark.parametrize("wide", [el.AdamW(lr=1e-3), el.Lion(lr=2e-4)], ids=["adam", "lion"])
@pytest.mark.parametrize("name", ["ds_cnn", "har", "deep_ae"])
def test_the_loss_curve_is_within_one_percent_of_that_with_f32_moments(name, wide):
    """At every one of 60 steps, smoothed over five of them."""
    small = narrowed(wide)
    assert small is not None
    wide, narrow = curve(name, wide), curve(name, small)
    assert wide[-1] < 0.8 * wide[0]
    smooth = [np.convolve(c, np.ones(5) / 5, "valid") for c in (wide, narrow)]
    assert np.abs(smooth[1] / smooth[0] - 1).max() <= 0.01
    assert (wide != narrow).any()


@pytest.mark.parametrize("name", ["deep_ae", "ds_cnn", "resnet8"])
def test_bytes_a_parameter(name):
    """At most 2.1 with LoRA of rank 4, most of whose tensors have 256 to 2560 elements."""
    wide, narrow = (compiled(name, kind(), rank=4).plan for kind in (el.AdamW, el.AdamW8bit))
    assert wide.state_bytes / wide.trainable_params >= 8
    assert narrow.state_bytes / narrow.trainable_params <= 2.1


def test_a_snapshot_goes_on_with_the_same_bits():
    program = compiled("har", el.AdamW8bit(lr=1e-3))
    x, y = task("har")
    one, two = el.Session(program), el.Session(program)
    for _ in range(3):
        one.step(x, y)
    two.restore(one.snapshot())
    assert [one.step(x, y) for _ in range(3)] == [two.step(x, y) for _ in range(3)]
    assert one.snapshot() == two.snapshot()
