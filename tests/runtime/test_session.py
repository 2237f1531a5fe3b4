from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from tests.program.tiny import ROWS, WIDTH, dense, relu, tiny_spec
from tests.runtime.mlp import compiled

import edgeloop as el
from edgeloop.runtime.inputs import as_rows


@pytest.fixture
def session():
    return el.Session(el.Program.from_spec(tiny_spec()))


def rows(n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 11])
def test_predict_takes_any_number_of_rows(session, n):
    x = rows(n)
    np.testing.assert_array_equal(session.predict(x), np.maximum(x, 0))
    np.testing.assert_array_equal(session.predict({"x": x}), np.maximum(x, 0))


def test_a_session_allocates_the_planned_ram():
    program = el.Program.from_spec(tiny_spec())
    session = el.Session(program)
    assert sum(len(r) for r in session._regions) == program.plan.param_bytes + 64
    assert session._regions[0].obj is session._regions[1].obj
    assert len(session._regions[0].obj) == program.plan.ram_bytes


def test_step_updates_in_place_and_counts(session):
    assert session.step(rows(3), [1, 2, 3]) == 3.0  # the tiny program's loss is norm
    assert session.steps == 1
    np.testing.assert_array_equal(session.adapter()["p"], [0, 0, 0, 1, 2])


def test_partial_batches_carry_weight_zero(session):
    x = rows(3)
    session.step(x, [1, 2, 3], sample_weight=[1, 0, 0.5])
    entry = session._only("train")
    np.testing.assert_array_equal(entry.inputs["sample_weight"], [1, 0, 0.5, 0])
    np.testing.assert_array_equal(entry.inputs["x"], [x[0], x[1], x[2], x[0]])
    assert entry.inputs["norm"][0] == 1.5


@pytest.mark.parametrize(("x", "y", "w", "message"), [
    (rows(5), [0] * 5, None, "5 rows; a training step takes at most 4"),
    (rows(2), [0, 8], None, r"'labels' is 8 at row 1; it must be in 0\.\.7"),
    (rows(2), [0, -1], None, "'labels' is -1 at row 1"),
    (rows(2), [0.0, 1.0], None, "input 'labels' has type float64; int32 is needed"),
    (rows(2), [0], None, "differ in their number of rows"),
    (rows(2)[:, :5], [0, 1], None, r"input 'x' has shape \[2, 5\]; \[n, 8\] is needed"),
    (rows(2) * np.float32(np.nan), [0, 1], None, r"input 'x' is nan at row 0, position \[0\]"),
    (np.full((2, WIDTH), 1e300), [0, 1], None, "input 'x' is inf at row 0"),
    (np.array([["a"] * WIDTH]), [0], None, "input 'x' has type <U1"),
    (rows(2)[:0], [], None, "no rows"),
    ({"z": rows(2)}, [0, 1], None, r"inputs are \['z'\]; the model has \['x'\]"),
    (rows(2), [0, 1], [0, 0], "'sample_weight' must not be"),
    (rows(2), [0, 1], [1, -1], "'sample_weight' must not be"),
    (rows(2), [0, 2**40], None, "must be in"),
])
def test_bad_input_is_named_and_changes_nothing(session, x, y, w, message):
    before = session.snapshot()
    with pytest.raises(el.InputError, match=message):
        session.step(x, np.array(y, np.int64 if not y or isinstance(y[0], int) else float), w)
    assert session.snapshot() == before
    assert session.steps == 0


def test_the_row_of_a_bad_value_is_named(session):
    x = rows(7)
    x[5, 2] = np.inf
    with pytest.raises(el.InputError, match=r"input 'x' is inf at row 5, position \[2\]"):
        session.predict(x)


def test_scalars_are_attributes(session):
    assert session.lr == pytest.approx(0.1)
    session.lr = 0.25
    session.step(rows(1), [0])
    assert session.scalars == {"lr": 0.25}
    assert session._slots[0][0][0] == 0.25
    with pytest.raises(AttributeError, match="no run-time scalar 'learning_rate'"):
        session.learning_rate = 1.0
    with pytest.raises(AttributeError, match="no 'momentum'"):
        _ = session.momentum
    with pytest.raises(el.InputError, match="lr = nan"):
        session.lr = float("nan")


def test_snapshots_bring_everything_back(session):
    start = session.snapshot()
    session.step(rows(2), [0, 1])
    after = session.snapshot()
    session.restore(start)
    assert session.steps == 0
    np.testing.assert_array_equal(session.adapter()["p"], np.full(5, 0.5))
    session.restore(after)
    assert session.snapshot() == after
    assert session.steps == 1


@pytest.mark.parametrize("damage", [
    lambda b: b[:-1], lambda b: b + b"\0", lambda b: b"x" + b[1:], lambda b: b"", lambda b: b[:40],
])
def test_damaged_snapshots_are_refused(session, damage):
    good = session.snapshot()
    with pytest.raises(el.InputError):
        session.restore(damage(good))
    assert session.snapshot() == good


def test_a_snapshot_of_another_program_is_refused(session):
    other = el.Session(el.Program.from_spec(tiny_spec(scalars={"lr": (6, 0.2)})))
    with pytest.raises(el.InputError, match="belongs to program"):
        session.restore(other.snapshot())


def test_adapters_go_out_and_come_back(session):
    new = {"p": np.arange(5, dtype=np.float32)}
    session.load_adapter(new)
    out = session.adapter()
    np.testing.assert_array_equal(out["p"], new["p"])
    out["p"][:] = 9  # a copy
    np.testing.assert_array_equal(session.adapter()["p"], new["p"])


@pytest.mark.parametrize(("bad", "message"), [
    ({}, r"missing \['p'\]"),
    ({"q": np.zeros(5, np.float32)}, r"unknown \['q'\]"),
    ({"p": np.zeros(4, np.float32)}, r"float32\[4\]; float32\[5\] is needed"),
    ({"p": np.zeros(5)}, "float64"),
    ({"p": np.full(5, np.nan, np.float32)}, "not finite"),
])
def test_adapters_that_do_not_fit_are_refused(session, bad, message):
    with pytest.raises(el.InputError, match=message):
        session.load_adapter(bad)
    np.testing.assert_array_equal(session.adapter()["p"], np.full(5, 0.5))


def test_a_missing_entry_is_named(session):
    with pytest.raises(el.ProgramError, match=r"no entry 'grad'.*compile it with entries="):
        session.gradients(rows(1), [0])


def test_sessions_that_share_a_program_are_independent():
    program = el.Program.from_spec(tiny_spec())
    a, b = el.Session(program), el.Session(program)
    a.step(rows(1), [0])
    np.testing.assert_array_equal(b.adapter()["p"], np.full(5, 0.5))


def test_several_threads_may_use_one_session(session):
    x = rows(9)
    failures = []

    def work():
        same = [np.array_equal(session.predict(x), np.maximum(x, 0)) for _ in range(50)]
        failures.extend(ok for ok in same if not ok)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


def large_spec(threads: int):
    """One relu of 64 KiB floats: large enough to be cut into several chunks."""
    n = 1 << 18
    spec = tiny_spec()
    step = relu("large", 0, 1, chunks=16)
    tensors = (dense("x", "io", 0, (2, n)), dense("y", "io", 8 * n, (2, n)))
    import dataclasses

    entry = dataclasses.replace(
        spec.entries[1], steps=(step,) * 8, inputs={"x": 0}, outputs={"y": 1}, arena_bytes=0
    )
    return dataclasses.replace(
        spec, tensors=tensors, entries=(entry,), weights={}, params={}, states={}, initial={},
        scalars={}, param_bytes=0, state_bytes=0, io_bytes=16 * n, threads=threads,
    )


def test_results_do_not_depend_on_threads():
    x = np.random.default_rng(0).standard_normal((2, 1 << 18)).astype(np.float32)
    program = el.Program.from_spec(large_spec(4))
    one = el.Session(program, threads=1).predict(x)
    for threads in (2, 4):
        session = el.Session(program, threads=threads)
        for _ in range(20):
            np.testing.assert_array_equal(session.predict(x), one)


def test_more_threads_than_planned_are_refused():
    with pytest.raises(el.ProgramError, match="threads=5"):
        el.Session(el.Program.from_spec(large_spec(4)), threads=5)


def test_a_forked_child_computes_alone():
    code = """
import os, sys, numpy as np, edgeloop as el
from tests.runtime.test_session import large_spec
s = el.Session(el.Program.from_spec(large_spec(2)))
x = np.random.default_rng(0).standard_normal((2, 1 << 18)).astype(np.float32)
want = s.predict(x)
pid = os.fork()
if pid == 0:
    ok = np.array_equal(s.predict(x), want)
    del s
    os._exit(0 if ok else 1)
_, status = os.waitpid(pid, 0)
sys.exit(0 if status == 0 and np.array_equal(s.predict(x), want) else 1)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_isa_is_forced_by_the_environment(monkeypatch):
    program = el.Program.from_spec(tiny_spec())
    monkeypatch.setenv("EDGELOOP_ISA", "ref")
    assert el.Session(program).isa == "ref"
    monkeypatch.setenv("EDGELOOP_ISA", "sse9")
    with pytest.raises(el.ConfigError, match="EDGELOOP_ISA='sse9' is unknown; choose one of ref"):
        el.Session(program)
    monkeypatch.setattr("edgeloop._core.isas", lambda: ["ref"])
    monkeypatch.setenv("EDGELOOP_ISA", "avx512")
    with pytest.raises(el.ConfigError, match="does not run it; choose one of ref"):
        el.Session(program)


def test_variants_are_picked_by_shape():
    import dataclasses

    spec = tiny_spec()
    n = len(spec.tensors)
    narrow = dataclasses.replace(
        spec.entries[1], name="predict@1", steps=(relu("narrow", n, n + 1),),
        inputs={"x": n}, outputs={"y": n + 1},
    )
    spec = dataclasses.replace(
        spec, entries=(*spec.entries, narrow),
        tensors=(*spec.tensors, dense("x1", "io", 0, (2, 3)), dense("y1", "io", 64, (2, 3))),
    )
    session = el.Session(el.Program.from_spec(spec))
    for shape in ((3, 8), (5, 3)):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        np.testing.assert_array_equal(session.predict(x), np.maximum(x, 0))
    with pytest.raises(el.InputError, match="no shape variant fits"):
        session.predict(np.zeros((1, 5), np.float32))


def test_as_rows_converts_real_numbers():
    tensor = el.Program.from_spec(tiny_spec()).entries["predict"].inputs["x"]
    for dtype in (np.float16, np.float64, np.int64, np.uint8, bool):
        assert as_rows(np.ones((2, WIDTH), dtype), tensor, "x").dtype == np.float32
    assert tensor.shape[0] == ROWS


def test_importing_edgeloop_loads_no_compiler():
    code = """
import sys, edgeloop as el
el.Session, el.Program, el.load, el.InputError
bad = [m for m in sys.modules if m.partition(".")[0] in ("onnx", "torch", "safetensors")]
bad += [m for m in sys.modules if m.startswith(("edgeloop.ops", "edgeloop.ir", "edgeloop.passes"))]
sys.exit(f"imported {bad}" if bad else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = el.nope


@pytest.mark.parametrize("value", ["fast", None, [1, 2], -1.0, 1e60, float("nan")])
def test_a_scalar_that_is_no_number_is_refused(value):
    session = el.Session(compiled())
    before = session.lr
    with pytest.raises(el.InputError, match=r"lr = .* is not a finite number from 0 on"):
        session.lr = value
    assert session.lr == before


def test_what_is_handed_in_wrong_is_an_error_of_the_library(session, tmp_path):
    with pytest.raises(el.InputError, match="input 'x' is not an array"):
        session.predict([[1.0, 2.0], [1.0]])
    with pytest.raises(el.InputError, match="not a snapshot"):
        session.restore("text")
    with pytest.raises(el.InputError, match="an adapter is a dict"):
        session.load_adapter(None)
    with pytest.raises(el.ProgramError, match=r"el\.load"):
        el.Session(str(tmp_path / "p.elp"))
    with pytest.raises(el.ProgramError, match="threads=9: the program was compiled for 1"):
        el.Session(session.program, threads=9)
