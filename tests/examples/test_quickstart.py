"""The quickstart's generator: small, repeatable files with a gap for edgeloop to close."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

SCRIPT = Path(__file__).parents[2] / "examples/quickstart/make_example.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart")
    runpy.run_path(str(SCRIPT))["main"](out)
    return out


def test_files_are_small_and_the_model_is_valid(made):
    assert {path.name for path in made.iterdir()} == {"machine.onnx", "stream.csv", "test.csv"}
    assert sum(path.stat().st_size for path in made.iterdir()) < 100_000
    onnx.checker.check_model(onnx.load(made / "machine.onnx"), full_check=True)


def test_the_same_files_every_time(made, tmp_path):
    runpy.run_path(str(SCRIPT))["main"](tmp_path)
    for path in made.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_machine_b_is_out_of_domain(made):
    with (made / "test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    classes = ("off", "idle", "load", "fault")
    labels = np.array([classes.index(row.pop("label")) for row in rows])
    x = np.array([[float(value) for value in row.values()] for row in rows], np.float32)
    session = onnxruntime.InferenceSession(made / "machine.onnx")
    right = np.mean(session.run(None, {"features": x})[0].argmax(1) == labels)
    assert 0.5 < right < 0.85
