"""How long an update takes: from the last sample to an answer of the new version.

The real loop, state file and serving swap, as often as asked. An update trains 20 steps on what
is new, judges on held-out samples, commits and swaps; the labels are random, so the gate's verdict
is taken as it was reached and then overruled: every candidate goes live.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import measure
import numpy as np

STEPS = 20


@dataclass(frozen=True)
class Kind:
    """``fresh`` new samples of ``name``'s data make one update."""

    name: str
    mode: str
    fresh: int
    epochs: int
    gate: int = 16


KINDS = {"keyword": Kind("W2", "f32", 32, 5), "sentences": Kind("W5s", "int8", 16, 5)}


def measured(models: Path, cycles: int, threads: int, *,
             busy: bool = False) -> dict[str, dict[str, float]]:
    """Every kind in a process of its own. ``busy``: by processor time, which leaves out waiting
    for the disk."""
    out = {}
    for kind in KINDS:
        done = subprocess.run(
            [sys.executable, __file__, models, kind, str(cycles), str(threads),
             "busy" if busy else "idle"],
            capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"update cycle of {kind} failed:\n{done.stderr[-2000:]}")
        out[kind] = json.loads(done.stdout)
        print(f"update cycle {kind}: {out[kind]}", flush=True)
    return out


def run(models: Path, kind: Kind, cycles: int, threads: int, folder: Path,
        clock: Callable[[], float] = time.monotonic) -> dict[str, float]:
    """Run ``cycles`` updates; times in ms, by ``clock``."""
    import compiled

    import edgeloop as el
    from edgeloop.data.sources import IterableSource
    from edgeloop.loop import Config, Loop
    from edgeloop.loop.gate import PairedGate
    from edgeloop.loop.triggers import Samples, TriggerSet
    from edgeloop.store import Store

    class Fresh(Samples):
        """Counts samples to train on alone."""

        def update(self, facts):
            self._seen = facts.fresh

    class Ids:
        """A session over token ids for a loop that hands out floats."""

        def __init__(self, session):
            self.__dict__["session"] = session

        def __getattr__(self, key):
            return getattr(self.session, key)

        def __setattr__(self, key, value):
            setattr(self.session, key, value)

        def step(self, x, y):
            return self.session.step(x.astype(np.int64), y)

        def predict(self, x):
            return self.session.predict(x.astype(np.int64))

        def evaluate(self, x, y):
            return self.session.evaluate(x.astype(np.int64), y)

    class Overruled(PairedGate):
        def winnable(self, live):
            super().winnable(live)
            return True

        def __call__(self, evidence, *, seed):
            return replace(super().__call__(evidence, seed=seed), promote=True)

    program = compiled.train_program(
        models, kind.name, kind.mode, threads, entries=("train", "eval", "predict"),
        predict_batch=kind.gate)
    config = Config.from_dict({
        "model": {"program": "none.elp"},
        "source": {"kind": "stdin"},
        "buffer": {"capacity": kind.fresh, "rehearsal": 0, "validation": 0},
        "trigger": {"samples": kind.fresh},
        "train": {"epochs": kind.epochs, "early_stopping": {"patience": kind.epochs},
                  "rehearsal": 0.0, "validation": 0.0},
        "gate": {"min_samples": kind.gate},
    }, root=folder)
    with np.load(models / f"{kind.name}.data.npz") as z:
        x = z["x0"]
    rng = np.random.default_rng(0)
    wanted = (cycles + 2) * 2 * kind.fresh
    draw = (rng.integers(0, 30522, (wanted, *x.shape[1:])) if x.dtype.kind == "i"
            else rng.standard_normal((wanted, *x.shape[1:])))
    stream = [(a.astype(np.float32), int(y)) for a, y in zip(
        draw, rng.integers(0, 2, wanted), strict=True)]

    def session():
        return Ids(el.Session(program)) if x.dtype.kind == "i" else el.Session(program)

    def event(what, **_):
        nonlocal cycles
        if what == "promoted":
            cycles -= 1
            if cycles == 0:
                loop.stop()

    with Store.open(folder / "device.db") as store:
        loop = Loop(config, store=store, source=IterableSource(stream), learner=session(),
                    predictor=session(), program_hash=program.hash, batch=program.batch,
                    shape=x.shape[1:], prepare=lambda a: a, on_event=event, clock=clock,
                    triggers=TriggerSet(Fresh(kind.fresh), gate_samples=kind.gate),
                    gate=Overruled(kind.gate, 0.95, 0.02))
        updates = loop.run().updates
    assert all(u.steps == STEPS and u.fresh == kind.fresh for u in updates)
    ms = np.array([u.cycle_seconds for u in updates[1:]]) * 1e3  # the first one is warm-up
    return {"cycles": len(ms), "median_ms": float(np.median(ms)),
            "p99_ms": float(np.percentile(ms, 99)), "min_ms": float(ms.min()),
            "train_ms": float(np.median([u.train_seconds for u in updates[1:]]) * 1e3)}


def main() -> None:
    models, kind, cycles, threads, busy = Path(sys.argv[1]), *sys.argv[2:6]
    measure.pin(int(threads))
    clock = time.process_time if busy == "busy" else time.monotonic
    with tempfile.TemporaryDirectory() as folder:
        found = run(models, KINDS[kind], int(cycles), int(threads), Path(folder), clock)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
