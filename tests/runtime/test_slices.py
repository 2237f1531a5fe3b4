"""Runs in slices: the same bits wherever they are cut, control in between, bounded in time."""

import pytest
from tests.runtime.mlp import compiled, samples

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
    for name, array in whole.adapter().items():
        assert (array == session.adapter()[name]).all()


def test_slices_are_as_long_as_they_may_be_once_steps_are_known():
    now, ran = [0.0], []

    def run(first, last):
        ran.append((first, last))
        now[0] += 0.001 * (last - first) + (0.02 if first <= 7 < last else 0.0)

    slicer = Slicer(0.005, lambda: None, clock=lambda: now[0])
    slicer.run(0, 12, run)
    assert ran == [(i, i + 1) for i in range(12)]  # nothing is known yet
    ran.clear()
    slicer.run(0, 12, run)
    assert ran == [(0, 5), (5, 7), (7, 8), (8, 12)]  # a step that is longer is a slice of its own
    assert slicer.longest == pytest.approx(0.021)
    assert slicer.slices == 16


def test_one_slow_slice_does_not_mislead_for_long():
    now, slow = [0.0], [1.0]

    def run(first, last):
        now[0] += 0.001 * slow[0] * (last - first)

    slicer = Slicer(0.0045, lambda: None, clock=lambda: now[0])
    slicer.run(0, 8, run)
    slow[0] = 8.0
    slicer.run(0, 8, run)
    slow[0] = 1.0
    before = slicer.slices
    for _ in range(12):
        slicer.run(0, 8, run)
    count = slicer.slices
    slicer.run(0, 8, run)
    assert slicer.slices - count == 2
    assert count > before


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
