"""What holds of every kind, swept over KINDS and their examples: a new kind needs no test file."""

from __future__ import annotations

import inspect
import json
import tracemalloc

import numpy as np
import pytest
from data.features.oracles import window

from edgeloop.data import features
from edgeloop.data.features import KINDS, from_spec
from edgeloop.data.features.base import Features
from edgeloop.errors import DataError

EVERY = [
    pytest.param({"kind": kind, **options}, shape, id=f"{kind}-{i}")
    for kind, made in KINDS.items()
    for i, (options, shape) in enumerate(made.examples())
]
FIRST = [p for p in EVERY if p.id.endswith("-0")]
WINDOWS = 1000


def test_every_kind_is_listed_once_under_its_name():
    kinds = [v for v in vars(features).values() if isinstance(v, type) and v is not Features]
    assert sorted(made.kind for made in kinds) == sorted(KINDS)
    assert all(kind == made.kind for kind, made in KINDS.items())
    assert all(list(made.examples()) for made in KINDS.values())


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_in_the_record_and_in_the_docstring(kind):
    made = KINDS[kind]
    keys = set(inspect.signature(made).parameters)
    options, _ = next(iter(made.examples()))
    assert set(from_spec({"kind": kind, **options}).spec()) == keys | {"kind"}
    _, _, described = inspect.getdoc(made).partition("Parameters\n----------\n")
    heads = [line for line in described.splitlines() if line and not line.startswith(" ")]
    assert {name for line in heads for name in line.split(", ")} == keys


@pytest.mark.parametrize(("record", "shape"), EVERY)
def test_record_round_trips_through_json(record, shape):
    pipeline = from_spec(record)
    text = json.dumps(pipeline.spec(), allow_nan=False)
    again = from_spec(json.loads(text))
    assert json.dumps(again.spec()) == text
    assert np.array_equal(again(window(shape)), pipeline(window(shape)))


@pytest.mark.parametrize(("record", "shape"), EVERY)
def test_the_record_is_the_callers_own(record, shape):
    del shape
    pipeline = from_spec(record)
    wanted = json.dumps(pipeline.spec())
    scribble(pipeline.spec())
    assert json.dumps(pipeline.spec()) == wanted


def scribble(value):
    """Change everything that can be changed in a record."""
    if isinstance(value, dict):
        for each in value.values():
            scribble(each)
        value.clear()
    elif isinstance(value, list):
        for each in value:
            scribble(each)
        value.clear()


@pytest.mark.parametrize(("record", "shape"), EVERY)
def test_results(record, shape):
    pipeline, x = from_spec(record), window(shape)
    before = x.copy()
    out = pipeline(x)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert out.shape == pipeline.output_shape == pipeline.plan(shape)
    assert np.array_equal(x, before)
    assert not np.shares_memory(pipeline(x), out)
    filled = np.full(out.shape, np.nan, np.float32)
    assert pipeline(x, out=filled) is filled
    assert np.array_equal(filled, out)
    strided = np.full((*out.shape, 2), np.nan, np.float32)[..., 1]
    assert np.array_equal(pipeline(x, out=strided), out)
    assert np.array_equal(pipeline(np.asfortranarray(x)), out)
    assert np.array_equal(pipeline(x.astype(np.float64)), out)


@pytest.mark.parametrize(("record", "shape"), EVERY)
def test_batch_equals_single_windows_and_buffers_hold_no_history(record, shape):
    windows = np.stack([window(shape, seed) for seed in range(3)])
    windows[1] *= 1000
    together = from_spec(record).batch(windows)
    for x, row in zip(windows[::-1], together[::-1], strict=True):
        assert np.array_equal(from_spec(record)(x), row)


@pytest.mark.parametrize(("record", "shape"), EVERY)
def test_a_call_learns_nothing(record, shape):
    pipeline = from_spec(record)
    wanted, state = pipeline(window(shape)), pipeline.state()
    pipeline(window(shape, 1))
    assert pipeline.state() == state
    assert np.array_equal(pipeline(window(shape)), wanted)


@pytest.mark.parametrize(("record", "shape"), EVERY)
def test_a_state_goes_on_with_the_same_bits(record, shape):
    ours, theirs = from_spec(record), from_spec(record)
    for seed in range(3):
        ours.observe(window(shape, seed))
    assert bool(ours.state()) == ours.stateful
    theirs.load_state(json.loads(json.dumps(ours.state(), allow_nan=False)))
    for seed in range(3, 8):
        x = window(shape, seed)
        assert np.array_equal(ours.observe(x), theirs.observe(x))
    assert theirs.state() == ours.state()
    moved = not np.array_equal(ours(window(shape)), from_spec(record)(window(shape)))
    assert moved == ours.stateful


@pytest.mark.parametrize(("record", "shape"), FIRST)
def test_a_state_of_something_else_is_refused(record, shape):
    pipeline = from_spec(record)
    pipeline.observe(window(shape))
    state = pipeline.state()
    for wrong in ({"odd": 1}, {"steps": [{}]}, {"seen": -1, "mean": [], "var": []}):
        with pytest.raises(DataError):
            pipeline.load_state(wrong)
    assert pipeline.state() == state


@pytest.mark.parametrize(("record", "shape"), EVERY)
def test_windows_that_cannot_be_are_refused(record, shape):
    pipeline = from_spec(record)
    out = pipeline(window(shape))
    for bad, said in ((np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (-np.inf, "NaN")):
        x = window(shape)
        x[-1] = bad
        with pytest.raises(DataError, match=said):
            pipeline(x)
        with pytest.raises(DataError, match=said):
            pipeline.batch(x[None])
    for x, said in (
        (np.zeros(shape, np.complex64), "complex64"),
        (np.full(shape, "1"), "<U1"),
        (np.full(shape, None), "object"),
        ([[1.0], [1.0, 2.0]], "not an array"),
        (np.zeros((0, *shape[1:]), np.float32), "shape"),
    ):
        with pytest.raises(DataError, match=said):
            pipeline(x)
    assert np.array_equal(pipeline(window(shape)), out)


@pytest.mark.parametrize(("record", "shape"), EVERY)
def test_out_of_another_shape_or_type_is_refused(record, shape):
    pipeline = from_spec(record)
    made = pipeline(window(shape)).shape
    for out in (np.empty((*made, 1), np.float32), np.empty(made, np.float64)):
        with pytest.raises(DataError, match="out is"):
            pipeline(window(shape), out=out)


@pytest.mark.parametrize(("record", "shape"), EVERY)
def test_other_keys_are_refused(record, shape):
    del shape
    with pytest.raises(DataError, match="unknown key 'knd'"):
        from_spec({**record, "knd": 1})


@pytest.mark.parametrize(("record", "shape"), FIRST)
@pytest.mark.parametrize("learn", [False, True])
def test_a_warm_pipeline_allocates_nothing(record, shape, learn):
    pipeline, x = from_spec(record), window(shape)
    out = pipeline(x)
    call = pipeline.observe if learn else pipeline
    growth, peak = allocated(lambda: call(x, out=out))
    assert growth <= 1024
    assert peak < min(x.nbytes, 4096)


@pytest.mark.parametrize(("record", "shape"), EVERY)
def test_the_bytes_it_says_are_the_bytes_it_holds(record, shape):
    from_spec(record).plan(shape)  # what is imported or cached by a first use
    tracemalloc.start()
    try:
        pipeline = from_spec(record)
        pipeline.plan(shape)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    said = pipeline.buffer_bytes()
    assert held * 0.95 - 32768 <= said <= held


def test_the_measurement_notices_a_copy_of_the_window():
    x = window((4096, 3))
    pipeline = from_spec({"kind": "scale"})
    out = pipeline(x)
    kept = []
    assert allocated(lambda: pipeline(x.copy(), out=out))[1] > x.nbytes
    assert allocated(lambda: kept.append(bytes(8)) or pipeline(x, out=out))[0] > 1024


def allocated(call):
    """Bytes that 1,000 warm calls keep, and the most that one had at a time."""
    call()
    tracemalloc.start()
    try:
        for _ in range(10):
            call()
        start, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(WINDOWS):
            call()
        end, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return end - start, peak - start
