"""How much faster than real time each feature pipeline is, on one core.

    python bench/features.py [--seconds 2] [KIND ...]

Every case is one second of a sensor. The least of many runs is printed, beside the time of making
the pipeline, which allocates everything, and what tracemalloc sees of it. Exit status 1: a goal is
missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import tracemalloc

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

from edgeloop.data.features import from_spec

RATE = 25600.0
PSD = {"kind": "psd", "sample_rate": RATE, "window": 1024, "log": "db"}
NORMALISE = {"kind": "normalise", "by": "running", "keep": [-1]}
# name, record, shape of one second, how often real time it has to be
CASES = [
    ("log-mel, 16 kHz", {"kind": "log-mel", "mels": 40}, (16000,), 100),
    ("mfcc, 16 kHz", {"kind": "mfcc"}, (16000,), 100),
    ("psd, 3 axes, 25.6 kHz", PSD, (25600, 3), 20),
    ("fft, 3 axes, 25.6 kHz", {"kind": "fft"}, (25600, 3), None),
    ("envelope, 3 axes, 25.6 kHz", {"kind": "envelope", "sample_rate": RATE}, (25600, 3), None),
    ("statistics, 3 axes, 25.6 kHz", {"kind": "statistics"}, (25600, 3), None),
    ("normalise, 3 axes, 25.6 kHz", NORMALISE, (25600, 3), None),
    ("psd and normalise, 3 axes", {"steps": [PSD, NORMALISE]}, (25600, 3), 20),
    ("image, 640 x 480 to 224, 1 a s", {"kind": "image", "resize": 256, "crop": [224, 224]},
     (480, 640, 3), None),
]


def least(call, seconds):
    """Least time of one call, of as many as `seconds` allow and 5 at least."""
    best, runs, end = float("inf"), 0, time.perf_counter() + seconds
    while runs < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", help="only cases whose name starts with one of these")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each case")
    args = parser.parse_args()
    missed = 0
    print(f"{'one second of':34}{'ms':>9}{'x real time':>13}{'goal':>7}{'made ms':>9}{'KiB':>8}")
    for name, record, shape, goal in CASES:
        if args.kinds and not name.startswith(tuple(args.kinds)):
            continue
        x = (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
        tracemalloc.start()
        pipeline = from_spec(record)
        out = np.zeros(pipeline.plan(shape), np.float32)
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        start = time.perf_counter()
        from_spec(record).plan(shape)
        made = time.perf_counter() - start
        pipeline.observe(x, out)
        took = least(lambda p=pipeline, x=x, out=out: p.observe(x, out), args.seconds)
        failed = goal is not None and 1 / took < goal
        missed += failed
        print(f"{name:34}{took * 1e3:9.3f}{1 / took:13.0f}{goal or '':>7}{made * 1e3:9.2f}"
              f"{kept / 1024:8.0f}{'  MISSED' if failed else ''}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
