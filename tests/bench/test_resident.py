"""The parts of `make bench resident` that its numbers rest on, on a tiny model."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setenv("PYTHONPATH", str(BENCH.parent / "src"))
    yield importlib.import_module
    for name in {"llama", "resident"} & set(sys.modules):
        del sys.modules[name]


def test_models_are_what_their_shape_says_and_always_the_same(bench, tmp_path):
    llama = bench("llama")
    shape = llama.SHAPES["tiny"]
    one, two = (llama.write(tmp_path / name, shape) for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    data = [p.with_name("weights.bin").read_bytes() for p in (one, two)]
    assert data[0] == data[1]
    held = sum(int(np.prod(t.dims)) for t in onnx.load(one).graph.initializer
               if t.name.endswith(".weight"))
    assert held == shape.params
    onnx.checker.check_model(one)


def test_a_row_trains_in_processes_of_its_own(bench, tmp_path, capsys):
    resident = bench("resident")
    assert resident.measure("tiny", tmp_path, 1, peers=False)
    said = capsys.readouterr().out
    assert "met   same losses" in said
    assert "stay in the file" in said


def test_a_goal_that_is_missed_is_said(bench, tmp_path, monkeypatch, capsys):
    """Control: a row whose process may take less than an interpreter."""
    resident = bench("resident")
    monkeypatch.setattr(resident, "cgroup", lambda _: None)
    row = resident.ROWS["tiny"]
    monkeypatch.setitem(resident.ROWS, "tiny", resident.Row(row.targets, row.resident, rss=1 << 20))
    assert not resident.measure("tiny", tmp_path, 1, peers=False)
    assert "MISS  peak <= 1 MB" in capsys.readouterr().out


@pytest.mark.oracle
def test_the_peer_trains_the_same_shape(bench):
    got = bench("resident").peer("tiny", 2, "f32")
    assert not isinstance(got, int)
    first, second = got["losses"]
    assert second < first < 1.1 * np.log(2304)
