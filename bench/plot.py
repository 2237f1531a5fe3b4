"""Pictures of what was measured (SVG), for which alone matplotlib is needed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
import report


def speed(folder: str) -> None:
    """speed.json -> speed.svg: training steps as shares of the best f32 peer's time."""
    doc = json.loads(Path(folder, "speed.json").read_text())
    results = report.grouped(doc)
    threads = max((t for task, _, t in results if task == "train"), default=1)
    chosen = {name: sides for (task, name, t), sides in results.items()
              if task == "train" and t == threads}
    if not chosen:
        return
    rows = report.rows(results, doc["peaks"], doc["modes"])
    best = {r.name: r.best_f32_ms for r in rows if r.task == "train" and r.threads == threads}
    sides = list(dict.fromkeys(s for by in chosen.values() for s in by))
    figure, axis = plt.subplots(figsize=(1.6 + 1.5 * len(chosen), 4))
    width = 0.85 / len(sides)
    for k, side in enumerate(sides):
        shares = [report.median(by.get(side, ())) / best.get(name, math.nan)
                  for name, by in chosen.items()]
        axis.bar([i + (k + 0.5) * width - 0.425 for i in range(len(chosen))], shares, width,
                 label=side, hatch=None if side.startswith("edgeloop") else "//")
    axis.axhline(1, color="black", linewidth=0.8)
    axis.set_xticks(range(len(chosen)), chosen)
    axis.set_ylim(0, 3)
    axis.set_ylabel(f"step time / best f32 peer ({threads} threads)")
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(Path(folder, "speed.svg"))


def growth(folder: str) -> None:
    """growth.json -> growth.svg: one panel for each quantity, with its straight line."""
    doc = json.loads(Path(folder, "growth.json").read_text())
    figure, axes = plt.subplots(1, len(doc), figsize=(3.2 * len(doc), 3))
    for axis, (what, found) in zip(axes, doc.items(), strict=True):
        x, y = found["x"], found["y"]
        axis.plot(x, y, "o")
        axis.plot(x, [found["slope"] * v + found["offset"] for v in x], "-", linewidth=0.8)
        axis.set_title(f"{what}: R² {found['r2']:.4f}", fontsize=9)
        axis.set_ylabel(found["unit"])
        axis.set_ylim(0)
    figure.tight_layout()
    figure.savefig(Path(folder, "growth.svg"))
