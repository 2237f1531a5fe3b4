"""What both sides measure in the same way: pinning, memory, step times. No framework here."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time

WARM_UP, LOSS_STEP = 5, 25


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


def run(step, batches, seconds: float, extra: dict) -> None:
    """Time ``step(x, y) -> loss`` over the batches in turn and print one JSON line."""
    first_loss = step(*batches[0])
    out = {"first_step_s": round(age_s(), 3), "loss_1": first_loss,
           "rss_first_mb": round(peak_rss_mb(), 1)}
    times, i, begin = [], 1, time.perf_counter()
    while i < LOSS_STEP or time.perf_counter() - begin < seconds:
        x, y = batches[i % len(batches)]
        t = time.perf_counter()
        loss = step(x, y)
        t = time.perf_counter() - t
        i += 1
        if i == LOSS_STEP:
            out["loss_25"] = loss
        if i > WARM_UP:
            times.append(t * 1e3)
    out |= {"step_ms": round(statistics.median(times), 4), "min_ms": round(min(times), 4),
            "peak_rss_mb": round(peak_rss_mb(), 1), **extra}
    json.dump(out, sys.stdout)
