"""The in-memory data set: what a sample costs, and what storage and policy are worth.

python bench/buffers.py [--seeds N]

First microseconds for each sample of 16 x 16 features that is offered to a memory of 256 new and
256 remembered samples, both full: filtered for near-duplicates, scored for novelty, rounded, pushed
into the ring, and what falls out offered to rehearsal. Then bytes of such a memory.

Then accuracy on digits (scikit-learn's, 8 x 8) that come two classes at a time and never again: a
small network learns from each 32 new samples with as many remembered ones, in 12 KiB for both. Of
all classes at the end, mean and standard error over seeds (order of the classes and of the samples,
first weights, draws).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "src")]

from edgeloop.data.buffers import POLICIES, STORAGES  # noqa: E402
from edgeloop.loop import Config  # noqa: E402
from edgeloop.loop.memory import Memory  # noqa: E402
from edgeloop.loop.trainer import Lesson, Pool  # noqa: E402

SHAPE = (16, 16)
BYTES = 12 << 10
NEW, EPOCHS, BATCH, RATE, HIDDEN = 32, 10, 16, 0.1, 64


def config_of(seed: int = 0, gate: int = 64, **buffer: Any) -> Config:
    data = {
        "model": {"program": "none.elp"},
        "buffer": buffer,
        "train": {"seed": seed, "validation": 0.0},
        "gate": {"min_samples": gate, "capacity": gate, "share": 0.0},
    }
    return Config.from_dict(data, root=Path())


def cost(**buffer: Any) -> tuple[float, int]:
    """Return microseconds for each sample added to full memories, and their bytes."""
    memory = Memory(config_of(**buffer), SHAPE)
    x = np.random.default_rng(0).standard_normal((512, *SHAPE)).astype("f4")

    def feed(first: int, count: int) -> None:
        for i in range(first, first + count):
            one = x[i % 512]
            memory.add("train", one, i % 4, "key", lambda one=one: one[np.newaxis])

    feed(0, 1024)
    # Other numbers than those that are held, or all would be near-duplicates.
    x += np.random.default_rng(1).standard_normal(x.shape).astype("f4")
    best = 1e9
    for k in range(5):
        began = time.perf_counter()
        feed(1024 + 512 * k, 512)
        best = min(best, time.perf_counter() - began)
        x += np.random.default_rng(k + 2).standard_normal(x.shape).astype("f4")
    return best / 512 * 1e6, memory.nbytes


class Network:
    """One hidden layer of rectified units, in NumPy."""

    def __init__(self, inputs: int, classes: int, rng: np.random.Generator) -> None:
        self.a = rng.standard_normal((inputs, HIDDEN)).astype("f4") / np.float32(inputs**0.5)
        self.b = rng.standard_normal((HIDDEN, classes)).astype("f4") / np.float32(HIDDEN**0.5)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return hidden values and class probabilities for x [n, inputs]."""
        hidden = np.maximum(x @ self.a, 0)
        z = hidden @ self.b
        p = np.exp(z - z.max(axis=1, keepdims=True))
        return hidden, p / p.sum(axis=1, keepdims=True)

    def loss(self, x: np.ndarray, y: Any) -> float:
        """Cross-entropy of one sample."""
        return float(-np.log(self.forward(x.reshape(1, -1))[1][0, y] + 1e-9))

    def step(self, x: np.ndarray, y: np.ndarray) -> None:
        """One step of gradient descent."""
        hidden, p = self.forward(x)
        p[np.arange(len(y)), y] -= 1
        p /= np.float32(len(y))
        back = (p @ self.b.T) * (hidden > 0)
        self.b -= np.float32(RATE) * (hidden.T @ p)
        self.a -= np.float32(RATE) * (x.T @ back)


def digits(seed: int) -> tuple[list[tuple[np.ndarray, int]], np.ndarray, np.ndarray]:
    """Return a stream of pairs of classes that come one after another, and samples to test on."""
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(seed)
    x, y = load_digits(return_X_y=True)
    x = (x.astype("f4") - 5) / 6
    order, classes = rng.permutation(len(x)), rng.permutation(10)
    train, test = order[:1200], order[1200:]
    stream = [(x[i], int(y[i])) for pair in classes.reshape(5, 2) for i in train if y[i] in pair]
    return stream, x[test], y[test]


def accuracy(seed: int, storage: str, policy: str) -> float:
    """Learn a stream of digits to its end; return the share of all classes that is right."""
    stream, test, labels = digits(seed)
    config = config_of(
        seed, gate=1, capacity=NEW, validation=0, bytes=BYTES, storage=storage, policy=policy,
        novelty_threshold=0.0,
    )
    memory = Memory(config, test.shape[1:])
    network = Network(test.shape[1], 10, np.random.default_rng(seed + 1000))
    none = Pool(memory.validation, [])
    job = 0
    for i, (x, y) in enumerate(stream):
        memory.add("train", x, y, str(i), lambda x=x: x[np.newaxis])
        if len(memory.fresh) < NEW:
            continue
        job += 1
        old = Pool(memory.rehearsal, memory.rehearsal.slots())
        lesson = Lesson(Pool(memory.fresh, memory.lesson()), old, none, test[:0], [])
        for epoch in range(EPOCHS):
            rows = [pool.view(k, epoch) for pool, k in lesson.order(config.train, job, epoch)]
            for first in range(0, len(rows), BATCH):
                part = rows[first : first + BATCH]
                network.step(np.stack([v for v, _ in part]), np.array([c for _, c in part]))
        memory.retire(score=network.loss)
    return float((network.forward(test)[1].argmax(axis=1) == labels).mean())


def main() -> int:
    parser = argparse.ArgumentParser(description="The in-memory data set.")
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args()
    print(f"{'memory of 256 + 256 samples, 16 x 16':<44} {'us / sample':>11} {'KiB':>7}")
    for storage in STORAGES:
        for name, options in (
            ("no signatures", {"novelty_threshold": 0.0}),
            ("novelty", {}),
            ("novelty, near-duplicates", {"near_duplicate": 0.05}),
        ):
            spent, size = cost(storage=storage, **options)
            print(f"{storage + ', ' + name:<44} {spent:>11.1f} {size / 1024:>7.0f}")
    print(f"\n{'digits, two classes at a time, 12 KiB':<34} {'remembered':>10} {'accuracy %':>14}")
    seeds = range(args.seeds)
    for storage in STORAGES:
        for policy in POLICIES:
            config = config_of(gate=1, capacity=NEW, validation=0, bytes=BYTES, storage=storage,
                               novelty_threshold=0.0)
            held = Memory(config, (64,)).rehearsal.capacity
            found = 100 * np.array([accuracy(seed, storage, policy) for seed in seeds])
            error = found.std(ddof=1) / len(found) ** 0.5
            print(f"{storage + ', ' + policy:<34} {held:>10} {found.mean():>7.1f} +- {error:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
