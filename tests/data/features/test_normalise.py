"""Running statistics against NumPy over all windows; what moves them, and what never does."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from data.features.oracles import window
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.data.features import Chain, Normalise, Scale, from_spec
from edgeloop.errors import DataError


def windows(count, shape):
    return np.stack([(k + 1) * window(shape, k) + k for k in range(count)])


@given(st.integers(1, 6), st.sampled_from([[], [-1], [0], [0, 1], [1, 0]]))
def test_running_statistics_are_those_of_all_windows(count, keep):
    pipeline, seen = Normalise(by="running", keep=keep), windows(count, (5, 3))
    for x in seen:
        out = pipeline.observe(x)
    axes = tuple({0, 1, 2} - {axis % 2 + 1 for axis in keep})
    exact = seen.astype(np.float64)
    mean, std = exact.mean(axes, keepdims=True), exact.std(axes, keepdims=True)
    wanted = ((exact[-1] - mean) / np.maximum(std, 1e-6))[0]
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)


def test_memory_forgets_with_the_weights_that_the_docstring_gives():
    pipeline, seen = Normalise(by="running", memory=3), windows(6, (50,)).astype(np.float64)
    mean, var = 0.0, 1.0
    for t, x in enumerate(seen, 1):
        pipeline.observe(x)
        a, d = 1 / min(t, 3), x.mean() - mean
        mean, var = mean + a * d, (1 - a) * (var + a * d * d) + a * x.var()
    state = pipeline.state()
    assert state["seen"] == 6
    np.testing.assert_allclose([state["mean"][0], state["var"][0]], [mean, var], rtol=1e-12)


@pytest.mark.parametrize("moves", [False, True])
def test_predicting_does_not_move_them(monkeypatch, moves):
    if moves:  # the check switched off: a call learns
        monkeypatch.setattr(Normalise, "_run", Normalise._observe)
    pipeline = Chain(steps=[Scale(factor=2), Normalise(by="running")])
    pipeline.observe(window((50,)))
    before = pipeline.state()
    pipeline(100 * window((50,), 1))
    assert (pipeline.state() != before) == moves


def test_before_the_first_window_constants_stand_in():
    pipeline = Normalise(by="running", mean=2.0, std=4.0)
    assert pipeline([6.0, 2.0]).tolist() == [1.0, 0.0]
    assert pipeline.state() == {"seen": 0, "mean": [], "var": []}
    pipeline.load_state(json.loads(json.dumps(pipeline.state())))
    assert pipeline([6.0, 2.0]).tolist() == [1.0, 0.0]


def test_they_freeze():
    pipeline = Normalise(by="running", freeze_after=2)
    for k in range(2):
        pipeline.observe(window((50,), k))
    before = pipeline.state()
    out = pipeline.observe(9 * window((50,), 3))
    assert pipeline.state() == before
    assert np.array_equal(out, pipeline(9 * window((50,), 3)))


def test_the_window_of_another_length_goes_on_with_what_was_learnt():
    pipeline = Normalise(by="running", keep=[-1])
    pipeline.observe(window((50, 3)))
    before = pipeline.state()
    pipeline(window((20, 3)))
    assert pipeline.state() == before
    with pytest.raises(DataError, match=r"learnt are of 3 groups, a window of shape \[50, 2\]"):
        pipeline(window((50, 2)))
    assert pipeline.state() == before
    pipeline.observe(window((50, 3), 1))
    assert pipeline.state()["seen"] == 2


@pytest.mark.parametrize("checked", [True, False])
def test_a_window_that_would_spoil_them_is_refused(monkeypatch, checked):
    pipeline = Chain(steps=[Scale(factor=1e30), Normalise(by="running")])
    pipeline.observe(window((50,)))
    before = pipeline.state()
    if not checked:
        monkeypatch.setattr("math.isfinite", lambda _: True)
    refused = pytest.raises(DataError, match="variance is not finite")
    with refused if checked else contextlib.nullcontext():
        pipeline.observe(1e20 * window((50,)))
    assert (pipeline.state() == before) == checked


def test_a_channel_that_does_not_move_is_0_not_infinite():
    x = window((50, 2))
    x[:, 1] = 3.0
    assert not Normalise(by="window", keep=[-1])(x)[:, 1].any()


@pytest.mark.parametrize(
    "state",
    [
        {"seen": 1, "mean": [0.0, 1.0], "var": [1.0]},
        {"seen": 1, "mean": [], "var": []},
        {"seen": 0, "mean": [0.0], "var": [1.0]},
        {"seen": True, "mean": [0.0], "var": [1.0]},
        {"seen": 1, "mean": [0.0], "var": [-1.0]},
        {"seen": 1, "mean": [float("nan")], "var": [1.0]},
        {"seen": 1, "mean": ["0"], "var": [1.0]},
        {"seen": 1, "mean": [0.0], "var": [1.0], "more": 1},
        {"seen": 1, "mean": [0.0, 0.0], "var": [1.0, 1.0]},
    ],
)
def test_a_bad_state_is_refused_by_itself_and_in_a_chain(state):
    alone, chain = (from_spec(r) for r in (RUNNING, {"steps": [{"kind": "scale"}, RUNNING]}))
    for pipeline, bad in ((alone, state), (chain, {"steps": [{}, state]})):
        pipeline.observe(window((50,)))
        before = pipeline.state()
        with pytest.raises(DataError, match="state"):
            pipeline.load_state(bad)
        assert pipeline.state() == before


def test_a_chain_takes_all_of_a_state_or_none():
    chain = from_spec({"steps": [RUNNING, RUNNING]})
    chain.observe(window((50,)))
    before = chain.state()
    good = {"seen": 9, "mean": [5.0], "var": [2.0]}
    with pytest.raises(DataError, match=r"steps\[1\] \(normalise\): not a state"):
        chain.load_state({"steps": [good, {}]})
    assert chain.state() == before
    chain.load_state({"steps": [good, good]})
    assert chain.state() == {"steps": [good, good]}


RUNNING = {"kind": "normalise", "by": "running"}
