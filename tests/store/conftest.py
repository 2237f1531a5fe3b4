"""Python code under the shim."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def run_shimmed(shim):
    """Run Python code under the shim: run(code, *args, **environment) -> CompletedProcess."""

    def run(code, *args, **environment):
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, args)],
            env={**os.environ, "LD_PRELOAD": shim, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run
