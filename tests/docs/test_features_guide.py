"""The features guide: its records are records, its blocks run, and it names every kind."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from edgeloop.data.features import KINDS, from_spec

TEXT = (Path(__file__).parents[2] / "docs/guide/features.md").read_text()
BLOCK = re.compile(r"^```(python|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAID = re.compile(r"-> \[([0-9, ]+)\]")


@pytest.mark.parametrize(("number", "shape"), [(0, (25600, 3)), (1, (16000,))])
def test_the_records_give_the_shapes_that_stand_there(number, shape):
    text = [block for kind, block in BLOCK.findall(TEXT) if kind == "toml"][number]
    pipeline = from_spec(tomllib.loads(text)["features"])
    assert pipeline.plan(shape) == tuple(map(int, SAID.search(text)[1].split(",")))


def test_the_blocks_run_as_written(capsys):
    blocks = [(m.start(2), m[2]) for m in BLOCK.finditer(TEXT) if m[1] == "python"]
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for start, block in blocks:
        code = "\n" * TEXT[:start].count("\n") + block  # so that a failure names the guide's line
        exec(compile(code, "docs/guide/features.md", "exec"), names)
    said = capsys.readouterr().out
    assert "(3, 513)" in said
    assert "'seen': 3" in said
    assert names["batch"].shape == (1, 3, 513)


def test_every_kind_is_in_the_table():
    rows = re.findall(r"^\| `([a-z-]+)` \| `([A-Za-z]+)` \|", TEXT, re.MULTILINE)
    assert dict(rows) == {k: made.__name__ for k, made in KINDS.items()}
