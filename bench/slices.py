"""What slices cost: steps in slices of 5 ms beside whole ones, and the longest without a return.

    PYTHONPATH=src python bench/slices.py [--rounds 9] [--ms 5] [--cpu]

Whole and sliced rounds take turns; times are medians. A single kernel call is not cut: "kernel" is
the longest of the program, which "longest" cannot be below. ``--cpu``: processor time of this
thread, for a machine that others use too. Models: the keyword spotter of examples/, dense nets of
growing width, and an encoder of MiniLM-L6's width, heads and depth over 65 tokens.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from models.vit import vit  # noqa: E402

import edgeloop as el  # noqa: E402
from edgeloop.runtime.profile import Profiler  # noqa: E402
from edgeloop.runtime.slices import Slicer  # noqa: E402


def dense(width: int, layers: int) -> onnx.ModelProto:
    """A net of `layers` dense layers."""
    rng = np.random.default_rng(0)
    nodes, weights, at = [], [], "x"
    for i in range(layers):
        shape = (width, width) if i < layers - 1 else (16, width)
        weights.append(numpy_helper.from_array(
            (rng.standard_normal(shape) / np.sqrt(width)).astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("Gemm", [at, f"w{i}"], [f"h{i}"], f"fc{i}", transB=1))
        at = f"h{i}"
        if i < layers - 1:
            nodes.append(helper.make_node("Relu", [at], [f"r{i}"], f"relu{i}"))
            at = f"r{i}"
    graph = helper.make_graph(
        nodes, "dense", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info(at, TensorProto.FLOAT, ["n", 16])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--ms", type=float, default=5.0)
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    clock = time.thread_time if args.cpu else time.perf_counter
    models = {
        "keyword": (onnx.load(ROOT / "examples/keyword/base.onnx"), 16),
        "dense 512 x 8": (dense(512, 8), 64),
        "dense 2048 x 12": (dense(2048, 12), 128),
        "encoder 384 x 6": (vit(image=32, patch=4, width=384, heads=12, blocks=6), 8),
    }
    print(f"{'model':<18}{'whole ms':>10}{'sliced ms':>11}{'cost':>8}{'longest ms':>12}"
          f"{'kernel ms':>11}")
    for name, (model, batch) in models.items():
        program = el.compile(model, train=el.LoRA(rank=4), batch=batch)
        session = el.Session(program)
        (known,) = program.metadata["inputs"].values()
        rng = np.random.default_rng(1)
        x = rng.standard_normal((batch, *known["shape"][1:])).astype(np.float32)
        y = rng.integers(0, 10, batch)
        slicer = Slicer(args.ms / 1e3, lambda: None, clock)
        took: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(3):
            session.step(x, y)
        for sliced in [False, True] * args.rounds:
            session.slice(slicer if sliced else None)
            session.step(x, y)
            began = clock()
            for _ in range(5):
                session.step(x, y)
            took[sliced].append((clock() - began) / 5 * 1e3)
            if sliced and len(took[True]) == 1:
                slicer.longest = 0.0  # the first steps were measured kernel by kernel
        kernel = max(s.seconds for s in Profiler(program).profile("train").steps)
        whole, parts = (statistics.median(took[k]) for k in (False, True))
        print(f"{name:<18}{whole:>10.2f}{parts:>11.2f}{100 * (parts / whole - 1):>7.1f}%"
              f"{slicer.longest * 1e3:>12.2f}{kernel * 1e3:>11.2f}")


if __name__ == "__main__":
    main()
