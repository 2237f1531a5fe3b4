"""What the two devices of the soak sense, and how it drifts over their week."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path[:0] = [str(EXAMPLES / "vibration"), str(EXAMPLES / "keyword")]

import machine  # noqa: E402  (the vibration example's)

from edgeloop.data.clips import label_of, place, read_wav  # noqa: E402


@dataclass(frozen=True)
class Message:
    """What a sensor publishes: samples, or a label for an earlier moment.

    Times are seconds since the week began; `x` is float32 [n] at the stream's rate.
    """

    time: float
    x: np.ndarray | None = None
    y: str | None = None
    about: float = 0.0


class Vibration:
    """One axis at 100 Hz in blocks of 9.6 s; minutes later somebody says what the machine did."""

    name, stream, rate = "vibration", "vibration", machine.RATE
    block = 960
    classes = machine.CLASSES
    labelled = 0.06  # share of windows
    late = 120.0  # seconds until a label comes

    def __init__(self, duration, seed=3):
        self.duration, self.seed = duration, seed

    def messages(self):
        """Everything that the sensor publishes, in order of time."""
        rng = np.random.default_rng((self.seed, 9))
        span, waiting = self.block / self.rate, []
        for i in itertools.count():
            start = i * span
            if start >= self.duration:
                return
            now = start + span
            part = start / self.duration
            state = machine.state(self.seed, start)
            x = machine.signal(self.seed, start, self.block, state, machine.condition(part))
            yield Message(now, x)
            count = rng.poisson(self.labelled * self.block / machine.HOP)
            moments = start + rng.uniform(0.2, span - 0.2, count)
            waiting += [(now + self.late, float(m), state) for m in moments]
            while waiting and waiting[0][0] <= now:
                when, about, said = waiting.pop(0)
                yield Message(max(when, now), y=self.classes[said], about=about)

    def held_out(self, part, count=400):
        """Raw windows and labels of the machine as it is at `part` of the week."""
        return machine.windows(self.seed + 50, count, part)

    def held_out_at(self, part, i):
        """One window of the week and its label."""
        second = part * self.duration
        state = machine.state(self.seed, second)
        start = second + 0.01 * (i % 7)
        return (machine.signal(self.seed, start, machine.LENGTH, state, machine.condition(part)),
                state)


class Keywords:
    """A clip of a second every half minute: other voices, then a new speaker, ever more noise."""

    name, stream, rate = "keywords", "words", 16000.0
    every = 30.0
    late = 45.0
    labelled = 0.5

    def __init__(self, duration, seed=5, every=None):
        from make_data import CLASSES

        self.classes = CLASSES
        self.duration, self.seed = duration, seed
        self.every = every or self.every
        self._clips = {}

    def clips(self, folder):
        """Clips of a folder with their labels, as int16 to save memory."""
        if folder not in self._clips:
            files = sorted((EXAMPLES / "keyword/clips" / folder).glob("*.wav"))
            self._clips[folder] = [
                ((place(read_wav(f)) * 32767).astype(np.int16), label_of(f)) for f in files]
        return self._clips[folder]

    def heard(self, clip, part, rng):
        """The clip as the microphone gives it at `part` of the week: faster from the middle on."""
        x = clip.astype(np.float32) / 32767
        if part > 0.45:
            x = np.interp(np.arange(len(x)) * 1.2 - 0.1 * len(x), np.arange(len(x)), x, 0.0, 0.0)
        x = np.roll(x, int(rng.integers(-1200, 1200)))
        gain = rng.uniform(0.8, 1.2) * (0.5 if part > 0.75 else 1.0)
        noise = 0.015 if part > 0.75 else 0.002
        return (gain * x + noise * rng.standard_normal(len(x))).astype(np.float32)

    def messages(self):
        """Everything that the microphone publishes, in order of time."""
        waiting = []
        for i in itertools.count(1):
            now = i * self.every
            if now >= self.duration:
                return
            rng = np.random.default_rng((self.seed, i))
            part = now / self.duration
            mine = rng.random() < (0.1 if part < 0.15 else 0.9)
            clips = self.clips("speaker/stream" if mine else "base/anchor")
            clip, label = clips[int(rng.integers(len(clips)))]
            start = now - 1.0
            yield Message(now, self.heard(clip, part, rng))
            if rng.random() < self.labelled:
                waiting.append((now + self.late, start + 0.5, label))
            while waiting and waiting[0][0] <= now:
                _, about, said = waiting.pop(0)
                yield Message(now, y=said, about=about)

    def held_out_at(self, part, i):
        """One clip of the week and its label."""
        rng = np.random.default_rng((self.seed, 77, i))
        clips = self.clips("base/anchor" if part < 0.15 else "speaker/stream")
        clip, label = clips[int(rng.integers(len(clips)))]
        return self.heard(clip, part, rng), self.classes.index(label)

    def held_out(self, part, count=96):
        """Clips of the new speaker that are never streamed, as heard at `part`, and labels."""
        clips = self.clips("speaker/test")[:count]
        x = [self.heard(c, part, np.random.default_rng((7, i))) for i, (c, _) in enumerate(clips)]
        return np.stack(x), np.array([self.classes.index(label) for _, label in clips])
