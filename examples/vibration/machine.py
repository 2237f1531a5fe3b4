"""A machine with a vibration sensor on it, as it ages: the stream of the vibration example.

One accelerometer axis at 100 samples a second. The machine is off, idles, works, or works with a
failing bearing. Over the days it ages, and five times something changes at once: it is geared for
another product (twice), the sensor is put back elsewhere after maintenance, the mounting softens,
and a neighbour starts to hum. What a model learnt on the first day becomes wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLASSES = ("off", "idle", "load", "fault")
RATE = 100.0  # samples a second
LENGTH, HOP = 64, 60  # samples of a window, and from one to the next
WEEK = 7 * 24 * 3600.0
STAY = 96.0  # seconds the machine stays in one state


@dataclass(frozen=True)
class Condition:
    """How machine and sensor are at some time; the first values are those of the first day.

    Attributes
    ----------
    shaft
        Turns a second.
    gain
        Of the sensor with its mounting.
    tilt
        How much of one sample stays in the next: a soft mounting passes less of what is fast.
    hum, hum_hz
        Strength and frequency of the neighbour.
    noise
        Strength of what the sensor adds.
    """

    shaft: float = 12.0
    gain: float = 1.0
    tilt: float = 0.0
    hum: float = 0.0
    hum_hz: float = 31.0
    noise: float = 0.03


def condition(part: float) -> Condition:
    """Condition after `part` (0 to 1) of the week: it ages, and five times something changes."""
    return Condition(
        shaft=12.0 + (2.5 if part > 0.16 else 0.0) + (2.0 if part > 0.47 else 0.0),
        gain=(1.0 - 0.05 * part) * (0.6 if part > 0.31 else 1.0),
        tilt=0.3 if part > 0.62 else 0.0,
        hum=0.2 if part > 0.79 else 0.0,
        noise=0.03 + 0.01 * part,
    )


def state(seed: int, second: float) -> int:
    """Class number of the machine at a second of the week."""
    span = int(second // STAY)
    return int(np.random.default_rng((seed, span)).integers(len(CLASSES)))


def signal(
    seed: int, start: float, count: int, state: int, c: Condition
) -> NDArray[np.float32]:
    """Samples [count] from second `start` on; the same seed and start, the same samples.

    `state` is the class number; units are g.
    """
    rng = np.random.default_rng((seed, round(start * RATE)))
    t = start + np.arange(count) / RATE
    x = np.zeros(count)
    strength = (0.0, 0.25, 0.6, 0.6)[state]
    # A slip of a few percent from span to span, as an unloaded or loaded motor has.
    turning = c.shaft * (1.0 if state == 1 else 0.94) * (
        1.0 + 0.01 * np.sin(2 * np.pi * (start // STAY) / 7.3))
    for order, part in ((1, 1.0), (2, 0.5 if state != 1 else 0.2), (3, 0.25)):
        x += strength * part * np.sin(2 * np.pi * order * turning * t + order)
    if state == 3:  # each turn the bearing rings twice, between 38 and 46 Hz
        phase = (2.0 * turning * t) % 1.0
        x += 0.5 * np.exp(-6.0 * phase) * np.sin(2 * np.pi * 42.0 * t)
    x += c.hum * np.sin(2 * np.pi * c.hum_hz * t)
    if c.tilt:
        smooth = np.empty_like(x)
        last = 0.0
        for i, value in enumerate(x):
            last = c.tilt * last + (1.0 - c.tilt) * value
            smooth[i] = last
        x = smooth
    x = c.gain * x + c.noise * rng.standard_normal(count)
    return x.astype(np.float32)


def windows(
    seed: int, count: int, part: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Windows [count, LENGTH] and labels [count], drawn as the machine is at `part` of the week."""
    rng = np.random.default_rng((seed, 1 << 20, round(part * 1000)))
    labels = rng.integers(len(CLASSES), size=count)
    x = np.stack([
        signal(seed, float(rng.integers(10_000_000)) * 0.01, LENGTH, int(label), condition(part))
        for label in labels])
    return x, labels
