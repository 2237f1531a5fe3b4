"""What sessions count as work: the plan's operations, and the bytes that a profile finds."""

import numpy as np
import pytest
from models.zoo import ds_cnn
from tests.runtime.mlp import BATCH, compiled, samples

import edgeloop as el
from edgeloop.runtime import work as counting
from edgeloop.runtime.profile import Profiler
from edgeloop.runtime.work import work

PROGRAMS = {
    "dense": {},
    "int8": {"optimizer": el.AdamW(lr=1e-2), "quantize": "int8"},
    "parted": {"train": el.LastLayers(1), "entries": (
        "train", "eval", "predict", "features", "train_from", "eval_from")},
}


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request) -> el.Program:
    return compiled(**PROGRAMS[request.param])


def test_a_step_takes_the_operations_of_the_plan_and_the_bytes_of_the_profile(program):
    profiled = Profiler(program, threads=1)
    found = work(program, "train", profiled.isa)
    total = profiled.profile(seconds=0).totals
    assert found.flops == program.plan.step_flops == total["flops"] > 0
    assert found.bytes == total["bytes_read"] + total["bytes_written"] > 0


def test_bytes_without_what_is_written_are_not_those_of_the_profile(program, monkeypatch):
    """The control of the one above."""
    profiled = Profiler(program, threads=1)
    total = profiled.profile(seconds=0).totals
    moved = counting.moved
    monkeypatch.setattr(counting, "moved", lambda *args: (moved(*args)[0], 0))
    found = work(program, "train", profiled.isa)
    assert found.bytes == total["bytes_read"] < total["bytes_read"] + total["bytes_written"]


def test_a_session_counts_each_batch_that_it_runs():
    program = compiled()
    session = el.Session(program)
    step, judge = (work(program, name, session.isa) for name in ("train", "eval"))
    x, y = samples(3 * BATCH - 1)
    session.step(x[:2], y[:2])  # few rows take what a whole batch takes
    session.evaluate(x, y)
    assert session.work == (step.flops + 3 * judge.flops, step.bytes + 3 * judge.bytes)


def test_micro_batches_are_counted_one_by_one():
    options = {"train": el.LoRA(rank=4), "batch": 4, "optimizer": el.AdamW()}
    free = el.compile(ds_cnn(), **options)
    program = el.compile(
        ds_cnn(), **options, budget=int(0.3 * free.plan.ram_bytes), slowdown=1.2)
    runs = -(-4 // program.micro_batch)
    assert runs > 1
    session = el.Session(program)
    rng = np.random.default_rng(7)
    session.step(rng.standard_normal((4, 1, 49, 10)).astype(np.float32), [0, 5, 11, 3])
    part, end = (work(program, name, session.isa) for name in ("accumulate", "apply"))
    assert session.work == (runs * part.flops + end.flops, runs * part.bytes + end.bytes)
    assert session.work.flops == program.plan.step_flops
