"""What must never happen to weights: bad labels, padding and numbers that are not finite."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.ops import OPS
from edgeloop.ops.kernels import isas, run_kernel

F = np.float32


def cross_entropy(logits, labels, weight, isa="ref"):
    loss, probs = np.empty(1, F), np.empty_like(logits)
    run_kernel(
        OPS["softmax_cross_entropy"],
        [logits, np.array(labels, np.int32), np.array(weight, F), np.array([2], F)],
        [loss, probs], {}, isa,
    )
    return loss[0]


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("label", [-1, 3, 2**31 - 1, -(2**31)])
def test_a_label_out_of_range_makes_the_loss_nan(label, isa):
    logits = np.zeros((2, 3), F)
    assert np.isnan(cross_entropy(logits, [0, label], [1, 1], isa))
    assert np.isfinite(cross_entropy(logits, [0, 2], [1, 1], isa))


@pytest.mark.parametrize("isa", isas())
def test_a_sample_of_weight_zero_has_no_effect_whatever_it_holds(isa):
    logits = np.array([[1, 2, 3], [np.nan, np.inf, 0]], F)
    alone = cross_entropy(logits[:1], [1], [1], isa)
    assert cross_entropy(logits, [1, 99], [1, 0], isa) == alone


def update(w, g, ok):
    w = np.array(w, F)
    one = np.array([0.5], F)
    run_kernel(
        OPS["sgd_update"], [w, np.array(g, F), one, np.zeros(1, F), np.array([ok], F)], [w], {}
    )
    return w


@pytest.mark.parametrize("ok", [np.nan, np.inf, -np.inf])
def test_nothing_is_updated_where_the_loss_is_not_finite(ok):
    np.testing.assert_array_equal(update([1, 2], [1, 1], ok), [1, 2])
    np.testing.assert_array_equal(update([1, 2], [1, 1], 0.25), [0.5, 1.5])


def test_an_element_that_would_not_be_finite_keeps_its_value():
    np.testing.assert_array_equal(update([1, 2, 3, -3e38], [np.nan, np.inf, 2, 3.4e38], 0),
                                  np.array([1, 2, 2, -3e38], F))
