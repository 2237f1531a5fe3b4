"""Losses and optimizers against PyTorch: several steps, same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.ops import OPS

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch", reason="the oracle is PyTorch")

STEPS = 5


def one(value: float) -> np.ndarray:
    return np.array([value], np.float64)


def steps_of(optimizer):
    """PyTorch's parameter after each step, and the gradients that it was given."""
    rng = np.random.default_rng(1)
    w = torch.nn.Parameter(torch.tensor(rng.standard_normal((4, 3))))
    start = w.detach().numpy().copy()
    made = optimizer([w])
    seen = []
    for _ in range(STEPS):
        g = rng.standard_normal((4, 3))
        w.grad = torch.tensor(g)
        made.step()
        seen.append((g, w.detach().numpy().copy()))
    return start, seen


def test_sgd():
    w, seen = steps_of(lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01))
    for g, want in seen:
        w = OPS["sgd_update"].reference(w, g, one(0.1), one(0.01), one(0))
        np.testing.assert_allclose(w, want, rtol=1e-12)


def test_momentum():
    w, seen = steps_of(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01))
    m = np.zeros_like(w)
    for g, want in seen:
        w, m = OPS["momentum_update"].reference(w, m, g, one(0.1), one(0.01), one(0.9), one(0))
        np.testing.assert_allclose(w, want, rtol=1e-12)


def test_adamw():
    w, seen = steps_of(
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, betas=(0.9, 0.999), eps=1e-8)
    )
    m, v, powers = np.zeros_like(w), np.zeros_like(w), np.ones(2)
    for g, want in seen:
        powers = OPS["adam_tick"].reference(powers, one(0.9), one(0.999), one(0))
        w, m, v = OPS["adamw_update"].reference(
            w, m, v, g, powers, one(0.01), one(0.1), one(0.9), one(0.999), one(1e-8), one(0)
        )
        np.testing.assert_allclose(w, want, rtol=1e-12)


def test_losses():
    rng = np.random.default_rng(2)
    x, labels = rng.standard_normal((4, 6)), np.array([0, 5, 2, 2], np.int32)
    target, weight, norm = rng.random((4, 6)), np.ones(4), one(4)
    f = torch.nn.functional
    loss, _ = OPS["softmax_cross_entropy"].reference(x, labels, weight, norm)
    want = f.cross_entropy(torch.tensor(x), torch.tensor(labels.astype(np.int64)))
    assert loss[0] == pytest.approx(float(want), rel=1e-12)
    for name, peer in (("mse_loss", f.mse_loss), ("bce_loss", f.binary_cross_entropy_with_logits)):
        loss = OPS[name].reference(x, target, weight, norm)
        assert loss[0] == pytest.approx(
            float(peer(torch.tensor(x), torch.tensor(target))), rel=1e-12
        )
