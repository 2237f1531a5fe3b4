"""Conditions against a fixed schedule at the same energy: the same labelled week, twice.

Time is the stream's own, so that a run is a function of the seed. Each labelled window is answered
by the live version before anything learns from it; the share of right answers over the week is
what a user would have seen.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass

import numpy as np

from edgeloop.data.item import Item
from edgeloop.loop import Config, open_loop

# Joules of an operation and a byte, as for a small board; only their sum over a run is compared.
CALIBRATION = {
    "joules_per_flop": 1e-10, "joules_per_byte": 1e-9, "watts": 3.0, "idle_watts": 2.0,
    "flops_per_second": 1e9, "bytes_per_second": 1e9, "uncertainty": 0.3, "program": "",
}


@dataclass
class Outcome:
    """A week: share of right answers over it and in its last tenth, joules, updates."""

    right: float
    at_end: float
    joules: float
    updates: int
    promoted: int


def calibrate(folder):
    """Write calibration.json."""
    (folder / "calibration.json").write_text(json.dumps(CALIBRATION))


def labelled(world, count):
    """`count` windows over the week in order of time, each with its label."""
    for i in range(count):
        part = i / count
        x, y = world.held_out_at(part, i)
        yield Item(x, int(y), f"{world.name}:{i}", {}, part * world.duration)


def week(folder, toml, world, count, changes):
    """Run the loop of a configuration over the week; `changes` replace tables of it."""
    folder.mkdir(parents=True)
    calibrate(folder)
    data = tomllib.loads(toml) | changes
    for table in ("window", "feedback", "constraints", "budget"):
        data.pop(table, None)
    data["source"] = {"kind": "stdin"}
    data["energy"] = {"calibration": str(folder / "calibration.json")}
    data["model"] = {"program": str(world.program)}
    data["state"] = {"path": str(folder / "device.db"), "backup": False}
    config = Config.from_dict(data, root=folder, name="loop.toml")
    now, right = [0.0], []

    def stream():
        for item in labelled(world, count):
            now[0] = item.time
            yield item

    def answered(kind, **detail):
        if kind == "item":
            scores, _ = loop.live.predict(detail["x"][np.newaxis])
            right.append(int(scores.argmax()) == detail["y"])

    with open_loop(config, source=stream(), on_event=answered, clock=lambda: now[0],
                   wall=lambda: now[0], sleep=lambda _: None) as loop:
        report = loop.run()
    spent = sum(update.joules for update in report.updates)
    last = right[-max(1, len(right) // 10):]
    return Outcome(float(np.mean(right)), float(np.mean(last)), spent, len(report.updates),
                   report.promoted)


def same_energy(folder, toml, world, count, ours):
    """A fixed schedule that uses at least as much energy, and its hours.

    It begins with as many updates as the conditions made, and is hastened until the energy is used.
    """
    hours = world.duration / 3600.0 / max(1, ours.updates)
    while True:
        found = week(
            folder / f"every-{hours:.3f}h", toml, world, count,
            {"trigger": {"when": {"all": [{"every": f"{hours:.4f} h"}, {"samples": 32}]}}})
        if found.joules >= ours.joules or hours < 0.5:
            return hours, found
        hours *= max(0.5, min(0.9, found.joules / ours.joules))
