"""Programs whose weights stay in the file: the same bits, and files that fail or change."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.program.tiny import tiny_spec

import edgeloop as el
from edgeloop import _core, compiler
from edgeloop.program import StepSpec
from edgeloop.program.memory import Mapped
from edgeloop.runtime import streaming
from edgeloop.runtime.profile import Profiler
from edgeloop.runtime.slices import Slicer
from edgeloop.runtime.streaming import Stream

BENCH = Path(__file__).parents[2] / "bench"
RESIDENT = 250 << 10


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    sys.path.insert(0, str(BENCH))
    try:
        import llama

        return str(llama.write(tmp_path_factory.mktemp("llama"), llama.SHAPES["tiny"]))
    finally:
        sys.path.remove(str(BENCH))
        sys.modules.pop("llama", None)


def compiled(model: str, **options) -> el.Program:
    """Small as the logits are, the loss comes from their product, whose weight is read in parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "fuse_head", partial(compiler.fuse_head, large=1))
        return el.compile(
            model, train=el.LoRA(rank=4, targets=("*.q", "*.v")), optimizer=el.AdamW(lr=0.01),
            batch=1, threads=2, quantize=el.Quantize("int4", group=32), **options)


@pytest.fixture(scope="module")
def mapped(model) -> el.Program:
    """All weights in memory."""
    return compiled(model)


@pytest.fixture(scope="module")
def made(model) -> el.Program:
    return compiled(model, resident=RESIDENT)


@pytest.fixture
def program(made, tmp_path, monkeypatch) -> el.Program:
    """Loaded from its file, so that weights stay there."""
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "cache"))
    made.save(tmp_path / "a.elp")
    return el.load(tmp_path / "a.elp")


def tokens(step: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(step).integers(0, 2304, (1, 17), np.int32)
    return ids[:, :-1], ids[:, 1:]


def trained(
    program: el.Program, steps: int = 3, slicer: Slicer | None = None, **options
) -> tuple[list[float], bytes]:
    session = el.Session(program, **options)
    session.slice(slicer)
    losses = [session.step(*tokens(i)) for i in range(steps)]
    session.predict(tokens(9)[0])
    losses.append(session.evaluate(*tokens(8))[0])
    return losses, session.snapshot()[-(session.program.plan.param_bytes // 2):]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", [None, "ref"])
def test_bits_are_those_of_weights_in_memory(mapped, made, program, threads, isa):
    want = trained(mapped, isa=isa, threads=threads)
    assert program.weights_file() is not None
    assert trained(program, isa=isa, threads=threads) == want
    assert made.weights_file() is None  # not from a file: a copy of memory
    assert trained(made, isa=isa, threads=threads) == want


def test_the_plan_counts_the_buffers_and_says_what_is_read(mapped, program):
    streams = program.metadata["streams"]
    assert streams["buffers"] + streams["kept"] <= RESIDENT
    assert streams["read"]["train"] > streams["read"]["predict"]
    assert program.plan.arena_bytes > mapped.plan.arena_bytes
    assert program.resident_bytes == 0
    names = {opcode: name for opcode, name, _ in _core.kernels()}
    kernels = [names[s.opcode] for s in program.table.steps]
    assert kernels.count("qhead") > 2
    assert kernels.count("qhead_loss") == 1
    assert any("stay in the file" in note for note in program.plan.notes)


@pytest.mark.parametrize("steps", [1, 7])
def test_pages_given_back_more_often_change_nothing(mapped, program, monkeypatch, steps):
    monkeypatch.setattr(streaming, "SLICE", steps)
    assert trained(program) == trained(mapped)


@pytest.mark.parametrize("seconds", [0.0, 1e-3])
@pytest.mark.parametrize("threads", [1, 2])
def test_slices_change_nothing(mapped, program, threads, seconds):
    want = trained(mapped, threads=threads)
    calls: list[int] = []
    slicer = Slicer(seconds, lambda: calls.append(1))
    assert trained(program, threads=threads, slicer=slicer) == want
    assert calls


def test_what_is_raised_between_slices_is_not_taken_for_a_bad_disk(program):
    """An OSError, as reads raise: of a time-out of whoever was called."""
    session, whole = el.Session(program), el.Session(program)
    whole.step(*tokens(0))

    def stop():
        raise TimeoutError

    session.slice(Slicer(0.0, stop))
    with pytest.raises(TimeoutError):
        session.step(*tokens(0))
    session.slice(None)
    assert session.snapshot() == whole.snapshot()
    assert session.step(*tokens(1)) == whole.step(*tokens(1))


def test_an_interrupt_within_a_step_waits_for_a_snapshot(program, monkeypatch):
    session, whole = el.Session(program), el.Session(program)
    before = session.snapshot()

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Mapped, "forget", interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.step(*tokens(0))
    with pytest.raises(el.ProgramError, match=r"half-way \(it was interrupted\): bring back"):
        session.predict(tokens(0)[0])
    session.restore(before)
    assert session.step(*tokens(0)) == whole.step(*tokens(0))


def slow(session: el.Session, **options) -> None:
    file = session.program.weights_file()
    assert file is not None
    hold = 3_000_000
    _core.stream(session._runner, file.descriptor, session.program.weights_start(), hold,
                 *options.values())


def test_a_slow_disk_changes_nothing(mapped, program):
    want = el.Session(mapped).step(*tokens(0))
    session = el.Session(program)
    slow(session)
    assert session.step(*tokens(0)) == want


def test_without_waiting_a_slow_disk_would_change_everything(mapped, program):
    """Control: readers that do not wait find what was in the arena before."""
    want = el.Session(mapped).step(*tokens(0))
    session = el.Session(program)
    slow(session, unordered=True)
    with contextlib.suppress(el.NonFiniteError):
        assert session.step(*tokens(0)) != want


def test_part_of_an_entry_leaves_no_read_under_way(mapped, program):
    one, two = el.Session(mapped), el.Session(program)
    assert one.step(*tokens(0)) == two.step(*tokens(0))
    entry = two._only("train")
    for k in range(entry.steps):
        _core.run(two._runner, entry.index, k, k + 1)
    before = entry.outputs["loss"].copy()
    assert float(before[()] if before.ndim == 0 else before.reshape(-1)[0]) == one.step(*tokens(0))


def test_a_profile_waits_for_what_it_reads(program):
    session = Profiler(program)
    want = el.Session(program).predict(tokens(0)[0])
    report = session.profile("predict", seconds=0.01)
    kernels = [s.kernel for s in report.steps]
    assert "fetch" in kernels
    np.testing.assert_array_equal(session.predict(tokens(0)[0]), want)


def test_a_changed_file_is_refused_and_nothing_happens(program, tmp_path):
    session = el.Session(program)
    session.step(*tokens(0))
    before = session.snapshot()
    copy = next((tmp_path / "cache").rglob("*.elp"))
    flip(copy, program.weights_start() + 70_000)
    with pytest.raises(el.ProgramError, match=r"changed since it was loaded; nothing has changed"):
        session.step(*tokens(1))
    assert session.snapshot() == before


def test_without_the_look_at_the_file_it_would_be_read(program, tmp_path, monkeypatch):
    """Control: the check is what finds a changed file."""
    session = el.Session(program)
    want = el.Session(program).step(*tokens(0))
    monkeypatch.setattr(Stream, "_check", lambda *_: None)
    copy = next((tmp_path / "cache").rglob("*.elp"))
    for at in range(0, 600_000, 4_000):
        flip(copy, program.weights_start() + at)
    assert session.step(*tokens(0)) != want


def test_touched_but_unchanged_is_hashed_and_accepted(program, tmp_path):
    session = el.Session(program)
    copy = next((tmp_path / "cache").rglob("*.elp"))
    os.utime(copy)
    session.step(*tokens(0))
    copy.unlink()  # the descriptor still has it
    session.step(*tokens(1))


def flip(path: Path, at: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 0x55]))


def torn(program: el.Program, tmp_path: Path, monkeypatch, keep: int) -> el.Session:
    """A session whose file ends early, which nobody has noticed."""
    file = program.weights_file()
    assert isinstance(file, Mapped)
    short = tmp_path / "short"
    short.write_bytes(program.to_bytes()[:keep])
    with short.open("rb") as f:
        os.dup2(f.fileno(), file.descriptor)
    monkeypatch.setattr(Stream, "_check", lambda *_: None)
    return el.Session(program)


def test_a_failed_read_is_one_error_and_the_session_waits_for_a_snapshot(
    program, tmp_path, monkeypatch
):
    good = el.Session(el.load(tmp_path / "a.elp"))
    good.step(*tokens(0))
    kept = good.snapshot()
    good.step(*tokens(1))
    after = good.snapshot()
    session = torn(program, tmp_path, monkeypatch, program.weights_start() + 200_000)
    session.restore(kept)
    with pytest.raises(el.ProgramError, match=r"could not be read .* half a step: bring back"):
        session.step(*tokens(1))
    with pytest.raises(el.ProgramError, match="stopped half-way"):
        session.step(*tokens(1))
    with pytest.raises(el.ProgramError, match="stopped half-way"):
        session.predict(tokens(1)[0])
    session.restore(kept)
    with pytest.raises(el.ProgramError, match="could not be read"):  # the disk is still bad
        session.step(*tokens(1))
    whole = el.Session(el.load(tmp_path / "a.elp"))
    whole.restore(kept)
    whole.step(*tokens(1))
    assert whole.snapshot() == after


def test_a_failed_read_of_a_prediction_leaves_the_session_as_it_was(
    program, tmp_path, monkeypatch
):
    session = torn(program, tmp_path, monkeypatch, program.weights_start() + 200_000)
    before = session.snapshot()
    for _ in range(2):
        with pytest.raises(el.ProgramError, match=r"could not be read .* nothing has changed"):
            session.predict(tokens(1)[0])
    assert session.snapshot() == before


def test_pages_that_were_hashed_or_looked_up_are_given_back(program):
    session = el.Session(program)
    session.step(*tokens(0))
    assert _resident(program) == 0


def test_kept_pages_would_stay(program, monkeypatch):
    """Control: without giving them back, some are there."""
    monkeypatch.setattr(Mapped, "forget", lambda _: None)
    session = el.Session(program)
    session.step(*tokens(0))
    assert _resident(program) > 0


def _resident(program: el.Program) -> int:
    """Bytes of the program's map that are in this process."""
    file = program.weights_file()
    assert file is not None
    start = np.frombuffer(file, np.uint8).ctypes.data
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.startswith(f"{start:x}-"):
            return next(int(at.split()[1]) << 10 for at in lines if at.startswith("Rss:"))
    raise AssertionError("the map is not there")


@pytest.mark.parametrize("size", ["a lot", 3.5, "0 b"])
def test_sizes_that_make_no_sense(model, size):
    with pytest.raises(el.CompileError, match="resident"):
        compiled(model, resident=size)


@pytest.mark.parametrize("streams", [True, False])
def test_a_fetch_of_what_is_no_weight_is_a_copy(tmp_path, monkeypatch, streams):
    """A table of another origin may fetch an input; the file is not read for it."""
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "cache"))
    spec = tiny_spec()
    fetch = StepSpec("fetch", (0, 1), (0, 0), 1, 0, 0, "first", 0)
    train, predict = spec.entries
    program = el.Program.from_spec(replace(
        spec, entries=(train, replace(predict, steps=(fetch, *predict.steps[1:]))),
        metadata={**spec.metadata, **({"streams": {"resident": 1}} if streams else {})}))
    program.save(tmp_path / "a.elp")
    loaded = el.load(tmp_path / "a.elp")
    assert (loaded.weights_file() is not None) == streams
    x = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    np.testing.assert_array_equal(el.Session(loaded).predict(x), np.maximum(x, 0))
