"""The demo's keyword spotter (a DS-CNN with real batch norms) and its new speaker."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import onnx

from edgeloop.data.clips import label_of, place, read_wav
from edgeloop.data.features import from_spec
from tasks.common import Split, Task, accuracy

HERE = Path(__file__).parents[2] / "examples" / "keyword"
CLASSES = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "silence",
           "unknown")


@cache
def clips(folder: str) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, 1, 49, 10] and labels of one folder of clips."""
    features = from_spec(json.loads((HERE / "features.json").read_text()))
    files = sorted((HERE / "clips" / folder).glob("*.wav"))
    x = np.stack([features(place(read_wav(f))).copy() for f in files])
    return x, np.array([CLASSES.index(label_of(f)) for f in files], np.int64)


def target(seed: int) -> Split:
    """160 of the speaker's 192 streamed clips; her 120 test clips."""
    x, y = clips("speaker/stream")
    rows = np.random.default_rng([2, seed]).permutation(len(x))[:160]
    return Split(x[rows], y[rows], *clips("speaker/test"))


TASK = Task("keyword DS-CNN", "accuracy", lambda: onnx.load(HERE / "base.onnx"),
            lambda: clips("base/anchor")[0], target, accuracy, epochs=8)
