"""Sessions of a program that is parted: features once, then steps from them."""

from __future__ import annotations

import numpy as np
import pytest
from models.vit import vit
from tests.runtime.mlp import BATCH, HIDDEN, compiled, samples

import edgeloop as el
from edgeloop.errors import InputError, ProgramError

ENTRIES = ("train", "eval", "predict", "features", "train_from", "eval_from")


def session(**options) -> el.Session:
    return el.Session(compiled(train=el.LastLayers(1), entries=ENTRIES, **options))


def test_epochs_over_features_have_the_losses_of_epochs_over_samples():
    whole, parts = session(), session()
    x, y = samples(5 * BATCH - 3)
    kept = parts.features(x)
    assert kept.shape == (len(x), HIDDEN)
    for epoch in range(3):
        order = np.random.default_rng(epoch).permutation(len(x))
        for at in range(0, len(x), BATCH):
            rows = order[at : at + BATCH]
            assert whole.step(x[rows], y[rows]) == parts.step_from(kept[rows], y[rows])
        assert whole.evaluate(x, y) == parts.evaluate_from(kept, y)
    assert whole.snapshot() == parts.snapshot()
    assert whole.steps == parts.steps


def test_training_does_not_change_the_features():
    s = session()
    x, y = samples(BATCH)
    before = s.features(x)
    for _ in range(3):
        s.step(x, y)
    np.testing.assert_array_equal(before, s.features(x))


def test_several_values_are_a_dict():
    model = vit(image=16, patch=4, width=24, heads=2, blocks=3)
    program = el.compile(model, train=el.LoRA(2, targets="blocks.1.down"),
                         batch=4, entries=ENTRIES)
    values = program.metadata["cut"]["values"]
    s = el.Session(program)
    x = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    found = s.features(x)
    assert len(values) > 1
    assert {k: v.shape for k, v in found.items()} == {
        k: tuple(v["shape"]) for k, v in values.items()}
    with pytest.raises(InputError, match="the cut has"):
        s.step_from(x, [0, 1, 2, 3])
    assert s.step_from(found, [0, 1, 2, 3]) == el.Session(program).step(x, [0, 1, 2, 3])


@pytest.mark.parametrize(("features", "message"), [
    (np.zeros((2, HIDDEN + 1)), r"\[n, 16\] is needed"),
    (np.full((2, HIDDEN), np.nan), "row 0"),
    (np.zeros((BATCH + 1, HIDDEN)), "at most 8"),
    (np.zeros((3, HIDDEN)), "number of rows"),
    ({"x": np.zeros((2, HIDDEN))}, "features are .* the cut has"),
])
def test_wrong_features_are_refused(features, message):
    s = session()
    before = s.snapshot()
    y = [0] * (BATCH + 1 if len(features) > BATCH else 2)
    with pytest.raises(InputError, match=message):
        s.step_from(features, y)
    assert s.snapshot() == before


@pytest.mark.parametrize("call", ["features", "step_from", "evaluate_from"])
def test_a_program_without_the_entry_says_how_to_compile_one(call):
    s = el.Session(compiled())
    x, y = samples(2)
    with pytest.raises(ProgramError, match="compile it with entries="):
        getattr(s, call)(*((x,) if call == "features" else (x, y)))
