"""What this machine can do at most: the yardsticks of a profile, measured when one is made."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgeloop import _core

KINDS = ("f32", "bf16", "int8")
_SIZES = tuple(4**k << 10 for k in range(2, 10))  # 16 KiB to 256 MiB
_REPEATS, _SLICE_S = 20, 0.002


@dataclass(frozen=True, slots=True)
class Limits:
    """Peaks of ``threads`` workers together.

    Attributes
    ----------
    operations
        Operations a second by compute type, a multiply and an add being two; no operand leaves
        the registers.
    instructions
        What did them, by compute type: the best that the machine has, used by a kernel or not.
    bandwidth
        (working set in bytes, bytes read and written a second), ascending, the faster of a loop
        that reads and one that copies: small sets are those of the caches.
    """

    threads: int
    operations: Mapping[str, float]
    instructions: Mapping[str, str]
    bandwidth: tuple[tuple[int, float], ...]

    def seconds(self, compute: str, flops: int, moved: int) -> tuple[float, str]:
        """Return the least time of a step and what bounds it: "compute" or "memory".

        ``moved`` bytes count at the rate of the smallest memory that could hold all of them.
        """
        rate = self.operations.get(compute) or self.operations["f32"]
        bytes_rate = self.bandwidth[0][1]
        for size, measured in self.bandwidth:
            if size <= moved:
                bytes_rate = measured
        arithmetic, memory = flops / rate, moved / bytes_rate
        return max(arithmetic, memory), "compute" if arithmetic >= memory else "memory"

    def to_dict(self) -> dict[str, Any]:
        """Return every number by name."""
        return {
            "threads": self.threads,
            "operations_per_second": dict(self.operations),
            "instructions": dict(self.instructions),
            "bandwidth": [
                {"working_set_bytes": size, "bytes_per_second": rate}
                for size, rate in self.bandwidth
            ],
        }


def measure(threads: int, kinds: Iterable[str], largest: int) -> Limits:
    """Measure what ``threads`` workers reach at the same time; takes some tenths of a second.

    Parameters
    ----------
    kinds
        Compute types of :data:`KINDS` that matter; "f32" always comes with them.
    largest
        Bytes that the largest step moves: no larger working set is measured.
    """
    operations, instructions = {}, {}
    for kind in KINDS:
        if kind != "f32" and kind not in kinds:
            continue
        rate = _best(threads, partial(_compute, kind))
        if rate:
            operations[kind], instructions[kind] = rate, _core.peak(kind, 1)[1]
    bandwidth = []
    for size in (s for s in _SIZES if s <= max(largest, _SIZES[0])):
        buffers = [bytearray(size // threads) for _ in range(threads)]
        rates = [_best(threads, partial(_move, buffers, copy)) for copy in (False, True)]
        bandwidth.append((size, max(rates)))
    for i in reversed(range(len(bandwidth) - 1)):  # a smaller memory is not slower: that is noise
        size, rate = bandwidth[i]
        bandwidth[i] = (size, max(rate, bandwidth[i + 1][1]))
    return Limits(threads, operations, instructions, tuple(bandwidth))


def _compute(kind: str, rounds: int, _: int) -> int:
    return _core.peak(kind, rounds)[0]


def _move(buffers: list[bytearray], copy: bool, rounds: int, worker: int) -> int:
    return _core.bandwidth(buffers[worker], copy, rounds)


def _best(threads: int, work: Callable[[int, int], int]) -> float:
    """Return the rate of work(rounds, worker): the sum of each one's best while all of them run."""
    rounds = 1
    while True:
        begin = time.perf_counter()
        amount = work(rounds, 0)
        took = time.perf_counter() - begin
        if not amount:
            return 0.0
        if took > _SLICE_S / 4:
            break
        rounds *= 4
    rounds = max(1, int(rounds * _SLICE_S / took))
    barrier = threading.Barrier(threads)
    best = [0.0] * threads

    def run(worker: int) -> None:
        for _ in range(_REPEATS):
            barrier.wait()
            begin = time.perf_counter()
            done = work(rounds, worker)
            best[worker] = max(best[worker], done / (time.perf_counter() - begin))

    others = [threading.Thread(target=run, args=(i,)) for i in range(1, threads)]
    for t in others:
        t.start()
    run(0)
    for t in others:
        t.join()
    return sum(best)
