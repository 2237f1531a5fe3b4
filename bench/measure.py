"""What all sides measure in the same way: pinning, memory, step times. No framework here.

A side is called ``side.py FOLDER NAME MODE THREADS SECONDS TASK``; TASK is train, again (train
without going on to step 25 for its loss) or predict.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from dataclasses import dataclass

WARM_UP, LOSS_STEP, LEAST = 5, 25, 5
WARM_SECONDS = 1.0  # long steps are warm before WARM_UP of them


@dataclass(frozen=True)
class Case:
    folder: str
    name: str
    mode: str
    threads: int
    seconds: float
    task: str

    @property
    def predicts(self) -> bool:
        return self.task == "predict"


def arguments() -> Case:
    """Read the command line and pin; called before a framework is imported."""
    folder, name, mode, threads, seconds, task = sys.argv[1:7]
    pin(int(threads))
    return Case(folder, name, mode, int(threads), float(seconds), task)


def pin(threads: int) -> None:
    """Bind the process to the last cores and every library to as many threads."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[-threads:]))
    for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[key] = str(threads)


def peak_rss_mb() -> float:
    """Peak resident memory of this process, MiB."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) / 1024 for line in f if line.startswith("VmHWM"))


def age_s() -> float:
    """Seconds since this process started (kernel clock)."""
    with open("/proc/self/stat") as f:
        ticks = int(f.read().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def run(step, batches, case: Case, extra: dict, value=float) -> None:
    """Time ``step(x, y)`` over the batches in turn and print one JSON line.

    ``value`` makes a number of what a step returns: its loss, or the size of its predictions. It
    is compared between sides and stays outside of the clock. ``cpu_ms`` is the processor time of
    all threads: on a busy machine it says more about one thread than the wall clock does.
    """
    out = {"value_1": value(step(*batches[0])), "first_step_s": round(age_s(), 3),
           "first_cpu_s": round(time.process_time(), 3), "rss_first_mb": round(peak_rss_mb(), 1)}
    times, cpu, i, begin = [], [], 1, time.perf_counter()
    upto = LOSS_STEP if case.task == "train" else 0
    while i < upto or len(times) < LEAST or time.perf_counter() - begin < case.seconds:
        x, y = batches[i % len(batches)]
        t, c = time.perf_counter(), time.process_time()
        got = step(x, y)
        t, c = time.perf_counter() - t, time.process_time() - c
        i += 1
        if i == upto:
            out["value_25"] = value(got)
        if i > WARM_UP or time.perf_counter() - begin - t > WARM_SECONDS:
            times.append(t * 1e3)
            cpu.append(c * 1e3)
    out |= {"ms": statistics.median(times), "min_ms": min(times),
            "cpu_ms": statistics.median(cpu), "min_cpu_ms": min(cpu), "steps": len(times),
            "peak_rss_mb": round(peak_rss_mb(), 1), **extra}
    json.dump(out, sys.stdout)
