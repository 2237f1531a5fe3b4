"""How much a quantized frozen base costs in what is learned. `make bench quant`, or

    python bench/quant.py [--seeds 5] [--rows f32,int8] [--jobs 2] [TASK...]

Every task has a base model that edgeloop trained (cached under build/quant) and adapts it with
LoRA to a shifted domain, once for each seed and each way to store and compute the base. Scores are
points on rows that were never trained on; differences are paired by seed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from naive import naive_compiler  # noqa: E402
from quant_goals import GOALS, failed  # noqa: E402
from tasks.common import adapt  # noqa: E402
from tasks.every import TASKS  # noqa: E402

import edgeloop as el  # noqa: E402

# row: what compile is told beyond the task
ROWS: dict[str, dict] = {
    "f32": {},
    "int8": {"quantize": "int8", "compute": "int8"},
    "int4": {"quantize": "int4"},
    "f16": {"quantize": "f16"},
    "naive": {},
}


def prepare(name: str) -> float:
    """Make the base of a task and its score on the first target before it adapts."""
    task = TASKS[name]
    session = compiled(name, "f32")
    split = task.target(0)
    return task.score(session.predict(split.test_x), split)


def compiled(name: str, row: str) -> el.Session:
    task = TASKS[name]
    with naive_compiler(task.source()[:256]) if row == "naive" else nullcontext():
        program = el.compile(
            task.base(), loss=task.loss, train=el.LoRA(rank=task.rank, targets=task.targets),
            optimizer=el.AdamW(lr=task.lr), batch=task.batch, predict_batch=64,
            entries=("train", "predict"), threads=1, **ROWS[row])
    return el.Session(program)


def scores(name: str, row: str, seeds: int) -> list[float]:
    """The task's score for each seed."""
    session = compiled(name, row)
    fresh = session.snapshot()
    return [adapt(TASKS[name], session, fresh, seed) for seed in range(seeds)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    rows = args.rows.split(",")
    begin = time.perf_counter()
    with ProcessPoolExecutor(args.jobs) as pool:
        before = dict(zip(args.names, pool.map(prepare, args.names), strict=True))
        got = {(n, r): pool.submit(scores, n, r, args.seeds) for n in args.names for r in rows}
        print(f"{'task':<18}{'unit':<10}{'base':>6}" + "".join(f"{r:>21}" for r in rows))
        changes: dict[str, list[float]] = {r: [] for r in rows}
        for n in args.names:
            first, cells = got[n, rows[0]].result(), []
            for r in rows:
                s = got[n, r].result()
                changes[r].append(statistics.mean(s) - statistics.mean(first))
                cells.append(f"{statistics.mean(s):8.2f} ±{statistics.pstdev(s):5.2f}"
                             f"{f'{changes[r][-1]:+6.2f}' if r != rows[0] else '':>6}")
            print(f"{n:<18}{TASKS[n].unit:<10}{before[n]:6.2f}" + "".join(cells), flush=True)
        means = {r: statistics.mean(c) for r, c in changes.items()}
        print(f"{'mean difference':<34}" + "".join(f"{means[r]:+21.2f}" for r in rows))
    for row, goal in GOALS.items():
        if row in means:
            met = means[row] >= -goal
            print(f"{row}: {'within' if met else 'MISSES'} {goal} points of {rows[0]}")
    print(f"{time.perf_counter() - begin:.0f} s")
    return int(failed(means, whole=set(args.names) == set(TASKS)))


if __name__ == "__main__":
    sys.exit(main())
