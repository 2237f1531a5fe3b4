"""Forecasting: the next 8 values of a load curve from its last 64, at another site.

A temporal convolution net with dilations. The score is 100 * R^2 on the site's later weeks.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from models.zoo import Net

from tasks.common import Split, Task, pretrained

PAST, NEXT = 64, 8


def series(site: int, length: int) -> np.ndarray:
    """A day of 24 and a week of 168 hours, weather as an AR(2), noise; level about 0, scale 1."""
    rng = np.random.default_rng([50, site])
    t = np.arange(length)
    shift, sharp = rng.uniform(0, 24), rng.uniform(0.5, 2.0)
    day = np.tanh(sharp * np.sin(2 * np.pi * (t + shift) / 24))
    day += rng.uniform(0.1, 0.6) * np.sin(4 * np.pi * (t + rng.uniform(0, 24)) / 24)
    week = np.where((t // 24 + rng.integers(7)) % 7 < 5, 1.0, rng.uniform(0.2, 0.7))
    weather = np.zeros(length)
    shocks = rng.normal(0, 0.1, length)
    for i in range(2, length):
        weather[i] = 1.5 * weather[i - 1] - 0.56 * weather[i - 2] + shocks[i]
    return (day * week + 0.5 * weather + rng.normal(0, 0.08, length)).astype(np.float32)


def windows(x: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    at = range(0, len(x) - PAST - NEXT, step)
    return (np.stack([x[None, i:i + PAST] for i in at]),
            np.stack([x[i + PAST:i + PAST + NEXT] for i in at]))


@cache
def sites() -> tuple[np.ndarray, np.ndarray]:
    parts = [windows(series(s, 1000), 4) for s in range(8)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def untrained() -> onnx.ModelProto:
    n, x, cin = Net("forecast_tcn", (1, PAST)), "x", 1
    for i, dilation in enumerate((1, 2, 4, 8)):
        w = n.rng.standard_normal((32, cin, 3)) * np.sqrt(2 / (3 * cin))
        y = n.node("Conv", [x, n.weight(f"layers.{i}.conv.weight", w),
                            n.weight(f"layers.{i}.conv.bias", np.zeros(32))], f"layers.{i}.conv",
                   kernel_shape=[3], pads=[2 * dilation, 0], dilations=[dilation])
        y = n.relu(y, f"layers.{i}.act")
        x, cin = n.add(x, y, f"layers.{i}.sum") if cin == 32 else y, 32
    starts, ends, axes = (n.integers(f"last.{k}", v) for k, v in
                          (("from", [PAST - 8]), ("to", [PAST]), ("axes", [2])))
    x = n.node("Flatten", [n.node("Slice", [x, starts, ends, axes], "last")], "flat")
    return n.model(n.fc(x, "head", 256, NEXT), (NEXT,))


def base() -> onnx.ModelProto:
    return pretrained(untrained(), *sites(), loss="mse", rounds=1, epochs=12)


def target(seed: int) -> Split:
    """A site per seed, of larger swings: 300 hours to learn from, the 700 after that to test on."""
    x = 1.8 * series(100 + seed, 1000) + 0.7
    return Split(*windows(x[:300], 1), *windows(x[300:], 3))


def score(outputs: np.ndarray, split: Split) -> float:
    residual = np.sum((outputs - split.test_y) ** 2)
    return 100 * float(1 - residual / np.sum((split.test_y - split.test_y.mean()) ** 2))


TASK = Task("forecast TCN", "100 R^2", base, lambda: sites()[0], target, score, loss="mse",
            epochs=10)
