"""How a training step grows with batch, sequence, layers and rank. `make bench growth`, or

    python bench/growth.py [--isa avx512] [--runs 9]

A GPT of the benchmark's kind, one thread, exact f32. Time is the least of several runs of the
thread's own clock, so that a busy machine disturbs little. A straight line is fitted to each
series: R² says how straight it is, and the exponent how time grows between the two ends.
Attention's share of time grows with the square of the sequence; its memory must not: the
arena is that of the plan.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

import edgeloop as el

OUT = Path(__file__).resolve().parents[1] / "build" / "bench"
DIM, HEADS, HIDDEN, VOCAB = 128, 4, 512, 512
USUAL = {"batch": 4, "time": 64, "layers": 2, "rank": 8}
SERIES = {
    "batch": (2, 4, 8, 16, 32), "time": (64, 128, 256, 512, 1024), "layers": (1, 2, 4, 8),
    "rank": (4, 8, 16, 32, 64),
}
STRAIGHT = 0.99  # least R² of what has to be linear


def model(time_: int, layers: int) -> bytes:
    """A GPT as an ONNX file."""
    import torch
    from nets_attention import Gpt

    torch.manual_seed(0)
    net = Gpt(DIM, layers, HEADS, HIDDEN, VOCAB, time_).eval()
    out = io.BytesIO()
    warnings.simplefilter("ignore", DeprecationWarning)
    torch.onnx.export(net, torch.zeros(1, time_, dtype=torch.int64), out, input_names=["x"],
                      output_names=["y"], dynamo=False, opset_version=18,
                      dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}})
    return out.getvalue()


def point(at: dict[str, int], runs: int, isa: str) -> tuple[float, int]:
    """Milliseconds of a step and bytes of its arena."""
    import onnx

    program = el.compile(
        onnx.load_from_string(model(at["time"], at["layers"])), batch=at["batch"],
        train=el.LoRA(rank=at["rank"]), optimizer=el.SGD(lr=0.01), entries=("train",), isa=isa)
    session = el.Session(program)
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, VOCAB, (at["batch"], at["time"])) for _ in range(2))
    best = float("inf")
    for _ in range(runs + 1):
        t = time.thread_time()
        session.step(x, y)
        best = min(best, time.thread_time() - t)
    return best * 1e3, program.plan.arena_bytes


def line(x: list[int], y: list[float]) -> dict[str, float]:
    """The straight line through the points (least squares of relative errors), its R² and the
    power of x that y grows with from the first point to the last."""
    a, b = np.array(x, float), np.array(y, float)
    slope, offset = np.polyfit(a, b, 1, w=1 / b)
    rest = ((b - slope * a - offset) ** 2).sum()
    return {"slope": float(slope), "offset": float(offset),
            "r2": float(1 - rest / ((b - b.mean()) ** 2).sum()),
            "exponent": float(np.log(b[-1] / b[0]) / np.log(a[-1] / a[0]))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--isa", default="auto")
    parser.add_argument("--runs", type=int, default=9)
    args = parser.parse_args()
    doc: dict[str, dict] = {}
    for what, values in SERIES.items():
        points = [point(USUAL | {what: v}, args.runs, args.isa) for v in values]
        ms, arena = (list(p) for p in zip(*points, strict=True))
        doc[what] = {"x": list(values), "y": ms, "unit": "ms", **line(list(values), ms)}
        if what == "time":
            mib = [a / 2**20 for a in arena]
            doc["memory over time"] = {"x": list(values), "y": mib, "unit": "MiB of arena",
                                       **line(list(values), mib)}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "growth.json").write_text(json.dumps(doc, indent=1))
    text = ["| over | points | R² of a line | exponent |", "|---|---|---|---|"]
    for what, f in doc.items():
        shown = ", ".join(f"{x}: {y:.3g}" for x, y in zip(f["x"], f["y"], strict=True))
        text.append(f"| {what} | {shown} {f['unit']} | {f['r2']:.4f} | {f['exponent']:.2f} |")
    (OUT / "growth.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))
    try:
        import plot

        plot.growth(str(OUT))
    except ModuleNotFoundError:
        print("no plot: matplotlib is not installed (pip install -e .[bench])")
    bent = [w for w in ("batch", "layers", "rank", "memory over time") if doc[w]["r2"] < STRAIGHT]
    print(f"not linear: {', '.join(bent)}" if bent else "batch, layers, rank and memory: linear")
    return int(bool(bent))


if __name__ == "__main__":
    sys.exit(main())
