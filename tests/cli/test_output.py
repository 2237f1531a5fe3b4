"""Tables, values and progress, with rich and without it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgeloop.cli import output
from edgeloop.cli.main import one_line
from edgeloop.cli.output import Output, show
from edgeloop.cli.progress import Progress

ROWS = [["a", 1], ["[red]b", 20]]


def test_plain_table_aligns_numbers_right(capsys):
    Output(as_json=False).table(["name", "count"], ROWS)
    assert capsys.readouterr().out == "name    count\na           1\n[red]b     20\n"


def test_rich_table_takes_names_as_they_are(capsys):
    pytest.importorskip("rich", reason="extra 'cli' is not installed")
    out = Output(as_json=False)
    out.rich = True
    out.table(["name", "count"], ROWS)
    text = capsys.readouterr().out
    assert "[red]b" in text
    assert text.splitlines()[1].split() == ["a", "1"]


def test_rich_is_only_used_on_a_terminal(monkeypatch):
    assert not Output(as_json=False).rich
    monkeypatch.setattr(output.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(output, "find_spec", lambda name: None)
    assert not Output(as_json=False).rich
    monkeypatch.setattr(output, "find_spec", lambda name: name)
    assert Output(as_json=False).rich
    assert not Output(as_json=True).rich


def test_json_prints_results_only(capsys):
    out = Output(as_json=True)
    out.line("text")
    out.facts({"a": 1})
    out.table(["name"], [["x"]])
    out.result({"x": np.float32(0.5), "y": np.arange(2), "z": None})
    assert json.loads(capsys.readouterr().out) == {"x": 0.5, "y": [0, 1], "z": None}


@pytest.mark.parametrize("rich", [False, True])
def test_progress_shows_events_but_not_every_item(capsys, rich):
    if rich:
        pytest.importorskip("rich", reason="extra 'cli' is not installed")
    out = Output(as_json=False)
    out.rich = rich
    with Progress(out, quiet=False) as progress:
        progress.event("item", n=1, x=np.zeros(3), y=1, meta={})
        progress.event("epoch", job=1, epoch=2, loss=np.float32(0.25), best=True)
        progress.event("checkpoint", job=1, step=3)
    text = capsys.readouterr().out
    assert "epoch     job 1  epoch 2  loss 0.25  best yes\n" in text
    assert "meta" not in text


def test_quiet_progress_says_nothing(capsys):
    with Progress(Output(as_json=True), quiet=True) as progress:
        progress.event("epoch", job=1)
    assert capsys.readouterr().out == ""


def test_values_for_people():
    assert show({"a": {"b": 0.123456}, "c": [None, True]}) == "a=(b=0.1235), c=-, yes"
    assert show(np.float32(2)) == "2"


def test_messages_become_one_line():
    assert one_line("two things:\n  first\n  second\nmend them") == (
        "two things: first; second; mend them"
    )
