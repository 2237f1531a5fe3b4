"""Features kept for many samples: exact, or rounded the same way every time."""

from __future__ import annotations

import numpy as np
import pytest
from models.vit import vit
from tests.runtime.mlp import BATCH, HIDDEN, compiled, samples

import edgeloop as el
from edgeloop.errors import BudgetError, InputError, ProgramError
from edgeloop.runtime.feature_cache import sample_bytes

ENTRIES = ("train", "eval", "predict", "features", "train_from", "eval_from")


@pytest.fixture(scope="module")
def program() -> el.Program:
    return compiled(train=el.LastLayers(1), entries=ENTRIES)


def filled(session, x, keep) -> el.FeatureCache:
    cache = el.FeatureCache(session.program, len(x), keep=keep)
    cache.fill(session, x, range(len(x)))
    return cache


def test_f32_is_what_was_computed(program):
    session = el.Session(program)
    x, _ = samples(20)
    cache = filled(session, x, "f32")
    rows = [7, 3, 3, 19]
    np.testing.assert_array_equal(cache.rows(rows), session.features(x)[rows])
    assert cache.nbytes == 20 * HIDDEN * 4 == 20 * sample_bytes(program)


@pytest.mark.parametrize(("keep", "bound", "each"), [
    ("f16", 2.0**-11, 2 * HIDDEN), ("int8", 0.5 / 127, HIDDEN + 4)])
def test_rounding_is_within_its_bound_and_always_the_same(program, keep, bound, each):
    session = el.Session(program)
    x, _ = samples(20)
    exact, cache = session.features(x), filled(session, x, keep)
    got = cache.rows(range(20))
    assert got.dtype == np.float32
    largest = np.abs(exact) if keep == "f16" else np.abs(exact).max(axis=1, keepdims=True)
    assert (np.abs(got - exact) <= bound * largest * (1 + 1e-6) + 1e-7).all()
    assert not np.array_equal(got, exact)
    assert sample_bytes(program, keep) == each
    cache.drop([4, 5])
    cache.fill(session, x[5:6], [5])
    cache.fill(session, x[4:5], [4])
    np.testing.assert_array_equal(cache.rows(range(20)), got)


@pytest.mark.parametrize("keep", ["f16", "int8"])
def test_extreme_rows_stay_finite(program, keep):
    cache = el.FeatureCache(program, 2, keep=keep)
    a = np.zeros((2, HIDDEN), np.float32)
    a[1, :2] = 3e38, -1e-38
    cache.put([0, 1], a)
    got = cache.rows([0, 1])
    assert np.isfinite(got).all()
    assert (got[0] == 0).all()
    assert got[1, 0] == (65504 if keep == "f16" else np.float32(127) * (a[1, 0] / np.float32(127)))


@pytest.mark.parametrize(("keep", "bound"), [("f32", 0.0), ("f16", 2e-3), ("int8", 2e-2)])
def test_losses_of_ten_epochs(keep, bound):
    model = vit(image=16, patch=4, width=24, heads=2, blocks=3)
    program = el.compile(model, train=el.LoRA(2, targets=["blocks.2.q", "blocks.2.v"]), batch=4,
                         optimizer=el.AdamW(lr=3e-3), entries=ENTRIES)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 3, 16, 16)).astype(np.float32)
    y = rng.integers(0, 10, 12)
    whole, parts = el.Session(program), el.Session(program)
    cache = filled(parts, x, keep)
    worst = 0.0
    for epoch in range(10):
        order = np.random.default_rng(epoch).permutation(12)
        for rows in order.reshape(-1, 4):
            want, got = whole.step(x[rows], y[rows]), parts.step_from(cache.rows(rows), y[rows])
            worst = max(worst, abs(got - want) / want)
    assert worst <= bound
    assert (worst > 0) == (keep != "f32")


def test_what_is_not_held_is_an_error(program):
    session = el.Session(program)
    x, _ = samples(4)
    cache = filled(session, x, "f32")
    assert cache.missing(range(4)) == []
    cache.drop([2])
    assert cache.missing(range(4)) == [2]
    with pytest.raises(InputError, match="sample 2 are not held"):
        cache.rows(range(4))
    cache.drop()
    assert cache.missing(range(4)) == [0, 1, 2, 3]


def test_wrong_use_is_refused(program):
    with pytest.raises(BudgetError, match="4 samples take 256 bytes as f32"):
        el.FeatureCache(program, 4, budget=255)
    with pytest.raises(InputError, match="keep='bf16'"):
        el.FeatureCache(program, 4, keep="bf16")
    with pytest.raises(ProgramError, match="has no cut"):
        el.FeatureCache(compiled(), 4)
    cache = el.FeatureCache(program, 4)
    with pytest.raises(InputError, match=r"have shape \[2, 15\]"):
        cache.put([0, 1], np.zeros((2, HIDDEN - 1), np.float32))
    with pytest.raises(InputError, match="the cut has"):
        cache.put([0], {"other": np.zeros((1, HIDDEN), np.float32)})
    other = el.Session(compiled(train=el.LastLayers(1), entries=ENTRIES, seed=4, batch=BATCH + 1))
    with pytest.raises(InputError, match="another program"):
        cache.fill(other, samples(2)[0], [0, 1])
