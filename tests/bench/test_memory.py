"""The memory benchmark says "met" only of what is."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

BENCH = str(Path(__file__).parents[2] / "bench")


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.setattr(sys, "path", [BENCH, *sys.path])
    yield import_module("memory")
    for name in ("memory", "places"):
        sys.modules.pop(name, None)


def test_a_row_is_the_plan_of_its_budget(memory, capsys):
    row = memory.ROWS["ti"]
    assert memory.one(row, times=False)
    line = capsys.readouterr().out
    plan = memory.compiled(row, row.goal).plan
    assert plan.ram_bytes <= row.goal
    assert f" {memory.size(plan.ram_bytes)} met" in line


def test_a_goal_that_cannot_be_is_missed_and_says_why(memory, capsys):
    assert not memory.one(replace(memory.ROWS["ti"], goal=1024), times=False)
    line = capsys.readouterr().out
    assert "MISSED" in line
    assert "no plan fits 1024 bytes" in line


def test_a_step_that_is_too_slow_is_missed(memory, monkeypatch):
    row = replace(memory.ROWS["ti"], slower=1.33)
    for took, met in ((1.2, True), (1.5, False)):
        monkeypatch.setattr(memory, "ratio", lambda *_, took=took: took)
        assert memory.one(row, times=True) is met


@pytest.mark.parametrize("name", ["kws", "ae-lora"])
def test_goals_that_are_met_stay_so(memory, name):
    assert memory.one(memory.ROWS[name], times=False)
