"""One program for several sequence lengths: as good as one program for each."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from models.exported.cases import CASES, IGNORE
from models.exported.skeleton import load
from models.exported.training import params_of

import edgeloop as el

CASE = CASES["gpt2"]
LENGTHS = (16, 32)


def compiled(model, lengths):
    return el.compile(
        model, loss=CASE.criterion(), train=CASE.options(), optimizer=el.AdamW(lr=CASE.lr),
        batch=CASE.batch, shapes=[{"seq": n} for n in lengths])


def batch(length):
    rng = np.random.default_rng(length)
    ids = rng.integers(0, CASE.classes, (CASE.batch, length))
    mask = (np.arange(length) < [[length], [length - 3], [length // 2]]).astype(np.int64)
    y = np.concatenate([ids[:, 1:], np.full((CASE.batch, 1), IGNORE)], 1)
    y[:, :-1][mask[:, 1:] == 0] = IGNORE
    return {"input_ids": ids, "attention_mask": mask}, y


@pytest.fixture(scope="module", params=CASE.free)
def both(request):
    model = load(f"gpt2.{request.param}")
    return model, compiled(model, LENGTHS), {n: compiled(model, [n]) for n in LENGTHS}


def test_each_variant_is_the_program_of_its_length(both):
    _, together, alone = both
    for n in LENGTHS:
        one, other = el.Session(together), el.Session(alone[n])
        assert sorted(one.adapter()) == sorted(other.adapter())
        for s in (one, other):
            s.load_adapter(params_of(together))
        xs, y = batch(n)
        assert [one.step(xs, y) for _ in range(3)] == [other.step(xs, y) for _ in range(3)]
        assert all(np.array_equal(a, other.adapter()[k]) for k, a in one.adapter().items())
        assert np.array_equal(one.predict(xs), other.predict(xs))


def test_variants_share_what_they_learn(both):
    _, together, alone = both
    s = el.Session(together)
    s.load_adapter(params_of(together))
    before = s.predict(batch(32)[0])
    for _ in range(3):
        s.step(*batch(16))
    longer = el.Session(alone[32])
    longer.load_adapter(s.adapter())
    after = s.predict(batch(32)[0])
    assert np.array_equal(after, longer.predict(batch(32)[0]))
    assert not np.array_equal(after, before)
    s.step(*batch(32))
    assert s.steps == 4


def test_every_length_predicts_as_onnx_runtime(both):
    model, together, _ = both
    oracle = onnxruntime.InferenceSession(model.SerializeToString())
    for n in LENGTHS:
        xs, _ = batch(n)
        want = oracle.run(None, xs)[0]
        got = el.Session(together).predict(xs)
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_a_length_without_variant_is_refused(both):
    _, together, _ = both
    with pytest.raises(el.InputError, match="no shape variant fits"):
        el.Session(together).step(*batch(24))
