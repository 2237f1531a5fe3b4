"""The entries grad, accumulate and apply do together what train does at once."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.text import graph, text
from tests.runtime.mlp import BATCH, compiled, randomised, samples

import edgeloop as el
from edgeloop.passes.autodiff import add_gradients
from edgeloop.passes.gradient_entries import accumulate_entry, apply_entry, grad_entry

OPTIMIZERS = [el.SGD(lr=0.1), el.SGD(lr=0.1, momentum=0.9, weight_decay=0.01), el.AdamW(lr=0.01),
              el.AdamW8bit(lr=0.01), el.Lion(lr=0.001), el.Lion(lr=0.001, bits=8),
              el.Adafactor(lr=0.01)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_two_micro_batches_are_one_large_batch(optimizer):
    small = randomised(el.Session(compiled(optimizer=optimizer, entries=("accumulate", "apply"))))
    large = randomised(el.Session(compiled(optimizer=optimizer, batch=2 * BATCH)))
    small.accumulate_scale = 0.5
    for seed in range(3):  # twice over: what was gathered is cleared, state goes on
        x, y = samples(2 * BATCH, seed)
        parts = [small.accumulate(x[i:i + BATCH], y[i:i + BATCH]) for i in (0, BATCH)]
        small.apply()
        assert np.mean(parts) == pytest.approx(large.step(x, y), rel=1e-5)
    wanted = large.adapter()
    for name, a in small.adapter().items():
        np.testing.assert_allclose(a, wanted[name], rtol=1e-3, atol=2e-6, err_msg=name)


def test_the_graphs():
    g = graph("""
        input x : f32[1,3]
        param w : f32[1,3]
        y = linear(x, w)
        loss = reshape(y) {shape=[1]}
        output loss
    """)
    backward, grads = add_gradients(g, g.outputs[0], list(g.params))
    made = grad_entry(backward, g.outputs[0], grads)
    assert [v.name for v in made.outputs] == ["loss", "grad:w", "grad_norm"]
    text(made)
    made = accumulate_entry(backward, g.outputs[0], grads)
    assert [(a.name, b.name) for a, b in made.updates.items()] == [("acc:w", "acc:w.new")]
    assert not made.outputs[1:]
    text(made)
    made = apply_entry(grads, g, el.SGD())
    assert {a.name for a in made.updates} == {"w", "acc:w"}
    assert [n.op for n in made.nodes] == ["norm_sq", "sqrt", "sgd_update", "zero_"]
    text(made)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_an_infinite_gradient_is_not_applied(optimizer):
    session = randomised(el.Session(compiled(optimizer=optimizer,
                                             entries=("accumulate", "apply"))))
    before = session.adapter()
    x, y = samples(BATCH)
    session.accumulate_scale = 3e38
    for _ in range(4):
        session.accumulate(x, y)
    session.apply()
    for name, a in session.adapter().items():
        np.testing.assert_array_equal(a, before[name])
