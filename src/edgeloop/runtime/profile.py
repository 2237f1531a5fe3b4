"""Profiles: the time of every step of an entry beside what it moves, computes and could take."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop import _core
from edgeloop.errors import ConfigError
from edgeloop.program.table import TableStep
from edgeloop.runtime import limits
from edgeloop.runtime.bound import WEIGHT, Bound
from edgeloop.runtime.session import Session
from edgeloop.runtime.work import KERNELS, moved

Spans = npt.NDArray[np.uint64]
WARM_UP, LEAST_RUNS = 2, 5


@dataclass(frozen=True, slots=True)
class StepProfile:
    """One step.

    ``seconds`` is the least of all runs, with what calling it takes. ``bytes_read`` and
    ``bytes_written`` count every operand once, without scratch; ``shapes`` are those of its
    operands, inputs first, None where an optional one is absent. ``limit_seconds`` is what the
    machine needs at least, ``bound`` ("compute" or "memory") why.
    """

    index: int
    kernel: str
    layer: str
    compute: str
    shapes: tuple[tuple[int, ...] | None, ...]
    chunks: int
    seconds: float
    flops: int
    bytes_read: int
    bytes_written: int
    limit_seconds: float
    bound: str


@dataclass(frozen=True, slots=True)
class Profile:
    """An entry's steps, and the spans of its fastest run.

    ``step_spans`` [steps, 3] and ``chunk_spans`` [chunks, 3], step by step, hold begin and end in
    nanoseconds of one clock and the worker, 0 being the thread that called.
    """

    program: str
    entry: str
    isa: str
    threads: int
    runs: int
    steps: tuple[StepProfile, ...]
    limits: limits.Limits
    step_spans: Spans
    chunk_spans: Spans

    @property
    def totals(self) -> dict[str, Any]:
        """Sums over the steps."""
        return totals(self.steps)

    def operators(self) -> list[dict[str, Any]]:
        """Return the sums for each kind of operator, the longest first."""
        kinds: dict[tuple[str, str], list[StepProfile]] = {}
        for s in self.steps:
            kinds.setdefault((s.kernel, s.compute), []).append(s)
        rows = [{"kernel": k, "compute": c, **totals(of)} for (k, c), of in kinds.items()]
        return sorted(rows, key=lambda row: -row["seconds"])

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the spans."""
        return {
            "program": self.program, "entry": self.entry, "isa": self.isa,
            "threads": self.threads, "runs": self.runs, "limits": self.limits.to_dict(),
            "totals": self.totals, "operators": self.operators(),
            "steps": [asdict(s) for s in self.steps],
        }


def totals(steps: Iterable[StepProfile]) -> dict[str, Any]:
    """Sum steps; ``share_of_limit`` is the machine's least time over the time taken."""
    out: dict[str, Any] = dict.fromkeys(
        ("seconds", "flops", "bytes_read", "bytes_written", "limit_seconds"), 0)
    bound = {"compute": 0.0, "memory": 0.0}
    count = 0
    for s in steps:
        count += 1
        bound[s.bound] += s.limit_seconds
        for key in out:
            out[key] += getattr(s, key)
    share = out["limit_seconds"] / out["seconds"] if out["seconds"] else 0.0
    return {"steps": count, **out, "share_of_limit": share,
            "bound": max(bound, key=lambda k: bound[k])}


class Profiler(Session):
    """A session whose entries run under a clock; parameters as of ``Session``."""

    def profile(self, entry: str = "train", *, seconds: float = 1.0) -> Profile:
        """Run an entry on random data for ``seconds``, five times at least, and return the figures.

        ``lr`` is 0 meanwhile, so that the weights stay; optimizer state does not.

        Raises
        ------
        ConfigError
            The program has no entry of that name.
        """
        bound = next((e for e in self._entries if e.name == entry), None)
        if bound is None:
            names = ", ".join(self.program.entries)
            raise ConfigError(f"the program has no entry '{entry}'; it has {names}")
        place = self.program.table.entries[bound.index]
        steps = self.program.table.steps[place.first : place.first + place.count]
        with self._lock:
            self._fill(bound)
            least, fastest, runs = self._time(bound.index, steps, seconds)
        facts = [moved(self.program, s, self.isa) for s in steps]
        compute = [
            c if c in limits.KINDS else "f32"
            for c in self.program.plan.entries[bound.index].compute
        ]
        workers = self._threads
        peaks = limits.measure(workers, set(compute), max((r + w for r, w in facts), default=0))
        known = self.program.entries[entry]
        tensors = self.program.table.tensors
        rows = []
        for i, (s, (read, written)) in enumerate(zip(steps, facts, strict=True)):
            limit, why = peaks.seconds(compute[i], known.flops[i], read + written)
            rows.append(StepProfile(
                i, KERNELS[s.opcode], known.layers[i], compute[i],
                tuple(None if o is None else tensors[o].shape for o in s.operands), s.chunks,
                float(least[i]) * 1e-9, known.flops[i], read, written, limit, why,
            ))
        return Profile(self.program.hash, entry, self.isa, workers, runs, tuple(rows), peaks,
                       *fastest)

    def _time(
        self, entry: int, steps: tuple[TableStep, ...], seconds: float
    ) -> tuple[npt.NDArray[np.float64], tuple[Spans, Spans], int]:
        """Return the least nanoseconds of each step, the spans of the fastest run, and the runs."""
        mine = np.zeros((len(steps), 3), np.uint64)
        chunks = np.zeros((sum(s.chunks for s in steps), 3), np.uint64)
        least = np.full(len(steps), np.inf)
        best, fastest = np.inf, (mine, chunks)
        runs, end = 0, time.perf_counter() + seconds
        while runs < WARM_UP + LEAST_RUNS or time.perf_counter() < end:
            _core.profile(self._runner, entry, mine, chunks)
            runs += 1
            if runs <= WARM_UP:
                continue
            took = (mine[:, 1] - mine[:, 0]).astype(np.float64)
            least = np.minimum(least, took)
            if took.sum() < best:
                best, fastest = took.sum(), (mine.copy(), chunks.copy())
        return least, fastest, runs - WARM_UP

    def _fill(self, entry: Bound) -> None:
        """Write random inputs: normal numbers, integers inside their bounds, ones without."""
        rng = np.random.default_rng(0)
        known = self.program.metadata.get("inputs") or {}
        arrays = {}
        for name, slot in entry.inputs.items():
            classes = self._classes(entry) if name == entry.labels else 0
            top = classes or (known.get(name) or {}).get("bound", 0)
            if slot.dtype.kind != "f":
                a = rng.integers(0, top, slot.shape) if top else np.ones(slot.shape)
            elif name in entry.targets:
                a = rng.uniform(0, 1, slot.shape)  # binary cross-entropy takes nothing else
            else:
                a = rng.standard_normal(slot.shape)
            arrays[name] = np.asarray(a, slot.dtype)
        feeds = {n: a for n, a in arrays.items() if n in (*entry.model_inputs, *entry.targets)}
        if feeds:
            entry.fill(feeds, 0, entry.rows or len(next(iter(feeds.values()))))
        if WEIGHT in entry.inputs:
            entry.inputs[WEIGHT][...] = 1
        for slot, name in self._slots:
            slot[0] = 0 if name == "lr" else self._scalars[name]
