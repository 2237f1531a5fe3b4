"""What a device imports until its first step: milliseconds and megabytes of each start."""

from __future__ import annotations

import subprocess
import sys

from tests.program.tiny import tiny_spec

from edgeloop.program import Program


def test_a_session_imports_no_more_than_it_needs(tmp_path):
    path = tmp_path / "a.elp"
    Program.from_spec(tiny_spec()).save(path)
    code = (
        "import sys, numpy; before = set(sys.modules)\n"
        "import edgeloop as el; el.Session(el.load(sys.argv[1]))\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True,
                         check=True)
    loaded = set(run.stdout.split())
    assert "edgeloop.runtime.session" in loaded
    # Each takes milliseconds, or belongs to the compiler.
    assert not loaded & {"dataclasses", "inspect", "pathlib", "onnx", "safetensors", "sqlite3",
                         "edgeloop.program.cache", "edgeloop.program.spec", "edgeloop.compiler",
                         "edgeloop.ir", "edgeloop.ops"}
