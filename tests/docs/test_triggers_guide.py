"""The triggers guide: its tables build, its code prints what stands below it, no key is missing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from edgeloop.loop import Config
from edgeloop.loop.triggers import CONDITIONS, condition

TEXT = (Path(__file__).parents[2] / "docs/guide/triggers.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_tables_build():
    made = [
        Config.from_dict({"model": {"program": "p"}, **tomllib.loads(text)}, root=Path())
        for text in blocks("toml")
    ]
    assert len(made) == 2
    assert made[1].constraints.max_temp_c == 70
    assert made[1].trigger.condition().needs == {"error", "novelty", "device"}


def test_code_prints_what_stands_below(capsys):
    (code,) = blocks("python")
    exec(compile(code, "docs/guide/triggers.md", "exec"), {})
    assert f"```\n{capsys.readouterr().out}```" in TEXT


def test_every_condition_has_its_row():
    rows = re.findall(r"^\| `(\w+ = .*?)` \|", TEXT, re.MULTILINE)
    kinds = [next(iter(tomllib.loads(row))) for row in rows]
    assert kinds == [kind for kind in kinds if kind in CONDITIONS]
    assert set(kinds) == set(CONDITIONS)
    for row in rows:
        condition(tomllib.loads(row), row)
