"""events: what the loop decided, and why, for people and for programs."""

from __future__ import annotations

import json

import pytest

from edgeloop.cli import main
from edgeloop.store import Store


@pytest.fixture
def state(tmp_path):
    with Store.open(tmp_path / "device.db") as store:
        store.event("started", {"job": 1, "why": ["samples: 32 of 32", "drift: found"]})
        store.event("rejected", {
            "job": 1, "version": None, "reason": "not better", "gate": {"p": 1},
            "cost": {"joules": 2.5, "flops": 9}})
        store.event("waits", {"why": ["requires_charging: not so"]})
        store.event("suspended", {"job": 2, "step": 3, "why": "too warm"})
    return str(tmp_path / "device.db")


def lines(capsys, *args):
    capsys.readouterr()
    status = main(["events", *args])
    return status, capsys.readouterr().out.splitlines()


def test_each_says_what_and_why(state, capsys):
    status, said = lines(capsys, state)
    assert status == 0
    assert "  started " in said[0]
    assert "    samples: 32 of 32" in said
    assert "    requires_charging: not so" in said
    (rejected,) = (line for line in said if "rejected" in line)
    assert "reason not better" in rejected
    assert "joules 2.5" in rejected
    assert "flops" not in rejected
    assert "why too warm" in next(line for line in said if "suspended" in line)


def test_some_of_them(state, capsys):
    assert len(lines(capsys, state, "--last", "1")[1]) == 1
    kinds = ("--kind", "started", "--kind", "waits")
    assert len([s for s in lines(capsys, state, *kinds)[1] if not s.startswith(" ")]) == 2
    assert lines(capsys, state, "--since", "2999-01-01")[1] == []
    assert "there is no event; there are rejected, started" in lines(
        capsys, state, "--kind", "wait")[1][0]


def test_an_object_a_line_for_programs(state, capsys):
    found = [json.loads(line) for line in lines(capsys, state, "--json")[1]]
    assert [e["kind"] for e in found] == ["started", "rejected", "waits", "suspended"]
    assert found[0]["why"] == ["samples: 32 of 32", "drift: found"]
    assert found[1]["cost"] == {"joules": 2.5, "flops": 9}


def test_a_number_that_is_none_is_refused(state, capsys):
    assert main(["events", state, "--last", "0"]) == 2
    assert "--last is 0" in capsys.readouterr().err
