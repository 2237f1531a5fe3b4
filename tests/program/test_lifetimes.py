"""Lifetimes read back from a program's table, its peak, and the picture of them."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest
from models.zoo import ZOO

import edgeloop as el
from edgeloop.cli import main
from edgeloop.program.lifetimes import Life, lifetimes, peak


@pytest.fixture(scope="module")
def program() -> el.Program:
    return el.compile(ZOO["ds_cnn"].build(), train=el.LoRA(2), batch=2, entries=("train", "eval"))


def test_they_fill_the_arena_and_nothing_more(program):
    for e in program.plan.entries:
        lives = lifetimes(program, e.name)
        assert max(x.offset + x.nbytes for x in lives) == e.arena_bytes
        assert all(0 <= x.first <= x.last < e.steps for x in lives)
        assert sum(x.nbytes for x in peak(lives)[1]) >= 0.95 * e.lower_bound_bytes


def test_kinds(program):
    kinds = {x.kind for x in lifetimes(program, "train")}
    assert kinds == {"saved", "forward", "backward", "scratch"}
    assert {x.kind for x in lifetimes(program, "eval")} <= {"forward", "scratch"}


def test_the_peak_counts_what_lies_on_each_other_once():
    lives = [Life("a", "forward", 0, 64, 0, 1), Life("b", "forward", 0, 64, 1, 2),
             Life("c", "scratch", 64, 128, 1, 1)]
    step, there = peak(lives)
    assert step == 1
    assert [x.name for x in there] == ["c", "b"]


def test_the_command_draws_and_lists(program, tmp_path, capsys):
    program.save(tmp_path / "p.elp")
    drawn = tmp_path / "memory.svg"
    assert main(["plan", str(tmp_path / "p.elp"), "--plot", str(drawn)]) == 0
    assert "arena is fullest" in capsys.readouterr().out
    boxes = ET.fromstring(drawn.read_text()).findall("{http://www.w3.org/2000/svg}rect")
    assert len(boxes) >= len(lifetimes(program, "train"))
    assert main(["plan", str(tmp_path / "p.elp"), "--peak", "--entry", "eval", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["entry"] == "eval"
    assert found["alive"] == [x._asdict() for x in peak(lifetimes(program, "eval"))[1]]
    assert main(["plan", str(tmp_path / "p.elp"), "--peak", "--entry", "nothing"]) != 0
    assert "it has" in capsys.readouterr().err
