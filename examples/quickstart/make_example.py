"""Write a small model and a stream to try edgeloop on: machine.onnx, stream.csv, test.csv.

A classifier tells from a 6-axis vibration sensor what a machine is doing. It is trained here, in
NumPy, on machine A. The two CSV files come from machine B, where the sensor is mounted at an
angle and the base is softer, so the model is often wrong until it has adapted.

    python examples/quickstart/make_example.py OUT_FOLDER       (needs numpy and onnx)
"""

from __future__ import annotations

import csv
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("off", "idle", "load", "fault")
AXES = ("ax", "ay", "az", "gx", "gy", "gz")
COLUMNS = [f"{axis}_{what}" for what in ("mean", "rms") for axis in AXES]
# Vibration of each axis (accelerometer in g, gyroscope in rad/s) in each state.
VIBRATION = np.array([
    [0.02, 0.02, 0.02, 0.01, 0.01, 0.01],
    [0.15, 0.08, 0.05, 0.10, 0.05, 0.05],
    [0.20, 0.35, 0.10, 0.10, 0.25, 0.08],
    [0.20, 0.30, 0.40, 0.12, 0.20, 0.30],
])  # fmt: skip
GRAVITY = np.array([0.0, 0.0, 1.0])


def main(out: Path) -> None:
    """Make the three files in `out`."""
    rng = np.random.default_rng(0)
    x, y = machine(rng, 2000, angle=0.0, gain=1.0)
    weights = train(rng, x, y)
    stream = machine(rng, 600, angle=1.0, gain=1.3)
    test = machine(rng, 200, angle=1.0, gain=1.3)
    out.mkdir(parents=True, exist_ok=True)
    write_onnx(out / "machine.onnx", weights)
    write_csv(out / "stream.csv", *stream)
    write_csv(out / "test.csv", *test)
    for name, (features, labels) in {"A": (x, y), "B": test}.items():
        right = np.mean(forward(weights, features)[-1].argmax(1) == labels)
        print(f"machine {name}: {right:.1%} right")


def machine(
    rng: np.random.Generator, count: int, *, angle: float, gain: float
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate windows of 50 samples: features [count, 12] and labels [count].

    `angle` (radians) turns the sensor about its x axis; `gain` scales all vibration.
    """
    labels = rng.integers(len(CLASSES), size=count)
    strength = gain * VIBRATION[labels] * rng.uniform(0.7, 1.3, (count, 6))
    motion = strength[:, None, :] * rng.standard_normal((count, 50, 6))
    motion[..., :3] += GRAVITY
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    turned = np.concatenate([motion[..., :3] @ turn.T, motion[..., 3:] @ turn.T], axis=2)
    mean = turned.mean(axis=1)
    rms = np.sqrt(np.mean((turned - mean[:, None]) ** 2, axis=1))
    return np.concatenate([mean, rms], axis=1).astype(np.float32), labels


def train(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Fit a dense network 12-32-32-4 by stochastic gradient descent; weights are [out, in]."""
    sizes = (x.shape[1], 32, 32, len(CLASSES))
    weights = []
    for wide, narrow in pairwise(sizes):
        weights += [rng.normal(0, np.sqrt(2 / wide), (narrow, wide)), np.zeros(narrow)]
    goal = np.eye(len(CLASSES))[y]
    for _ in range(3000):
        rows = rng.integers(len(x), size=32)
        *hidden, logits = forward(weights, x[rows])
        soft = np.exp(logits - logits.max(axis=1, keepdims=True))
        error = (soft / soft.sum(axis=1, keepdims=True) - goal[rows]) / len(rows)
        for layer in (2, 1, 0):
            below = hidden[layer]
            passed = (error @ weights[2 * layer]) * (below > 0)
            weights[2 * layer] -= 0.3 * error.T @ below
            weights[2 * layer + 1] -= 0.3 * error.sum(axis=0)
            error = passed
    return [weight.astype(np.float32) for weight in weights]


def forward(weights: list[np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """Return the input of every layer and the logits."""
    values = [x]
    for layer in range(3):
        x = values[-1] @ weights[2 * layer].T + weights[2 * layer + 1]
        values.append(np.maximum(x, 0) if layer < 2 else x)
    return values


def write_onnx(path: Path, weights: list[np.ndarray]) -> None:
    """Write the network with Gemm and Relu nodes; the batch is dynamic."""
    names = ["dense1", "dense2", "classifier"]
    nodes, tensors, value = [], [], "features"
    for i, name in enumerate(names):
        result = "logits" if i == 2 else f"{name}.out"
        inputs = [value, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Gemm", inputs, [result], name=name, transB=1))
        tensors += [
            numpy_helper.from_array(weights[2 * i], f"{name}.weight"),
            numpy_helper.from_array(weights[2 * i + 1], f"{name}.bias"),
        ]
        value = result
        if i < 2:
            value = f"{name}.relu"
            nodes.append(helper.make_node("Relu", [result], [value], name=value))
    shapes = {"features": ["batch", weights[0].shape[1]], "logits": ["batch", len(weights[-1])]}
    inputs, outputs = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items())
    graph = helper.make_graph(nodes, "machine", [inputs], [outputs], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_csv(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """Write features and label names, one window a line."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, "label"])
        for row, label in zip(x, y, strict=True):
            writer.writerow([*(f"{value:.4f}" for value in row), CLASSES[label]])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
