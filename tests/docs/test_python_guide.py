"""The Python guide's blocks run as they stand, in order, beside the quickstart's files."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_guide_runs_as_written(tmp_path, monkeypatch, capsys):
    runpy.run_path(str(ROOT / "examples/quickstart/make_example.py"))["main"](tmp_path)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/guide/python.md").read_text()
    names: dict[str, object] = {}
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) >= 6
    for block in blocks:
        line = text[: block.start(1)].count("\n")
        code = "\n" * line + block[1]  # so that a failure names the guide's line
        exec(compile(code, "docs/guide/python.md", "exec"), names)
    assert "learns" in capsys.readouterr().out
    assert names["after"] > names["before"] + 0.05
