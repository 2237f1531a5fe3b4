"""Activity recognition: six activities on six inertial channels, a new user who wears it askew.

The signals are made here: each activity is a gait of three harmonics on the accelerometer and the
gyroscope plus gravity in its posture; a user has an own pace, vigour, phase pattern and mounting.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from models import zoo

from tasks.common import Split, Task, accuracy, pretrained

ACTIVITIES, LENGTH, RATE = 6, 128, 50.0
_SHAPES = np.random.default_rng(40).normal(0, 1, (ACTIVITIES, 6, 3))
_PACE = np.array([1.0, 1.15, 1.3, 1.7, 2.3, 0.35])  # cycles per second
_VIGOUR = np.array([0.5, 0.7, 0.55, 0.8, 1.2, 0.3])


def rotation(rng: np.random.Generator, angle: float) -> np.ndarray:
    """Rotate by about ``angle`` (radians) around a random axis."""
    axis = rng.normal(size=3)
    a, b, c = axis / np.linalg.norm(axis)
    k = np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]])
    t = angle * rng.uniform(0.8, 1.2)
    return np.eye(3) + np.sin(t) * k + (1 - np.cos(t)) * k @ k


def user(number: int, count: int, askew: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows [count, 6, 128] of one user and their activities."""
    who = np.random.default_rng([41, number])
    rng = np.random.default_rng([42, number, seed])
    pace, vigour = who.uniform(0.8, 1.25), who.uniform(0.7, 1.4)
    shapes = _SHAPES + who.normal(0, 0.5, _SHAPES.shape)
    mount = rotation(who, askew)
    y = rng.integers(0, ACTIVITIES, count)
    t = np.arange(LENGTH) / RATE
    x = np.empty((count, 6, LENGTH))
    for i, c in enumerate(y):
        base = 2 * np.pi * _PACE[c] * pace * rng.uniform(0.92, 1.08)
        waves = np.stack([np.sin(base * h * t + rng.uniform(0, 2 * np.pi)) / h for h in (1, 2, 3)])
        x[i] = vigour * _VIGOUR[c] * rng.uniform(0.8, 1.2) * shapes[c] @ waves
        x[i, :3] += np.array([0.0, 0.2 * (c == 3), 1.0 - 0.6 * (c == 5)])[:, None]
        x[i, :3], x[i, 3:] = mount @ x[i, :3], mount @ x[i, 3:]
    x += rng.normal(0, 0.7, x.shape)
    return x.astype(np.float32), y


@cache
def crowd() -> tuple[np.ndarray, np.ndarray]:
    parts = [user(u, 150, 0.15, 0) for u in range(12)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def base() -> onnx.ModelProto:
    return pretrained(zoo.har(), *crowd(), rounds=1, epochs=12)


def target(seed: int) -> Split:
    """A new user each seed: 192 windows, 600 to test on."""
    number = 100 + seed
    return Split(*user(number, 192, 1.3, 1), *user(number, 600, 1.3, 2))


TASK = Task("activity CNN", "accuracy", base, lambda: crowd()[0], target, accuracy, epochs=10)
