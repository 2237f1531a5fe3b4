"""Attention: rows without keys, memory, and values that must not leak past a mask."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.errors import ShapeError
from edgeloop.ir import Type
from edgeloop.ops import OPS
from edgeloop.ops.common import normal
from edgeloop.ops.kernels import isas, need, run_kernel

ATTENTION, GRAD = OPS["attention"], OPS["attention_grad"]


def forward(q, k, v, mask=None, isa="ref", **attrs):
    b, s, h, _ = q.shape
    o, lse = np.full((b, s, h, v.shape[3]), 9, np.float32), np.full((b, h, s), 9, np.float32)
    run_kernel(ATTENTION, [q, k, v, mask], [o, lse], {"scale": 0.5, **attrs}, isa)
    return o, lse


def backward(dy, q, k, v, o, lse, mask=None, isa="ref", **attrs):
    out = [np.full_like(x, 9) for x in (q, k, v)]
    run_kernel(GRAD, [dy, q, k, v, o, lse, mask], out, {"scale": 0.5, **attrs}, isa)
    return out


def operands(s=70, t=66, h=2, hk=1, d=12):
    return normal(1, s, h, d), normal(1, t, hk, d, seed=2), normal(1, t, hk, d, seed=3)


@pytest.mark.parametrize("isa", isas())
def test_a_query_without_keys_gives_zero_and_no_gradient(isa):
    q, k, v = operands()
    mask = np.zeros((1, 1, 70, 66), np.float32)
    mask[:, :, 5] = -np.inf
    o, lse = forward(q, k, v, mask, isa)
    grads = backward(normal(*q.shape, seed=4), q, k, v, o, lse, mask, isa)
    assert not o[:, 5].any()
    assert (lse[..., 5] == -np.inf).all()
    assert not grads[0][:, 5].any()
    assert all(np.isfinite(g).all() for g in (o, *grads))
    assert o[:, 4].any()
    assert grads[0][:, 4].any()


@pytest.mark.parametrize("isa", isas())
def test_keys_behind_a_mask_have_no_effect_and_no_gradient(isa):
    q, k, v = operands(s=66)
    k2, v2 = k.copy(), v.copy()
    k2[:, 40:], v2[:, 40:] = 100, -100
    seen = {"causal": 1, "offset": 39 - 65}  # the last query sees the keys up to 39
    (o, lse), (o2, lse2) = (forward(q, *kv, isa=isa, **seen) for kv in ((k, v), (k2, v2)))
    np.testing.assert_array_equal(o, o2)
    np.testing.assert_array_equal(lse, lse2)
    _, dk, dv = backward(normal(*q.shape, seed=4), q, k, v, o, lse, isa=isa, **seen)
    assert not dk[:, 40:].any()
    assert not dv[:, 40:].any()
    assert dk[:, 39].any()
    assert not np.array_equal(forward(q, k, v, isa=isa)[0], forward(q, k2, v2, isa=isa)[0])


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("op", ["attention", "attention_grad"])
def test_scratch_does_not_grow_with_the_sequence(op, isa):
    def scratch(s):
        q, lse = Type((2, s, 4, 64)), Type((2, 4, s))
        types = [q, q, q, q, lse] if op == "attention" else [q, q, q, q, q, lse, q, q, q]
        return need(OPS[op], types, [None] * len(types), {}, isa)[1]

    assert scratch(4096) == scratch(256) <= 256 * 1024


@pytest.mark.parametrize("isa", isas())
def test_a_score_that_is_not_a_number_shows(isa):
    q, k, v = operands()
    k[0, 3, 0, 0] = np.nan
    o, _ = forward(q, k, v, isa=isa)
    assert np.isnan(o).all()


@pytest.mark.parametrize(("shapes", "message"), [
    (((2, 5, 4, 8), (2, 7, 3, 8), (2, 7, 3, 8)), "divides"),
    (((2, 5, 4, 8), (2, 7, 4, 9), (2, 7, 4, 8)), "takes"),
    (((2, 5, 4, 8), (2, 7, 4, 8), (2, 6, 4, 8)), "takes"),
    (((2, 5, 4, 8), (2, 7, 4, 8), (2, 7, 4, 8), (2, 4, 5, 6)), "broadcast"),
    (((2, 5, 4, 8), (2, 7, 4, 8), (2, 7, 4, 8), (5, 7)), "broadcast"),
])
def test_shapes_that_do_not_fit_are_named(shapes, message):
    with pytest.raises(ShapeError, match=message):
        ATTENTION.infer(*(Type(s) for s in shapes))
