"""Runs in slices: the same bits wherever they are cut, control in between, bounded in time."""

import numpy as np
import pytest
from models.zoo import ds_cnn
from tests.runtime.mlp import BATCH, compiled, samples

import edgeloop as el
from edgeloop.runtime.slices import Slicer
from edgeloop.runtime.work import work


def rows(seed=0):
    return samples(8, seed)


def trained(program, seconds=None, between=lambda: None, threads=1):
    session = el.Session(program, threads=threads)
    if seconds is not None:
        session.slice(Slicer(seconds, between))
    losses = [session.step(*rows(i)) for i in range(4)]
    return losses, session.snapshot(), session


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("options", [{}, {"optimizer": el.AdamW(lr=1e-2), "quantize": "int8"}])
@pytest.mark.parametrize("seconds", [0.0, 20e-6, 1.0])
def test_slices_change_no_bit(seconds, options, threads):
    program = compiled(threads=2, **options)
    calls = []
    losses, state, _ = trained(program, threads=threads)
    assert trained(program, seconds, lambda: calls.append(1), threads)[:2] == (losses, state)
    if seconds == 0.0:
        entries = [program.entries[n] for n in program.entries if n in ("train", "accumulate")]
        assert len(calls) >= 4 * (entries[0].steps - 1)  # after every step but the last


def test_another_session_may_predict_in_between():
    program = compiled()
    other = el.Session(program)
    x, _ = rows()
    want = other.predict(x)
    seen = []
    losses, state, _ = trained(program)
    found = trained(program, 0.0, lambda: seen.append((other.predict(x) == want).all()))
    assert found[:2] == (losses, state)
    assert seen
    assert all(seen)


def test_what_is_raised_in_between_comes_when_the_step_is_whole():
    program = compiled()
    session = el.Session(program)
    for i in range(3):
        session.step(*rows(i))

    def stop():
        raise InterruptedError

    session.slice(Slicer(0.0, stop))
    with pytest.raises(InterruptedError):
        session.step(*rows(3))
    session.slice(None)
    whole = el.Session(program)
    for i in range(4):
        whole.step(*rows(i))
    assert session.snapshot() == whole.snapshot()  # the number of steps as well


def test_raised_at_once_it_would_leave_half_a_step(monkeypatch):
    """The control of the one above: the program's last step is one of several updates."""
    program = compiled()
    session, whole = el.Session(program), el.Session(program)
    whole.step(*rows())
    before, calls = session.snapshot(), []

    def stop():
        calls.append(1)
        if len(calls) == program.entries["train"].steps - 1:
            raise InterruptedError

    monkeypatch.setattr(Slicer, "_return", lambda self: (setattr(self, "_spent", 0.0), stop()))
    session.slice(Slicer(0.0, stop))
    with pytest.raises(InterruptedError):
        session.step(*rows())
    assert session.snapshot() not in (before, whole.snapshot())


def test_what_is_raised_in_between_does_not_hide_that_a_step_failed():
    session = el.Session(compiled())
    before = session.snapshot()

    def stop():
        raise InterruptedError

    session.slice(Slicer(0.0, stop))
    x, y = rows()
    with pytest.raises(InterruptedError) as caught:
        session.step(np.full_like(x, 3e38), y)
    assert isinstance(caught.value.__context__, el.NonFiniteError)
    session.slice(None)
    assert session.snapshot() == before
    session.step(x, y)  # nothing is left to be raised


def interrupted(session, steps, call):
    """Run into an interrupt from the keyboard right after so many slices."""
    slicer = Slicer(0.0, lambda: None)
    counted = slicer._learn

    def learn(*args):
        if slicer.slices == steps:
            raise KeyboardInterrupt
        counted(*args)

    slicer._learn = learn
    session.slice(slicer)
    with pytest.raises(KeyboardInterrupt):
        call()
    session.slice(None)


def test_an_interrupt_within_a_step_locks_the_session_until_it_is_restored():
    program = compiled()
    session, whole = el.Session(program), el.Session(program)
    before = session.snapshot()
    interrupted(session, program.entries["train"].steps - 2, lambda: session.step(*rows()))
    assert session.snapshot() != before
    for call in (lambda: session.step(*rows()), lambda: session.predict(rows()[0])):
        with pytest.raises(el.ProgramError, match="half-way: bring back a snapshot"):
            call()
    session.restore(before)
    assert session.step(*rows()) == whole.step(*rows())
    assert session.snapshot() == whole.snapshot()


def test_an_interrupt_within_a_prediction_locks_nothing():
    session = el.Session(compiled())
    want = session.predict(rows()[0])
    interrupted(session, 1, lambda: session.predict(rows()[0]))
    np.testing.assert_array_equal(session.predict(rows()[0]), want)


class World:
    """Runs whose steps take a millisecond, and what happened in order."""

    def __init__(self, seconds):
        self.now, self.slow, self.log = 0.0, 1.0, []
        self.slicer = Slicer(seconds, lambda: self.log.append("between"), clock=lambda: self.now)

    def run(self, steps, long=None):
        def some(first, last):
            self.log.append((first, last))
            extra = 0.02 if long is not None and first <= long < last else 0.0
            self.now += 0.001 * self.slow * (last - first) + extra

        self.slicer.run(0, steps, some)


def test_slices_are_as_long_as_they_may_be_once_steps_are_known():
    world = World(0.0055)
    world.run(12, long=7)
    assert world.log[::2] == [(i, i + 1) for i in range(12)]  # nothing is known yet
    assert world.log[1::2] == ["between"] * 11
    world.log.clear()
    world.run(12, long=7)
    # One millisecond has passed since the last call. A step that is too long is alone.
    assert world.log == [(0, 4), "between", (4, 7), "between", (7, 8), "between", (8, 12)]
    assert world.slicer.longest == pytest.approx(0.021)
    assert world.slicer.slices == 16


def test_short_runs_share_a_slice():
    """Micro-batches, and the batches of a validation set, each shorter than a slice."""
    world = World(0.0105)
    for _ in range(100):
        world.run(3)
    calls = world.log.count("between")
    assert 30 <= calls <= 34  # 300 ms; the first run returned after each of its steps
    assert world.slicer.longest <= 0.0105


def test_one_slow_slice_does_not_mislead_for_long():
    world = World(0.0045)
    world.run(8)
    world.slow = 8.0
    world.run(8)
    world.slow = 1.0
    for _ in range(12):
        world.run(8)
    world.log.clear()
    for _ in range(10):
        world.run(8)
    assert 19 <= world.log.count("between") <= 21


def test_a_validation_returns_control_between_its_batches():
    session = el.Session(compiled())
    x, y = samples(40 * BATCH)
    want = session.evaluate(x, y)
    now, tick, calls = [0.0], [0.0], []

    def clock():
        now[0] += tick[0]
        return now[0]

    session.slice(Slicer(1.5, lambda: calls.append(1), clock))
    session.evaluate(x, y)  # on a clock that stands still every step is known to take no time
    assert calls == []
    tick[0] = 1.0  # and now each batch takes a second, in one slice
    assert session.evaluate(x, y) == want
    assert len(calls) == 19  # 40 batches, a call after every other one


@pytest.fixture(scope="module")
def micro():
    options = {"train": el.LoRA(rank=4), "batch": 4, "optimizer": el.AdamW()}
    free = el.compile(ds_cnn(), **options)
    made = el.compile(ds_cnn(), **options, budget=int(0.3 * free.plan.ram_bytes), slowdown=1.2)
    assert made.micro_batch
    return made


def images():
    rng = np.random.default_rng(7)
    return rng.standard_normal((4, 1, 49, 10)).astype(np.float32), np.array([0, 5, 11, 3])


@pytest.mark.parametrize("seconds", [0.0, 200e-6, 1.0])
def test_micro_batches_in_slices_are_the_same_step(micro, seconds):
    whole, parts, calls = el.Session(micro), el.Session(micro), []
    parts.slice(Slicer(seconds, lambda: calls.append(1)))
    for _ in range(3):
        assert parts.step(*images()) == whole.step(*images())
    assert parts.snapshot() == whole.snapshot()
    assert calls


def test_what_is_raised_between_micro_batches_leaves_the_step_whole(micro):
    whole, parts = el.Session(micro), el.Session(micro)
    whole.step(*images())

    def stop():
        raise InterruptedError

    parts.slice(Slicer(0.0, stop))
    with pytest.raises(InterruptedError):
        parts.step(*images())
    assert parts.snapshot() == whole.snapshot()


@pytest.mark.parametrize("seconds", [0.0, 20e-6])
def test_steps_from_the_cut_in_slices_are_the_same(seconds):
    program = compiled(train=el.LastLayers(1), entries=(
        "train", "eval", "predict", "features", "train_from", "eval_from"))
    whole, parts, calls = el.Session(program), el.Session(program), []
    parts.slice(Slicer(seconds, lambda: calls.append(1)))
    x, y = rows()
    for s in (whole, parts):
        for _ in range(3):
            s.step_from(s.features(x), y)
    assert parts.evaluate_from(parts.features(x), y) == whole.evaluate_from(whole.features(x), y)
    assert parts.snapshot() == whole.snapshot()
    assert calls


def test_work_is_counted_as_the_plan_has_it():
    program = compiled()
    session = el.Session(program)
    assert session.work == (0, 0)
    session.step(*rows())
    flops, moved = session.work
    assert flops == program.plan.step_flops
    assert moved == work(program, "train", session.isa).bytes > 0
    session.step(*rows())
    assert session.work == (2 * flops, 2 * moved)
    session.predict(rows()[0])
    assert session.work.flops > 2 * flops
