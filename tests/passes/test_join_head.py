"""join_head: loss and gradient of the last product in one step, for scratch of whole rows."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.test_fuse_head import lm, ready
from tests.passes.text import graph, shown, text

import edgeloop as el
from edgeloop.ops import evaluate
from edgeloop.passes.join_head import join_head
from edgeloop.solver import frame

HEAD = """
    input x : f32[2,3,4]
    input labels : i32[2,3]
    input sample_weight : f32[2]
    input norm : f32[1]
    const w : f32[7,4]
    const b : f32[7]
    const dloss : f32[1]
    losses, lse = linear_cross_entropy(x, labels, w, b) {ignore=2}  # lm_head
    loss = weighted_loss(losses, sample_weight, norm)  # loss
    d = weighted_loss_grad(losses, sample_weight, norm, dloss)  # loss
"""
BACK = "dx = linear_cross_entropy_dx(x, labels, w, lse, d, b) {ignore=2}  # lm_head\n"
OUT = "output loss\noutput dx\n"


def test_before_and_after():
    assert text(join_head(graph(HEAD + BACK + OUT))) == shown("""
        input x : f32[2,3,4]
        input labels : i32[2,3]
        input sample_weight : f32[2]
        input norm : f32[1]
        const w : f32[7,4]
        const b : f32[7]
        const dloss : f32[1]
        const c : f32[2,3]
        d = weighted_loss_grad(c, sample_weight, norm, dloss) : f32[2,3] # loss
        losses, lse, dx = linear_cross_entropy_both(x, labels, w, d, b) {ignore=2} """
        """: f32[2,3], f32[2,3], f32[2,3,4] # lm_head
        loss = weighted_loss(losses, sample_weight, norm) : f32[1] # loss
        output loss
        output dx""")


def test_the_same_values():
    rng = np.random.default_rng(1)
    feeds = {"x": rng.standard_normal((2, 3, 4)), "labels": np.array([[0, 6, 2], [1, 3, 5]], "i4"),
             "sample_weight": np.array([1.0, 0.5]), "norm": np.array([1.5])}
    before = graph(HEAD + BACK + OUT)
    after = join_head(before)
    for a, b in zip(before.outputs, after.outputs, strict=True):
        got, want = evaluate(after, feeds)[b], evaluate(before, feeds)[a]
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("source", [
    HEAD + BACK.replace("lse, d, b", "lse, losses, b") + OUT,          # waits for the losses
    HEAD + BACK.replace("lse, d, b", "lse, d, b, _, lse") + OUT,       # lse has a gradient
    HEAD + "output loss\n",                                            # nothing goes back
], ids=["losses", "lse", "frozen"])
def test_what_stays(source):
    assert text(join_head(graph(source))) == text(graph(source))


def trained(join: bool, monkeypatch, **options):
    if not join:
        monkeypatch.setattr(frame, "join_head", lambda g: g)
    program = el.compile(
        lm(4099, 64, 16), batch=4, train=[el.LoRA(rank=2, targets="body"), el.LastLayers(1)],
        optimizer=el.SGD(lr=0.5), threads=2, entries=("train",),
        loss=el.loss.CrossEntropy(shift=1, ignore_index=-100), **options)
    s, x, y = ready(program)
    return program.plan, [s.step(x, y) for _ in range(4)]


def test_fewer_operations_and_the_same_steps(monkeypatch):
    plan, losses = trained(True, monkeypatch)
    lean, expected = trained(False, monkeypatch)
    assert plan.step_flops < 0.85 * lean.step_flops
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_a_budget_that_it_would_break_makes_the_logits_twice(monkeypatch):
    plan, expected = trained(True, monkeypatch)
    lean, losses = trained(True, monkeypatch, budget=plan.ram_bytes - 1)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert lean.ram_bytes < 0.6 * plan.ram_bytes
    assert lean.step_flops > plan.step_flops
