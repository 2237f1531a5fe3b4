"""The shim that watches a process's writes, built once per test run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def run_shimmed(tmp_path_factory):
    """Run Python code under the shim: run(code, *args, **environment) -> CompletedProcess."""
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "these tests need a C compiler, as edgeloop's build does"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "shim.c", "-ldl"], check=True
    )

    def run(code, *args, **environment):
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, args)],
            env={**os.environ, "LD_PRELOAD": str(library), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run
