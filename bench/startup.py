"""From process start to the first finished step, beside what importing NumPy takes.

    python bench/startup.py program.elp [...] [--runs 30]

Fresh processes in turn, so that a busy machine disturbs all alike: one only imports NumPy, one
loads the program and takes a training step on zeros. Seconds are from before the process is made
to after the step (one clock for both), CPU seconds are the process's own. Modules are compiled
first, as pip does; PYTHONDONTWRITEBYTECODE is not passed on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

NUMPY = "import numpy"
STEP = """
import numpy as np
import edgeloop as el
session = el.Session(el.load(sys.argv[1]))
entry = session.program.entries["train"]
targets = session.program.metadata.get("targets") or ["labels", "targets"]
kinds = {"f32": np.float32, "i32": np.int32, "u8": np.uint8}
zeros = {n: np.zeros(t.shape, kinds[t.dtype]) for n, t in entry.inputs.items()}
x = {n: a for n, a in zeros.items() if n not in (*targets, "sample_weight", "norm")}
y = {n: a for n, a in zeros.items() if n in targets}
session.step(x, y or None)
"""
REPORT = """
import json, time
done = time.clock_gettime(time.CLOCK_MONOTONIC)
with open("/proc/self/status") as f:
    rss = next(int(line.split()[1]) / 1024 for line in f if line.startswith("VmHWM"))
print(json.dumps([done, time.process_time(), rss]))
"""


def fresh(code: str, *args: str) -> tuple[float, float, float]:
    """Run code in a new process: seconds, CPU seconds, peak MiB."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    begin = time.clock_gettime(time.CLOCK_MONOTONIC)
    run = subprocess.run([sys.executable, "-c", "import sys\n" + code + REPORT, *args], check=True,
                         capture_output=True, text=True, env=env)
    done, cpu, rss = json.loads(run.stdout)
    return done - begin, cpu, rss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", nargs="+")
    parser.add_argument("--runs", type=int, default=30)
    args = parser.parse_args()
    cases = {"import numpy": (NUMPY,), **{Path(p).name: (STEP, p) for p in args.programs}}
    for case in cases.values():
        fresh(*case)
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in cases}
    for _ in range(args.runs):
        for name, case in cases.items():
            runs[name].append(fresh(*case))
    print(f"{'':20}{'least s':>9}{'median s':>10}{'x numpy':>9}{'CPU s':>8}{'x numpy':>9}"
          f"{'MiB':>7}")
    base = runs["import numpy"]
    for name, found in runs.items():
        wall = statistics.median(a[0] / b[0] for a, b in zip(found, base, strict=True))
        cpu = statistics.median(a[1] / b[1] for a, b in zip(found, base, strict=True))
        print(f"{name:20}{min(r[0] for r in found):9.3f}"
              f"{statistics.median(r[0] for r in found):10.3f}{wall:9.2f}"
              f"{min(r[1] for r in found):8.3f}{cpu:9.2f}"
              f"{statistics.median(r[2] for r in found):7.1f}")


if __name__ == "__main__":
    main()
