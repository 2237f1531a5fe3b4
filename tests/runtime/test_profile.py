from __future__ import annotations

import numpy as np
import pytest
from tests.runtime.mlp import BATCH, HIDDEN, IN, compiled, samples

import edgeloop as el
from edgeloop import _core
from edgeloop.errors import ConfigError
from edgeloop.runtime import limits
from edgeloop.runtime.profile import LEAST_RUNS, Profiler, totals
from edgeloop.runtime.trace import trace
from edgeloop.runtime.work import moved

WIDE = 2048  # rows of a batch that several workers share


@pytest.fixture(scope="module")
def program() -> el.Program:
    return compiled(batch=WIDE, threads=2, entries=("train", "predict", "grad"))


@pytest.fixture(scope="module")
def profiled(program):
    return Profiler(program, threads=2).profile(seconds=0)


def test_every_step_has_a_time_a_layer_and_a_limit(program, profiled):
    entry = program.entries["train"]
    assert [s.layer for s in profiled.steps] == list(entry.layers)
    assert [s.flops for s in profiled.steps] == list(entry.flops)
    assert all(s.seconds > 0 and s.limit_seconds > 0 for s in profiled.steps)
    assert profiled.runs == LEAST_RUNS
    assert (profiled.entry, profiled.threads, profiled.program) == ("train", 2, program.hash)


def test_totals_add_up(profiled):
    total = profiled.totals
    for key in ("seconds", "flops", "bytes_read", "bytes_written", "limit_seconds", "steps"):
        assert sum(row[key] for row in profiled.operators()) == pytest.approx(total[key], rel=1e-12)
    assert total["steps"] == len(profiled.steps)
    assert total["share_of_limit"] == pytest.approx(total["limit_seconds"] / total["seconds"])
    assert totals([])["share_of_limit"] == 0


def test_bytes_are_those_of_the_operands(profiled):
    first = next(s for s in profiled.steps if s.kernel == "linear")
    assert first.shapes[:2] == ((WIDE, IN), (HIDDEN, IN))
    read = WIDE * IN + HIDDEN * IN + HIDDEN
    assert (first.bytes_read, first.bytes_written) == (4 * read, 4 * WIDE * HIDDEN)


def test_a_profile_leaves_the_weights_and_steps_like_a_session(program):
    profiler, session = Profiler(program, isa="ref"), el.Session(program, isa="ref")
    before = profiler.adapter()
    profiler.profile(seconds=0)
    assert all(np.array_equal(a, before[n]) for n, a in profiler.adapter().items())
    x, y = samples(BATCH)
    assert profiler.step(x, y) == session.step(x, y)
    np.testing.assert_array_equal(profiler.predict(x), session.predict(x))


def test_the_clock_changes_no_bit(program):
    """profile() runs the kernels that run() does, on any number of threads."""
    outputs = []
    for threads in (1, 2):
        p = Profiler(program, threads=threads, isa="ref")
        p.profile("grad", seconds=0)
        outputs.append({n: a.copy() for n, a in p._only("grad").outputs.items()})
        _core.run(p._runner, p._only("grad").index, 0, 10_000)
        outputs.append({n: a.copy() for n, a in p._only("grad").outputs.items()})
    assert any(np.abs(a).max() > 0 for n, a in outputs[0].items() if n.startswith("grad:"))
    for other in outputs[1:]:
        assert all(np.array_equal(a, other[n]) for n, a in outputs[0].items())


def test_spans_lie_inside_their_steps_and_do_not_overlap_on_a_worker(profiled):
    assert max(s.chunks for s in profiled.steps) > 1
    chunks = iter(profiled.chunk_spans.astype(np.int64).tolist())
    end_of: dict[int, int] = {}
    last = 0
    for step, (begin, end, _) in zip(profiled.steps, profiled.step_spans.tolist(), strict=True):
        assert last <= begin <= end
        last = end
        for first, done, worker in sorted(next(chunks) for _ in range(step.chunks)):
            assert begin <= first <= done <= end
            assert worker in (0, 1)
            assert end_of.get(worker, 0) <= first
            end_of[worker] = done
    assert next(chunks, None) is None


def test_an_unknown_entry_names_those_there_are(program):
    with pytest.raises(ConfigError, match="no entry 'apply'; it has train, grad, predict"):
        Profiler(program).profile("apply")


def test_buffers_of_another_length_are_refused(program):
    p = Profiler(program)
    entry = p.program.entries["predict"]
    steps = np.zeros((entry.steps, 3), np.uint64)
    with pytest.raises(ValueError, match="bad argument"):
        _core.profile(p._runner, entry.index, steps[:-1], np.zeros((entry.steps, 3), np.uint64))
    with pytest.raises(ValueError, match="bad argument"):
        _core.profile(p._runner, 99, steps, steps)


def test_a_gather_reads_the_rows_it_picks():
    """An embedding is not read as a whole."""
    from edgeloop.program.table import TableStep, TableTensor

    tensors = (
        TableTensor("weights", 0, "f32", (1000, 4), (4, 1)),
        TableTensor("io", 0, "i32", (3,), (1,)),
        TableTensor("arena", 0, "f32", (3, 4), (4, 1)),
    )
    opcode = next(code for code, name, _ in _core.kernels() if name == "gather")
    program = type("P", (), {"table": type("T", (), {"tensors": tensors})})
    step = TableStep(opcode, (0, 1, 2), (0,), 1, 0, 0)
    assert moved(program, step, "ref") == (3 * 4 * 4 + 3 * 4, 3 * 4 * 4)


# limits


def test_limits_are_positive_and_caches_are_not_slower():
    found = limits.measure(1, ("int8",), 1 << 18)
    assert set(found.operations) == set(found.instructions) >= {"f32"}
    assert all(rate > 0 for rate in found.operations.values())
    assert [size for size, _ in found.bandwidth] == [16 << 10, 64 << 10, 256 << 10]
    rates = [rate for _, rate in found.bandwidth]
    assert rates == sorted(rates, reverse=True)


def test_a_step_is_bound_by_what_takes_longer():
    found = limits.Limits(1, {"f32": 100.0, "int8": 400.0}, {}, ((10, 50.0), (100, 10.0)))
    assert found.seconds("f32", 1000, 10) == (10.0, "compute")
    assert found.seconds("int8", 1000, 10) == (2.5, "compute")
    assert found.seconds("bf16", 1000, 10) == (10.0, "compute")  # no such instruction: as f32
    assert found.seconds("f32", 0, 50) == (1.0, "memory")
    assert found.seconds("f32", 0, 100) == (10.0, "memory")


def test_the_core_says_what_it_measures_with():
    ops, name = _core.peak("f32", 10)
    assert ops > 0
    assert name
    with pytest.raises(ValueError, match="unknown kind 'f64'"):
        _core.peak("f64", 1)
    buffer = bytearray(range(256)) * 16
    buffer[2048:] = bytes(2048)
    assert _core.bandwidth(buffer, True, 2) == 2 * 4096
    assert buffer[2048:] == buffer[:2048]
    assert _core.bandwidth(buffer, False, 3) == 3 * 4096


# traces


@pytest.mark.parametrize("threads", [1, 2])
def test_a_trace_is_in_the_trace_event_format(program, threads):
    profiled = Profiler(program, threads=threads).profile(seconds=0)
    document = trace(profiled)
    assert set(document) == {"traceEvents", "displayTimeUnit"}
    named = {}
    open_until: dict[int, float] = {}
    spans = []
    for event in document["traceEvents"]:
        assert (event["pid"], type(event["tid"])) == (1, int)
        if event["ph"] == "M":
            named[event["name"], event["tid"]] = event["args"]["name"]
            continue
        assert event["ph"] == "X"
        assert isinstance(event["name"], str)
        assert event["ts"] >= 0
        assert event["dur"] >= 0
        spans.append(event)
    for event in sorted(spans, key=lambda e: e["ts"]):  # spans of a track follow each other
        assert event["ts"] >= open_until.get(event["tid"], 0) - 1e-3
        open_until[event["tid"]] = event["ts"] + event["dur"]
    tracks = [name for (kind, _), name in named.items() if kind == "thread_name"]
    assert tracks == (["steps"] if threads == 1 else ["steps", "worker 0", "worker 1"])
    steps = [e for e in spans if e["tid"] == 0]
    assert [e["args"]["layer"] for e in steps] == [s.layer for s in profiled.steps]
    assert sum(e["args"]["flops"] for e in steps) == profiled.totals["flops"]
    assert sum(e["args"]["bytes"] for e in steps) == (
        profiled.totals["bytes_read"] + profiled.totals["bytes_written"])
    assert f"{WIDE}x{IN}" in next(e for e in steps if e["name"] == "linear")["args"]["shapes"]
    assert len(spans) - len(steps) == (
        0 if threads == 1 else sum(s.chunks for s in profiled.steps))
