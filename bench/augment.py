"""What augmentation is worth: few labelled samples, and a world that is not like them.

python bench/augment.py [TASK ...] [--seeds N] [--steps N]

Each run is a loop as `edgeloop run` runs it: a stream of a few labelled samples, one update, and
the live version's answers on held-out samples. `off` and the rows below it differ in
[train.augment] alone; they learn from the same samples for the same number of training steps, which
is checked. The gate is as open as it can be, a fifth of the samples, and nothing is set aside for
early stopping: the question is what training gives.

keyword     examples/keyword meets its new speaker: 48 clips as recorded. Held out: 120 other clips
            of hers in a room (onset, level, echo, noise of any colour).
vibration   examples/vibration after the machine was geared anew: 32 windows. Held out: the sensor
            on other mountings (gain, softness, noise).
inertial    the quickstart's machine B, raw windows of 6 axes: 24, of one mounting. Held out: 50
            mountings askew, calibrated otherwise, a quarter of them with one axis dead.

`there` is accuracy on held-out samples of that other world, `here` on held-out samples like those
that were learnt from, in percent: means over seeds (choice of the samples, the world, draws of
training). `gain there` is the mean over seeds of the difference to `off`, with its standard error;
`better` counts the seeds where it is above 0, `live` those whose candidate passed the gate; the
others, and those that had nothing wrong in their gate set and did not train, answer with the
shipped version. The strengths follow from what is said of each world; they were set once, before
anything was measured. keyword's last two rows came after that, to see which part of its first does
it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE)]

from augment_worlds import TASKS, Labelled, Task, World  # noqa: E402

import edgeloop as el  # noqa: E402
from edgeloop.data.features import from_spec  # noqa: E402
from edgeloop.data.item import Item  # noqa: E402
from edgeloop.loop import Config, open_loop  # noqa: E402

STEPS = 240


class Run(NamedTuple):
    """Percent right there and here, steps and new samples trained on, and whether it went live."""

    there: float
    here: float
    steps: int
    fresh: int
    live: bool


def learn(
    folder: Path, task: Task, world: World, seed: int, steps: int, augment: dict[str, Any]
) -> Run:
    """Run a loop on the samples of `world`; `folder` holds the program."""
    x, y = world.learn
    tables = {
        "model": {"program": "task.elp"},
        "trigger": {"samples": len(y)},
        "train": {
            "seed": seed, "epochs": steps, "max_steps": steps, "validation": 0.0,
            "early_stopping": {"patience": steps}, "checkpoint_every": steps, "augment": augment,
        },
        "gate": {"min_samples": 1, "capacity": len(y), "share": 0.2, "confidence": 0.5},
        "state": {"backup": False},
    }
    items = [Item(a, int(b), str(i)) for i, (a, b) in enumerate(zip(x, y, strict=True))]
    with tempfile.TemporaryDirectory(dir=folder) as state:
        tables["state"]["path"] = f"{state}/device.db"
        config = Config.from_dict(task.tables | tables, root=folder, name="loop.toml")
        with open_loop(config, source=items) as loop:
            (update,) = loop.run().updates
            there, here = (right(loop.live.predict, w) for w in (world.there, world.here))
    return Run(there, here, update.steps, update.fresh, update.promoted)


def right(predict: Callable[..., Any], held: Labelled) -> float:
    """Percent of held-out model inputs that are answered right."""
    scores, _ = predict(held[0])
    return 100 * float((scores.argmax(axis=1) == held[1]).mean())


def measure(task: Task, seeds: int, steps: int) -> dict[str, list[Run]]:
    """Return the runs of all seeds by row; "shipped" learnt nothing.

    Raises
    ------
    RuntimeError
        Two rows did not train alike: for another number of steps, or on other samples.
    """
    names = {"off": {}} | task.augment
    found: dict[str, list[Run]] = {name: [] for name in ("shipped", *names)}
    program = task.program()
    features = from_spec(program.metadata["features"])
    session = el.Session(program)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program.save(folder / "task.elp")
        for seed in range(seeds):
            raw = task.world(seed)
            here, there = ((features.batch(x), y) for x, y in (raw.here, raw.there))
            world = World(raw.learn, here, there)
            before = (right(lambda x: (session.predict(x), None), w) for w in (there, here))
            found["shipped"].append(Run(*before, 0, 0, live=False))
            runs = {row: learn(folder, task, world, seed, steps, a) for row, a in names.items()}
            if len({(run.steps, run.fresh) for run in runs.values()}) > 1:
                raise RuntimeError(f"seed {seed}: rows trained differently: {runs}")
            for row, run in runs.items():
                found[row].append(run)
    return found


def gain(runs: list[Run], off: list[Run]) -> tuple[float, float, int]:
    """Mean difference to `off` there with its standard error, and the seeds where it is above 0."""
    d = np.array([a.there - b.there for a, b in zip(runs, off, strict=True)])
    error = d.std(ddof=1) / len(d) ** 0.5 if len(d) > 1 else float("nan")
    return float(d.mean()), float(error), int((d > 0).sum())


def show(name: str, task: Task, found: dict[str, list[Run]]) -> None:
    """Print the table of a task."""
    off = found["off"]
    for row, options in task.augment.items():
        print(f"# {row}: " + ", ".join(f"{k} = {v}" for k, v in options.items()))
    fresh = sum(run.fresh for run in off) / len(off)
    title = f"{name}, {max(run.steps for run in off)} steps, {fresh:.0f} to train on"
    print(f"{title:<44} {'there':>6} {'here':>6} {'live':>6} {'gain there':>14} {'better':>7}")
    for row, runs in found.items():
        there, here = (np.mean([run[i] for run in runs]) for i in (0, 1))
        live = "" if row == "shipped" else f"{sum(run.live for run in runs)}/{len(runs)}"
        line = f"{row:<44} {there:>6.1f} {here:>6.1f} {live:>6}"
        if row in task.augment:
            mean, error, better = gain(runs, off)
            line += f" {mean:>+7.1f} +- {error:.1f} {f'{better}/{len(runs)}':>7}"
        print(line.rstrip())
    for row, runs in found.items():
        print(f"  {row + ', there by seed:':<36} " + " ".join(f"{run.there:.1f}" for run in runs))
    print(flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="What augmentation is worth.")
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"{', '.join(TASKS)}; none: all")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of an update")
    args = parser.parse_args()
    if unknown := sorted(set(args.tasks) - set(TASKS)):
        parser.error(f"no task {unknown[0]}; known are {', '.join(TASKS)}")
    for name in args.tasks or TASKS:
        show(name, TASKS[name], measure(TASKS[name], args.seeds, args.steps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
