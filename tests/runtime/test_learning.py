"""Sessions over compiled programs: what partial batches, snapshots and threads must not change."""

from __future__ import annotations

import numpy as np
import pytest
from tests.runtime.mlp import BATCH, OUT, compiled, randomised, samples

import edgeloop as el

EVERY = ("train", "eval", "predict", "grad", "accumulate", "apply")


@pytest.fixture(scope="module")
def program() -> el.Program:
    return compiled(entries=EVERY)


def test_it_learns(program):
    session = el.Session(program)
    x, y = samples(64)
    before, metrics = session.evaluate(x, y)
    for _ in range(40):
        for i in range(0, 64, BATCH):
            session.step(x[i : i + BATCH], y[i : i + BATCH])
    after, better = session.evaluate(x, y)
    assert after < 0.7 * before
    assert better["accuracy"] > metrics["accuracy"]
    assert session.steps == 40 * 8


def test_a_saved_program_computes_the_same_bits(program, tmp_path):
    program.save(tmp_path / "a.elp")
    x, y = samples(BATCH)
    a, b = el.Session(program), el.Session(el.load(tmp_path / "a.elp"))
    assert [a.step(x, y) for _ in range(5)] == [b.step(x, y) for _ in range(5)]
    assert a.snapshot() == b.snapshot()


def test_a_partial_batch_is_exact(program):
    """Rows that are missing change nothing: the same bits as weight 0 on any rows."""
    x, y = samples(BATCH)
    for n in (1, 3, 7):
        a, b = randomised(el.Session(program)), randomised(el.Session(program))
        weight = (np.arange(BATCH) < n).astype(np.float32)
        assert a.step(x[:n], y[:n]) == b.step(x, y, weight)
        assert a.snapshot() == b.snapshot()


def test_the_gradient_of_a_partial_batch_is_the_mean_over_its_rows(program):
    x, y = samples(3)
    session = randomised(el.Session(program))
    whole = session.gradients(x, y)
    each = [session.gradients(x[i : i + 1], y[i : i + 1]) for i in range(3)]
    for name, g in whole.items():
        np.testing.assert_allclose(g, sum(e[name] for e in each) / 3, rtol=1e-5, atol=1e-7)


def test_gradients_are_those_of_the_loss(program):
    session = randomised(el.Session(program))
    x, y = samples(BATCH)
    gradients, adapter = session.gradients(x, y), session.adapter()
    assert set(gradients) == set(adapter)
    norm = np.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
    h, losses = 1e-2, []
    for sign in (1, -1):  # along the gradient itself the slope is its norm
        session.load_adapter({n: a + np.float32(sign * h / norm) * gradients[n]
                              for n, a in adapter.items()})
        losses.append(session.evaluate(x, y)[0])
    assert (losses[0] - losses[1]) / (2 * h) == pytest.approx(norm, rel=1e-2)


def test_gradients_change_nothing(program):
    session = randomised(el.Session(program))
    before = session.snapshot()
    session.gradients(*samples(BATCH))
    session.evaluate(*samples(BATCH))
    session.predict(samples(BATCH)[0])
    assert session.snapshot() == before


def test_accumulated_micro_batches_are_one_large_batch(program):
    x, y = samples(2 * BATCH)
    small = randomised(el.Session(program))
    small.accumulate_scale = 0.5
    for i in (0, BATCH):
        small.accumulate(x[i : i + BATCH], y[i : i + BATCH])
    small.apply()
    large = randomised(el.Session(compiled(batch=2 * BATCH)))
    large.step(x, y)
    for name, a in large.adapter().items():
        np.testing.assert_allclose(small.adapter()[name], a, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", [el.SGD(lr=0.1, momentum=0.9), el.AdamW(lr=0.01)])
def test_a_restored_session_goes_on_with_the_same_bits(optimizer):
    program = compiled(optimizer=optimizer)
    x, y = samples(BATCH)
    a = el.Session(program)
    for _ in range(3):
        a.step(x, y)
    saved = a.snapshot()
    b = el.Session(program)
    b.restore(saved)
    assert b.steps == 3
    assert [a.step(x, y) for _ in range(4)] == [b.step(x, y) for _ in range(4)]
    assert a.snapshot() == b.snapshot()


@pytest.mark.parametrize("optimizer", [el.SGD(lr=0.1), el.AdamW(lr=0.01)])
def test_a_step_that_overflows_changes_nothing(optimizer):
    session = el.Session(compiled(optimizer=optimizer))
    x, y = samples(BATCH)
    session.step(x, y)
    before = session.snapshot()
    with pytest.raises(el.NonFiniteError, match="lower lr"):
        session.step(x * np.float32(1e38), y)
    assert session.snapshot() == before
    assert session.steps == 1
    session.step(x, y)


def test_threads_do_not_change_a_bit():
    program = compiled(batch=256, threads=2, entries=("train", "predict"))
    x, y = samples(256)
    one, two = el.Session(program, threads=1), el.Session(program, threads=2)
    for _ in range(5):
        assert one.step(x, y) == two.step(x, y)
    assert one.snapshot() == two.snapshot()


def test_instruction_sets_agree(program):
    from edgeloop import _core

    x, y = samples(BATCH)
    losses = {}
    for isa in _core.isas():
        session = el.Session(program, isa=isa)
        losses[isa] = [session.step(x, y) for _ in range(20)]
    for isa, values in losses.items():
        np.testing.assert_allclose(values, losses["ref"], rtol=1e-4, err_msg=isa)


def test_evaluate_is_the_mean_over_all_rows(program):
    session = randomised(el.Session(program))
    x, y = samples(3 * BATCH + 5)
    loss, metrics = session.evaluate(x, y)
    logits = session.predict(x).astype(np.float64)
    p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert loss == pytest.approx(-p[np.arange(len(y)), y].mean(), rel=1e-5)
    assert metrics["accuracy"] == (logits.argmax(1) == y).mean()


def test_weight_decay_and_rate_act_at_run_time(program):
    x, y = samples(BATCH)
    session = randomised(el.Session(program))
    before = session.adapter()
    session.lr = 0.0
    session.step(x, y)
    np.testing.assert_array_equal(session.adapter()["head.lora_A"], before["head.lora_A"])
    session.lr, session.weight_decay = 0.1, 0.5
    session.step(x, y)
    assert not np.array_equal(session.adapter()["head.lora_A"], before["head.lora_A"])


def test_labels_are_checked_against_the_model(program):
    x, y = samples(2)
    with pytest.raises(el.InputError, match=rf"it must be in 0\.\.{OUT - 1}"):
        el.Session(program).step(x, y + OUT)
