"""Anomaly detection: an autoencoder of a machine's spectrum, moved to another machine.

It adapts on normal spectra only; the score is the area under the ROC curve of its error, in points.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from models import zoo

from tasks.common import Split, Task, pretrained

BANDS = 64
_BAND = np.arange(BANDS)


def spectra(machine: int, count: int, seed: int, *, faulty: bool = False) -> np.ndarray:
    """Log spectra [count, 64]: harmonics of a changing speed on a room's floor, in about +-2.

    A faulty bearing adds weak side bands around two harmonics and a little broad-band noise.
    """
    who = np.random.default_rng([60, machine])
    rng = np.random.default_rng([61, machine, seed, faulty])
    gains = who.uniform(0.3, 1.6, 6)
    floor = np.convolve(who.normal(0, 1, BANDS + 8), np.ones(9) / 3, "valid")
    speed = who.uniform(6, 9) * rng.uniform(0.9, 1.1, (count, 1))
    load = rng.uniform(0.6, 1.4, (count, 1))
    power = np.exp(0.7 * floor - 1.5) * np.ones((count, 1))
    for h, gain in enumerate(gains, 1):
        power = power + load * gain * np.exp(-0.5 * ((_BAND - h * speed) / 1.2) ** 2)
        if faulty and h in (2, 4):
            side = rng.uniform(0.25, 0.6, (count, 1))
            for sign in (-1, 1):
                power = power + side * np.exp(-0.5 * (_BAND - (h + sign * 0.37) * speed) ** 2)
    power *= np.exp(rng.normal(0, 0.08, power.shape))
    return (np.log(power + 0.02) / 1.5 + 1).astype(np.float32)


@cache
def fleet() -> np.ndarray:
    return np.concatenate([spectra(m, 400, 0) for m in range(5)])


def base() -> onnx.ModelProto:
    model = zoo.autoencoder("anomaly_ae", (BANDS, 64, 32, 8, 32, 64, BANDS))
    return pretrained(model, fleet(), fleet(), loss="mse", rounds=1, epochs=25)


def target(seed: int) -> Split:
    machine = 100 + seed
    x = spectra(machine, 256, 1)
    test = np.concatenate([spectra(machine, 300, 2), spectra(machine, 300, 2, faulty=True)])
    return Split(x, x, test, np.repeat([0, 1], 300))


def score(outputs: np.ndarray, split: Split) -> float:
    """AUC of the mean squared error, by ranks (Mann-Whitney)."""
    error = np.mean((outputs - split.test_x) ** 2, axis=1)
    ranks = np.empty(len(error))
    ranks[np.argsort(error)] = np.arange(1, len(error) + 1)
    bad = split.test_y == 1
    above = ranks[bad].sum() - bad.sum() * (bad.sum() + 1) / 2
    return 100 * float(above / (bad.sum() * (~bad).sum()))


TASK = Task("anomaly AE", "AUC", base, fleet, target, score, loss="mse", epochs=40, lr=5e-3)
