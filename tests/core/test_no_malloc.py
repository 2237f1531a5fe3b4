"""Nothing is allocated while the core runs an entry: a preloaded library counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

SCRIPT = """
import ctypes, json
import numpy as np
import edgeloop as el
from edgeloop import _core
from tests.program.tiny import tiny_spec
from tests.runtime.test_session import large_spec

count = ctypes.CDLL(None)

def counted(f):
    f(); f()
    count.count_begin()
    for _ in range(100):
        f()
    return count.count_end()

tiny = el.Session(el.Program.from_spec(tiny_spec()))
large = el.Session(el.Program.from_spec(large_spec(2)))
entry = tiny._only("train")
x, y = np.ones((3, 8), np.float32), np.array([1, 2, 3])
big = np.ones((2, 1 << 18), np.float32)
large.predict(big)
print(json.dumps({
    "run": counted(lambda: _core.run(tiny._runner, entry.index, 0, entry.steps)),
    "threads": counted(lambda: _core.run(large._runner, 0, 0, 8)),
    "step": counted(lambda: tiny.step(x, y)),
    "control": counted(lambda: np.empty(1 << 16)),
}))
"""


@pytest.fixture(scope="module")
def counts(tmp_path_factory) -> dict[str, int]:
    library = tmp_path_factory.mktemp("count") / "count.so"
    subprocess.run(
        ["cc", "-O1", "-shared", "-fPIC", HERE / "count_malloc.c", "-o", library, "-ldl"],
        check=True,
    )
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True, timeout=120,
        env={**os.environ, "LD_PRELOAD": str(library)}, cwd=HERE.parents[1],
    )
    result: dict[str, int] = json.loads(done.stdout)
    return result


def test_running_an_entry_allocates_nothing(counts):
    assert counts["run"] == 0
    assert counts["threads"] == 0


def test_the_checks_of_inputs_cost_a_few_numpy_blocks_at_most(counts):
    assert counts["step"] <= 10 * 100


def test_the_counter_counts(counts):
    assert counts["control"] >= 100
