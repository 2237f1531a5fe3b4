"""Streams of samples: how many times faster than real time one core makes windows of them.

python bench/streams.py [--seconds N] [--block N]

Each row cuts a minute of noise into blocks, as a sensor would hand them over, and takes windows of
1,024 samples, half overlapping, until it ends; the best of three.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "src")]

from edgeloop.data.item import Item  # noqa: E402
from edgeloop.data.streams import Windowed  # noqa: E402


class Noise:
    """Blocks of several streams, `rates` by name, in the order of their times."""

    name, replayable = "noise", True

    def __init__(self, rates: dict[str, float], channels: int, seconds: float, block: int) -> None:
        rng = np.random.default_rng(0)
        blocks = []
        for name, rate in rates.items():
            x = rng.standard_normal((int(rate * seconds), channels)).astype(np.float32)
            for i in range(0, len(x), block):
                at = i / rate
                blocks.append(Item(x[i : i + block], None, name, {"stream": name}, 1.7e9 + at))
        self._blocks = sorted(blocks, key=lambda b: b.time or 0.0)

    def items(self, start: int = 0) -> Iterator[Item]:
        yield from self._blocks[start:]


def measure(rates: dict[str, float], wanted: float, args: argparse.Namespace) -> tuple[float, int]:
    """Return the best seconds of three runs, and the windows of one."""
    feed, best, windows = Noise(rates, 3, args.seconds, args.block), np.inf, 0
    for _ in range(3):
        source = Windowed(
            feed, length=1024, hop=512, rate=wanted, rates=rates, streams=tuple(rates))
        begin = time.perf_counter()
        windows = sum(1 for _ in source.items())
        best = min(best, time.perf_counter() - begin)
        assert source.counts() == {"gaps": 0, "missing": 0, "overruns": 0}
    return best, windows


def main() -> int:
    parser = argparse.ArgumentParser(description="Times real time, one core.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--block", type=int, default=1024, help="samples of a block")
    args = parser.parse_args()
    rows = [
        ("cut only, 25.6 kHz x 3", {"a": 25600.0}, 25600.0),
        ("25.6 -> 12.8 kHz x 3", {"a": 25600.0}, 12800.0),
        ("44.1 -> 16 kHz x 3", {"a": 44100.0}, 16000.0),
        ("two of 12.8 kHz x 3, aligned", {"a": 12800.0, "b": 12800.0}, 12800.0),
        ("25.6 and 12.8 -> 12.8 kHz x 3, aligned", {"a": 25600.0, "b": 12800.0}, 12800.0),
    ]
    print(f"{'':40}{'windows':>9}{'us a window':>13}{'x real time':>13}")
    for name, rates, wanted in rows:
        best, windows = measure(rates, wanted, args)
        print(f"{name:40}{windows:9}{best / windows * 1e6:13.0f}{args.seconds / best:13.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
