"""The tasks of augment.py: a program, few samples to learn from, and worlds to answer in.

Every draw of a held-out sample comes from NumPy's generator and code of this file, none from
edgeloop.data.augment. What a world does to a sample and no change of [train.augment] can is part of
it: an echo, noise that is not white, a soft mounting.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
sys.path[:0] = [
    str(ROOT / "src"), *(str(EXAMPLES / name) for name in ("keyword", "vibration", "quickstart"))]

import machine  # noqa: E402  (the vibration example's)
import make_data  # noqa: E402  (the keyword example's)
import make_example  # noqa: E402  (the quickstart's)

import edgeloop as el  # noqa: E402
from edgeloop.data.clips import label_of, place, read_wav  # noqa: E402
from edgeloop.data.features import from_spec  # noqa: E402

# Raw windows [n, ...], clips of any length as files hold them, and class numbers [n].
Labelled = tuple[Sequence[np.ndarray] | np.ndarray, np.ndarray]
RATE = make_data.RATE


@dataclass(frozen=True)
class World:
    """Samples of one seed: to learn from, and held out like those and as the world is there."""

    learn: Labelled
    here: Labelled
    there: Labelled


class Task(Protocol):
    """A task.

    Attributes
    ----------
    tables
        What its loop.toml has besides what all have.
    augment
        [train.augment] by the name of its row.
    """

    tables: ClassVar[dict[str, Any]]
    augment: ClassVar[dict[str, dict[str, Any]]]

    def program(self) -> el.Program:
        """What is shipped."""
        ...

    def world(self, seed: int) -> World:
        """Draw the samples of a seed."""
        ...


class Keyword:
    """A word in one second of sound at 16 kHz."""

    each = 4  # clips of a class
    tables: ClassVar = {"base": {
        "kind": "wav", "path": str(EXAMPLES / "keyword/clips/base/anchor"), "anchor": 0.0}}
    augment: ClassVar = {
        "place, level, noise": {
            "views": 4, "shift": 1600, "gain_db": [-12, 0], "snr_db": [5, 20]},
        "and masks": {
            "views": 4, "shift": 1600, "gain_db": [-12, 0], "snr_db": [5, 20],
            "time_mask": [1, 6], "freq_mask": [1, 2]},
        "place, level": {"views": 4, "shift": 1600, "gain_db": [-12, 0]},
        "noise": {"views": 4, "snr_db": [5, 20]},
    }

    def program(self) -> el.Program:
        return el.compile(
            EXAMPLES / "keyword/base.onnx", train=el.LoRA(rank=4), optimizer=el.AdamW(lr=3e-3),
            batch=16, classes=list(make_data.CLASSES),
            features=json.loads((EXAMPLES / "keyword/features.json").read_text()))

    def room(self, clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The clip [n] as a device in a room hears it."""
        tail = rng.standard_normal(RATE // 4)
        tail *= 10.0 ** (-3.0 * np.arange(len(tail)) / (rng.uniform(0.15, 0.4) * RATE))
        tail[0] = 0.0
        tail *= 10.0 ** (-rng.uniform(3, 12) / 20) / np.sqrt(np.square(tail).sum())
        tail[0] = 1.0
        size = 2 * len(clip)
        x = np.fft.irfft(np.fft.rfft(clip, size) * np.fft.rfft(tail, size), size)[: len(clip)]
        x = np.roll(x, int(rng.integers(-1600, 1601))) * 10.0 ** (rng.uniform(-12, 0) / 20)
        level = np.sqrt(np.square(x).mean() * 10.0 ** (-rng.uniform(5, 20) / 10))
        return (x + level * make_data.noise(len(x), rng)).astype("f4")

    def world(self, seed: int) -> World:
        rng = np.random.default_rng((seed, 1))
        x, y = clips("stream")
        chosen = np.concatenate([
            rng.permutation(np.flatnonzero(y == c))[: self.each] for c in np.unique(y)])
        chosen = rng.permutation(chosen)
        held, labels = clips("test")
        held = np.stack([place(clip) for clip in held])
        heard = np.stack([self.room(clip, rng) for clip in held])
        return World(([x[i] for i in chosen], y[chosen]), (held, labels), (heard, labels))


class Vibration:
    """One axis of a machine, 64 samples at 100 Hz."""

    tables: ClassVar[dict[str, Any]] = {}
    augment: ClassVar = {"gain, noise": {"views": 4, "gain_db": [-6, 3], "jitter": 0.03}}

    def program(self) -> el.Program:
        record = json.loads((EXAMPLES / "vibration/features.json").read_text())
        x, y = machine.windows(1, 3000, 0.0)
        return trained(from_spec(record).batch(x), y, record, rank=8)

    def windows(self, seed: int, count: int, rng: np.random.Generator, askew: bool) -> Labelled:
        y = rng.integers(len(machine.CLASSES), size=count)
        x = np.empty((count, machine.LENGTH), "f4")
        geared = machine.condition(0.2)
        for i, label in enumerate(y):
            c = geared if not askew else machine.Condition(
                shaft=geared.shaft, gain=geared.gain * rng.uniform(0.5, 1.4),
                tilt=rng.uniform(0.0, 0.4), noise=rng.uniform(0.03, 0.06))
            start = float(rng.integers(10_000_000)) * 0.01
            x[i] = machine.signal(seed, start, machine.LENGTH, int(label), c)
        return x, y

    def world(self, seed: int) -> World:
        rng = np.random.default_rng((seed, 2))
        return World(self.windows(seed, 32, rng, False), self.windows(seed, 500, rng, False),
                     self.windows(seed, 500, rng, True))


class Inertial:
    """Accelerometer and gyroscope of a machine, 50 samples of 6 axes."""

    tables: ClassVar[dict[str, Any]] = {}
    augment: ClassVar = {"mounting, scale, failure": {
        "views": 4, "rotate_deg": 35, "scale": 0.1, "drop_channel": 0.05}}

    def program(self) -> el.Program:
        record = {"steps": [{"kind": "statistics", "choose": ["mean", "std"]},
                            {"kind": "reshape", "shape": [12]}]}
        rng = np.random.default_rng(0)
        x, y = self.motion(rng, 2000, angle=0.0, gain=1.0)
        return trained(from_spec(record).batch(x), y, record, rank=4)

    def motion(
        self, rng: np.random.Generator, count: int, *, angle: float, gain: float
    ) -> Labelled:
        """Raw windows [count, 50, 6] of make_example.machine."""
        y = rng.integers(len(make_example.CLASSES), size=count)
        strength = gain * make_example.VIBRATION[y] * rng.uniform(0.7, 1.3, (count, 6))
        x = strength[:, None, :] * rng.standard_normal((count, 50, 6))
        x[..., :3] += make_example.GRAVITY
        cos, sin = np.cos(angle), np.sin(angle)
        return turned(x, np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])).astype("f4"), y

    def mounted(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Windows of one mounting: askew, each axis calibrated otherwise, perhaps one dead."""
        a, b, c = rng.standard_normal(3)
        a, b, c = np.array([a, b, c]) / np.sqrt(a * a + b * b + c * c)
        k = np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]])
        angle = np.radians(rng.uniform(10, 35))
        x = turned(x, np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k)
        x *= rng.uniform(0.85, 1.15, 6)
        if rng.random() < 0.25:
            x[..., rng.integers(6)] = 0.0
        return x.astype("f4")

    def world(self, seed: int) -> World:
        rng = np.random.default_rng((seed, 3))
        there = {"angle": 1.0, "gain": 1.3}
        x, y = self.motion(rng, 500, **there)
        askew = np.concatenate([self.mounted(part, rng) for part in np.split(x, 50)])
        return World(self.motion(rng, 24, **there), self.motion(rng, 500, **there), (askew, y))


@functools.cache
def clips(folder: str) -> Labelled:
    """The new speaker's clips of a folder."""
    files = sorted((EXAMPLES / "keyword/clips/speaker" / folder).glob("*.wav"))
    labels = np.array([make_data.CLASSES.index(label_of(f)) for f in files])
    return [read_wav(f) for f in files], labels


def turned(x: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Windows [..., 6] whose accelerometer and gyroscope are turned by `turn` [3, 3]."""
    return np.concatenate([x[..., :3] @ turn.T, x[..., 3:] @ turn.T], axis=-1)


def trained(x: np.ndarray, y: np.ndarray, record: dict[str, Any], rank: int) -> el.Program:
    """The quickstart's network, trained on model inputs [n, k]; its program learns by LoRA."""
    weights = make_example.train(np.random.default_rng(1), x, y)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        make_example.write_onnx(path, weights)
        return el.compile(path, train=el.LoRA(rank=rank), optimizer=el.AdamW(lr=5e-3), batch=16,
                          features=record, classes=list(make_example.CLASSES))


TASKS: dict[str, Task] = {
    "keyword": Keyword(), "vibration": Vibration(), "inertial": Inertial()}
