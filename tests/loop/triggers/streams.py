"""Streams with known changes: the one of River's documentation, and random ones by seed."""

from __future__ import annotations

import random

OPTIONS = {
    "adwin": (
        {},
        {"delta": 0.05, "clock": 8, "max_buckets": 2, "min_window_length": 1, "grace_period": 40},
        {"delta": 0.3, "clock": 1, "max_buckets": 7, "min_window_length": 10, "grace_period": 5},
    ),
    "page-hinkley": (
        {},
        {"min_instances": 10, "delta": 0.05, "threshold": 5.0, "alpha": 0.99, "mode": "up"},
        {"min_instances": 80, "delta": 0.005, "threshold": 20.0, "alpha": 0.9999, "mode": "down"},
    ),
}


def documented() -> list[float]:
    """The stream of River's own examples."""
    rng = random.Random(12345)
    return rng.choices([0, 1], k=1000) + rng.choices(range(4, 8), k=1000)


def stream(seed: int) -> list[float]:
    """Segments of 50 to 900 values with another mean and spread each; some of 0 and 1 only."""
    rng, values = random.Random(seed), []
    for _ in range(rng.randint(2, 6)):
        mean, spread = rng.choice([0, 0.3, 0.6, 2, -1, 5]), rng.choice([0.1, 0.5, 1, 2])
        binary = rng.random() < 0.3
        values += [
            float(rng.random() < abs(mean) % 1) if binary else rng.gauss(mean, spread)
            for _ in range(rng.randint(50, 900))
        ]
    return values


def still(seed: int, n: int = 3000) -> list[float]:
    """Values of N(0, 1): no change."""
    rng = random.Random(seed)
    return [rng.gauss(0, 1) for _ in range(n)]


def shift(seed: int) -> list[float]:
    """As :func:`still`, then 500 values of N(1, 1)."""
    rng = random.Random(1000 + seed)
    return still(seed) + [rng.gauss(1, 1) for _ in range(500)]
