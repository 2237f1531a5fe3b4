"""A tiny program made by hand: y = relu(x), with a train entry whose step is also a relu."""

from __future__ import annotations

import numpy as np

from edgeloop.program import EntrySpec, ProgramSpec, StepSpec, TensorSpec

ROWS, WIDTH = 4, 8


def dense(name, region, offset, shape, dtype="f32", *, weight=""):
    strides, step = [], 1
    for d in reversed(shape):
        strides.insert(0, step)
        step *= d
    return TensorSpec(name, region, offset, dtype, shape, tuple(strides), weight)


def relu(name, a, b, *, chunks=1, scratch=(0, 0)):
    return StepSpec("relu", (a, b), (), chunks, *scratch, name, 32)


def tiny_spec(**change) -> ProgramSpec:
    """predict: x -> relu -> arena -> relu -> y. `train` copies params p to loss through relu."""
    shape = (ROWS, WIDTH)
    tensors = (
        dense("x", "io", 0, shape),  # 128 bytes
        dense("h", "arena", 64, shape),
        dense("y", "io", 128, shape),
        dense("w", "weights", 0, (3,), weight="w"),
        dense("p", "params", 0, (5,)),
        dense("m", "state", 0, (5,)),
        dense("lr", "io", 256, (1,)),
        dense("u", "weights", 0, (5,), weight="u"),
        dense("labels", "io", 320, (ROWS,), "i32"),
        dense("sample_weight", "io", 384, (ROWS,)),
        dense("norm", "io", 448, (1,)),
        dense("loss", "io", 512, (1,)),
        dense("first_row", "io", 0, (WIDTH,)),
        dense("h_row", "arena", 64, (WIDTH,)),
    )
    predict = EntrySpec(
        "predict", (relu("first", 0, 1), relu("second", 1, 2)), {"x": 0}, {"y": 2}, 192, 128, 128,
    )
    train = EntrySpec(
        "train",
        (relu("update", 7, 4), relu("state", 4, 5), relu("loss", 10, 11)),
        {"x": 0, "labels": 8, "sample_weight": 9, "norm": 10}, {"loss": 11}, 64, 64, 64,
    )
    fields = {
        "tensors": tensors, "entries": (train, predict),
        "weights": {"w": np.arange(3, dtype=np.float32), "u": np.arange(5, dtype=np.float32) - 2},
        "params": {"p": 4}, "states": {"m": 5},
        "initial": {"p": np.full(5, 0.5, np.float32), "m": np.zeros(5, np.float32)},
        "scalars": {"lr": (6, 0.1)},
        "param_bytes": 64, "state_bytes": 64, "io_bytes": 576, "threads": 1, "isa": "auto",
        "metadata": {"batch": ROWS, "predict_batch": ROWS, "loss": "cross_entropy",
                     "outputs": ["y"], "classes": [f"c{i}" for i in range(WIDTH)]},
    }
    return ProgramSpec(**{**fields, **change})
