"""Dropout in programs: training only, a new mask for every step, the same bits when resumed."""

from __future__ import annotations

import numpy as np
import pytest
from tests.runtime.mlp import BATCH, compiled, randomised, samples

import edgeloop as el

EVERY = ("train", "eval", "predict", "grad", "accumulate", "apply")


@pytest.fixture(scope="module")
def program() -> el.Program:
    return compiled(train=el.LoRA(rank=2, dropout=0.4), entries=EVERY, threads=2)


@pytest.fixture(scope="module")
def without() -> el.Program:
    return compiled(train=el.LoRA(rank=2), entries=EVERY, threads=2)


def test_evaluation_and_prediction_drop_nothing(program, without):
    x, y = samples(BATCH)
    a, b = randomised(el.Session(program)), randomised(el.Session(without))
    np.testing.assert_array_equal(a.predict(x), b.predict(x))
    assert a.evaluate(x, y) == b.evaluate(x, y)
    assert a.step(x, y) != b.step(x, y)  # training does


def test_each_step_draws_its_own_mask(program, without):
    x, y = samples(BATCH)
    for p, drawn in ((program, 3), (without, 1)):
        session = randomised(el.Session(p))
        session.lr = 0.0
        assert len({session.step(x, y) for _ in range(3)}) == drawn
        session.accumulate_scale = 1.0
        assert len({session.accumulate(x, y) for _ in range(3)}) == drawn


def test_gradients_draw_the_mask_of_the_next_step_and_change_nothing(program):
    x, y = samples(BATCH)
    session = randomised(el.Session(program))
    session.step(x, y)
    before, saved = session.adapter(), session.snapshot()
    grads = session.gradients(x, y)
    assert session.snapshot() == saved
    session.step(x, y)
    for name, a in session.adapter().items():
        np.testing.assert_allclose(a, before[name] - np.float32(0.1) * grads[name], rtol=1e-5,
                                   atol=1e-7)


def test_a_resumed_run_and_any_number_of_threads_give_the_same_bits(program):
    x, y = samples(BATCH)
    whole = randomised(el.Session(program, threads=2))
    half = randomised(el.Session(program, threads=1))
    losses = [whole.step(x, y) for _ in range(6)]
    first = [half.step(x, y) for _ in range(3)]
    resumed = el.Session(program, threads=1)
    resumed.restore(half.snapshot())
    assert first + [resumed.step(x, y) for _ in range(3)] == losses
    assert resumed.snapshot() == whole.snapshot()


def test_a_loss_that_is_not_finite_leaves_the_counter_alone(program):
    x, y = samples(BATCH)
    session = randomised(el.Session(program))
    session.load_adapter({n: a * np.float32(3e38) for n, a in session.adapter().items()})
    saved = session.snapshot()
    with pytest.raises(el.NonFiniteError):
        session.step(x, y)
    assert session.snapshot() == saved


def test_it_learns(program):
    session = el.Session(program)
    x, y = samples(64)
    before = session.evaluate(x, y)[0]
    for _ in range(40):
        for i in range(0, 64, BATCH):
            session.step(x[i : i + BATCH], y[i : i + BATCH])
    assert session.evaluate(x, y)[0] < 0.8 * before


def test_dora_with_dropout_starts_at_the_base_and_learns():
    base = el.Session(compiled(train=el.LoRA(rank=2)))
    session = el.Session(compiled(train=el.LoRA(rank=2, dora=True, dropout=0.2)))
    x, y = samples(64)
    np.testing.assert_array_equal(session.predict(x), base.predict(x))
    before = session.evaluate(x, y)[0]
    for _ in range(40):
        for i in range(0, 64, BATCH):
            session.step(x[i : i + BATCH], y[i : i + BATCH])
    assert session.evaluate(x, y)[0] < 0.8 * before
