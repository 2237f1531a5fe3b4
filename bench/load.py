"""Seconds to load programs of any size: the first time, from its record, and checked in full.

    python bench/load.py [--mib 128,300,1300] [--steps 2000] [--runs 5] [--folder DIR]

Makes programs of that many MiB of weights and that many steps, and loads each in fresh processes
with a cache of their own: `first` copies and hashes (from the page cache, to a disk that is
synced), `again` finds the record, `session` opens a session over it, `verify` hashes file and
copy. Least seconds of the runs; CPU seconds, of all threads, are what a busy machine changes least.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgeloop.program import EntrySpec, ProgramSpec, StepSpec, TensorSpec, artifact

LOAD = """
import json, sys, time
import edgeloop as el
el.Session
t, cpu = [time.perf_counter()], time.process_time()
program = el.load(sys.argv[1], verify=sys.argv[2] == "verify")
t.append(time.perf_counter())
cpu = time.process_time() - cpu
el.Session(program)
t.append(time.perf_counter())
with open("/proc/self/status") as f:
    rss = next(int(line.split()[1]) / 1024 for line in f if line.startswith("RssAnon"))
print(json.dumps([t[1] - t[0], cpu, t[2] - t[1], rss]))
"""


def synthetic(mib: int, steps: int) -> bytes:
    """Return an artifact of 16 MiB arrays of random weights, and a chain of relus as its steps."""
    rng = np.random.default_rng(0)
    shape = (2048, 2048)
    arrays = {f"w{i}": rng.integers(0, 1 << 30, shape, np.int32) for i in range(max(1, mib // 16))}
    tensors = (
        TensorSpec("x", "io", 0, "f32", (4, 8), (8, 1)),
        TensorSpec("h", "arena", 0, "f32", (4, 8), (8, 1)),
        TensorSpec("y", "io", 128, "f32", (4, 8), (8, 1)),
        TensorSpec("p", "params", 0, "f32", (16,), (1,)),
        *(TensorSpec(n, "weights", 0, "i32", shape, (2048, 1), n) for n in arrays),
    )

    def relu(a: int, b: int, i: int) -> StepSpec:
        return StepSpec("relu", (a, b), (), 1, 0, 0, f"layer.{i}", 32)

    chain = (relu(0, 1, 0), *(relu(1, 1, i) for i in range(1, steps - 1)), relu(1, 2, steps))
    entry = EntrySpec("predict", chain, {"x": 0}, {"y": 2}, 128, 128, 128)
    return artifact.build(ProgramSpec(
        tensors, (entry,), arrays, {"p": 3}, {}, {"p": np.zeros(16, np.float32)}, {}, 64, 0, 256,
        1, "auto", {"batch": 4, "predict_batch": 4, "loss": None, "outputs": ["y"]},
    ))


def load(path: Path, cache: Path, how: str) -> list[float]:
    """Load in a fresh process: seconds and CPU seconds, seconds of a session, MiB of its own."""
    env = {**os.environ, "EDGELOOP_CACHE": str(cache)}
    run = subprocess.run([sys.executable, "-c", LOAD, str(path), how], check=True, env=env,
                         capture_output=True, text=True)
    return json.loads(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", default="128,300,1300")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", help="where programs and cache lie; default: a temporary one")
    args = parser.parse_args()
    print(f"{'MiB':>6}{'again s':>9}{'CPU s':>8}{'session s':>11}{'RAM MiB':>9}"
          f"{'first s':>9}{'CPU s':>8}{'verify s':>10}{'CPU s':>8}")
    for mib in map(int, args.mib.split(",")):
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            folder = Path(name)
            path, cache = folder / "a.elp", folder / "cache"
            data = synthetic(mib, args.steps)
            path.write_bytes(data)
            del data
            os.sync()
            time.sleep(2.5)  # a file that just changed is not recorded
            first, again, verify = [], [], []
            for _ in range(args.runs):
                shutil.rmtree(cache, ignore_errors=True)
                first.append(load(path, cache, ""))
                again += [load(path, cache, "") for _ in range(3)]
            verify = [load(path, cache, "verify") for _ in range(args.runs)]
            (a, a_cpu, session, ram), (f, f_cpu, *_), (v, v_cpu, *_) = (
                [min(column) for column in zip(*runs, strict=True)]
                for runs in (again, first, verify)
            )
            print(f"{mib:6}{a:9.4f}{a_cpu:8.4f}{session:11.4f}{ram:9.1f}{f:9.2f}{f_cpu:8.2f}"
                  f"{v:10.2f}{v_cpu:8.2f}", flush=True)


if __name__ == "__main__":
    main()
